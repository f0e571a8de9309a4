"""Controls by site and quarter of an hour, kept up by increments: how many of those that were live then have been heard since.

A device that is heard settles at most five cells: those of its last signs of life before it went away. So a tick costs one pass over the
devices, whatever the number of cells; a server can keep the same counts by the same rule.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Cells:
    """Counts of `watched` devices per (site, tick).

    Args:
        site: [W] site of each watched device.
        sites: How many there are.
        ticks: How many there will be.
        soak: Ticks after which a sign of life counts.
    """

    def __init__(self, site: Ints, sites: int, ticks: int, soak: int) -> None:
        self._site, self._soak = site, soak
        self.live = np.zeros((sites, ticks), np.int32)
        self.unheard = np.zeros((sites, ticks), np.int32)
        self._last = np.full(len(site), -(soak + 2), np.int64)
        self._history = np.zeros(len(site), np.int64)  # bit k: heard k ticks before the last sign of life
        self._bits = (1 << (soak + 1)) - 1

    def tick(self, number: int, heard: Mask) -> None:
        """Count one tick.

        Args:
            number: Of the tick, rising by one.
            heard: [W].
        """
        sites = self.live.shape[0]
        here = np.flatnonzero(heard)
        last, history, site = self._last[here], self._history[here], self._site[here]
        newest = number - self._soak - 1
        for back in range(self._soak + 1):
            cell = last - back
            settles = ((history >> back) & 1 == 1) & (cell <= newest) & (cell >= 0)
            if back == self._soak:
                # Devices that were never away all settle the one same cell.
                steady = settles & (cell == newest)
                if newest >= 0:
                    self.unheard[:, newest] -= np.bincount(site[steady], minlength=sites).astype(np.int32)
                settles &= ~steady
            if settles.any():
                np.subtract.at(self.unheard, (site[settles], cell[settles]), 1)
        gap = np.minimum(number - last, self._soak + 2)
        self._history[here] = ((history << gap) | 1) & self._bits
        self._last[here] = number
        live = np.bincount(site, minlength=sites).astype(np.int32)
        self.live[:, number] = live
        self.unheard[:, number] += live
