"""Devices on batteries: asleep for a part of the day, flat when nobody charged them, and in no mood for updates below a charge.

A device is up for its site's hours of the day and whenever it is on a charger. Each site charges at hours of its own, for as long as it
does, and forgets it on some days: so silence without a fault is unequal between sites, and most unequal after a few forgotten days.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.simulate.scene import PER_DAY, PER_HOUR

_UP_EMPTIES_H, _ASLEEP_EMPTIES_H, _FILLS_H = 30.0, 400.0, 4.0
_FLAT: Final = 0.1  # below this charge it switches off ...
_BACK: Final = 0.25  # ... until it has this much
_UPDATES_FROM: Final = 0.4  # below this charge it defers an update, unless it is on a charger
_UP_FROM_H, _UP_FOR_H = (5.0, 9.0), (8.0, 15.0)
_CHARGES_FOR_H: Final = (3.0, 9.0)
_CHARGES_ON_DAYS: Final = (0.6, 1.0)

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Batteries:
    """The charge of some devices, quarter of an hour by quarter of an hour; `tick` is asked for in rising order, once each.

    Args:
        rng: Of the fleet.
        site: [B] site of each device with a battery.
        sites: How many there are.

    Attributes:
        charge: [B] from 0 to 1.
    """

    def __init__(self, rng: np.random.Generator, site: Ints, sites: int) -> None:
        self._rng, self._site = rng, site
        self.charge = rng.uniform(0.3, 1.0, len(site)).astype(np.float32)
        self._flat: Mask = np.zeros(len(site), bool)
        self._up_from, self._up_for, self._charges_for = (
            (PER_HOUR * rng.uniform(*hours, sites)).astype(np.int64) for hours in (_UP_FROM_H, _UP_FOR_H, _CHARGES_FOR_H)
        )
        self._charges_from = rng.integers(0, PER_DAY, sites)
        self._charges_on = rng.uniform(*_CHARGES_ON_DAYS, sites)
        self._charges_today: Mask = rng.random(sites) < self._charges_on

    def tick(self, local: Ints) -> tuple[Mask, Mask]:
        """Live through a quarter of an hour.

        Args:
            local: [S] ticks since midnight of a Monday, by each site's own clock.

        Returns:
            [B] which devices are up; [B] which of them, or of those asleep, would begin an update.
        """
        of_day = local % PER_DAY
        # Whether a site forgets to charge is drawn when its own charging begins.
        begins = of_day == self._charges_from
        self._charges_today = np.where(begins, self._rng.random(len(local)) < self._charges_on, self._charges_today)
        charging = (self._charges_today & ((of_day - self._charges_from) % PER_DAY < self._charges_for))[self._site]
        by_clock = ((of_day - self._up_from) % PER_DAY < self._up_for)[self._site]
        up = (by_clock | charging) & ~self._flat
        drained = np.where(up, 1 / _UP_EMPTIES_H, 1 / _ASLEEP_EMPTIES_H)
        moved = np.where(charging, 1 / _FILLS_H, -drained) / PER_HOUR
        self.charge = np.clip(self.charge + moved, 0.0, 1.0).astype(np.float32)
        self._flat = np.where(self._flat, self.charge < _BACK, self.charge < _FLAT)
        return up, charging | (self.charge >= _UPDATES_FROM)
