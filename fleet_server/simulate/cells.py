"""Controls by site and quarter of an hour, kept up by increments: how many of those that were live then have been heard since.

A device that is heard settles at most five cells: those of its last signs of life before it went away. So a tick costs one pass over the
devices, whatever the number of cells; a server can keep the same counts by the same rule.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ZONES: Final = 2

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Cells:
    """Counts of `watched` devices per (site, tick), and per (zone, tick).

    Args:
        site: [W] site of each watched device.
        zone: [S] time zone of each site, 0 or 1.
        ticks: How many there will be.
        soak: Ticks after which a sign of life counts.
    """

    def __init__(self, site: Ints, zone: Ints, ticks: int, soak: int) -> None:
        self._site, self._soak, self._zone = site, soak, zone
        # Ticks first: a tick's row is contiguous, and rows that were never reached take no memory.
        self.live = np.zeros((ticks, len(zone)), np.int32)
        self.unheard = np.zeros((ticks, len(zone)), np.int32)
        self.zone_live = np.zeros((ticks, _ZONES), np.int64)
        self.zone_unheard = np.zeros((ticks, _ZONES), np.int64)
        self._last = np.full(len(site), -(soak + 2), np.int64)
        self._history = np.zeros(len(site), np.int64)  # bit k: heard k ticks before the last sign of life
        self._bits = (1 << (soak + 1)) - 1

    def tick(self, number: int, heard: Mask) -> None:
        """Count one tick.

        Args:
            number: Of the tick, rising; of one tick more may be counted that were not heard in it yet.
            heard: [W].
        """
        here = np.flatnonzero(heard)
        newest = number - self._soak - 1
        # Devices that were never away for as long as is remembered, nearly all of them, settle the one same cell.
        steady = (self._last[here] == number - 1) & (self._history[here] == self._bits)
        if newest >= 0:
            counts = self._by_site(self._site[here[steady]])
            self.unheard[newest] -= counts
            self.zone_unheard[newest] -= self._by_zone(counts)
        self._settle(here[~steady], newest)
        last, history, site = self._last[here], self._history[here], self._site[here]
        gap = np.minimum(number - last, self._soak + 2)
        self._history[here] = ((history << gap) | 1) & self._bits
        self._last[here] = number
        counts = self._by_site(site)
        self.live[number] += counts
        self.unheard[number] += counts
        zones = self._by_zone(counts)
        self.zone_live[number] += zones
        self.zone_unheard[number] += zones

    def _settle(self, devices: Ints, newest: int) -> None:
        """The cells of the last signs of life of devices that were away, up to the newest one that counts."""
        last, history, site = self._last[devices], self._history[devices], self._site[devices]
        for back in range(self._soak + 1):
            cell = last - back
            settles = ((history >> back) & 1 == 1) & (cell <= newest) & (cell >= 0)
            np.subtract.at(self.unheard, (cell[settles], site[settles]), 1)
            np.subtract.at(self.zone_unheard, (cell[settles], self._zone[site[settles]]), 1)

    def _by_site(self, site: Ints) -> NDArray[np.int32]:
        return np.bincount(site, minlength=len(self._zone)).astype(np.int32)

    def _by_zone(self, counts: NDArray[np.int32]) -> Ints:
        return np.bincount(self._zone, counts, minlength=_ZONES).astype(np.int64)
