"""A whole fleet's signs of life, kept as bits: a million devices over 14 days are 170 MB."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.simulate.availability import Availability
from fleet_server.simulate.scene import PER_HOUR

NEVER_H: Final = np.inf
_PIECE: Final = 20_000
_KEPT: Final = 60_000_000
Hours = NDArray[np.float64]


class History:
    """Who is heard in which quarter of an hour.

    Args:
        availability: Of a fleet; it is asked for all its ticks here.
        ticks: How many.
        kept: Devices x ticks up to which the answers are kept, two bytes each; of larger fleets they are made when they are asked for.
    """

    def __init__(self, availability: Availability, ticks: int, kept: int = _KEPT) -> None:
        self._ticks, self._devices = ticks, len(availability.site)
        rows = (np.packbits(availability.tick(number)) for number in range(ticks))
        self._bits = np.fromiter(rows, np.dtype((np.uint8, (self._devices + 7) // 8)), ticks)  # one row a tick
        everybody = np.arange(self._devices)
        self._kept = self._following(everybody) if self._devices * ticks <= kept else None

    def heard_from(self, hours: Hours, devices: NDArray[np.int64] | None = None) -> Hours:
        """[N] when each device is heard first at or after its time: then and there if it is on, else when it comes back.

        Args:
            hours: [N] from the start; not finite: never.
            devices: [N] which; None: all, in order.
        """
        devices = np.arange(self._devices) if devices is None else devices
        found = np.full(len(devices), NEVER_H)
        for start in range(0, len(devices), _PIECE):
            part = slice(start, start + _PIECE)
            found[part] = self._piece(hours[part], devices[part])
        return found

    def _piece(self, hours: Hours, devices: NDArray[np.int64]) -> Hours:
        soon = np.isfinite(hours) & (hours < self._ticks / PER_HOUR)
        tick = np.where(soon, np.where(soon, hours, 0.0) * PER_HOUR, 0).astype(np.int64)
        back = self._following(devices)[tick, np.arange(len(devices))] if self._kept is None else self._kept[tick, devices]
        at = np.where(back == tick, hours, back / PER_HOUR)
        return np.where(soon & (back < self._ticks), at, NEVER_H)

    def _following(self, devices: NDArray[np.int64]) -> NDArray[np.int16]:
        """[T, n] the tick at or after each one in which the device is heard; the number of ticks where none is."""
        on = (self._bits[:, devices // 8] >> (7 - devices % 8).astype(np.uint8)) & 1
        number = np.arange(self._ticks, dtype=np.int16)[:, None]
        found: NDArray[np.int16] = np.minimum.accumulate(np.where(on == 1, number, np.int16(self._ticks))[::-1], axis=0)[::-1]
        return found
