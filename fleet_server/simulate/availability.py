"""Who is heard in which quarter of an hour: churn, working days, batteries, outages of sites, of our own broker and server, bad links.

Churn is a two-state chain per device: 77 % steady (on 72 h, off 2.2 h on average), 20 % intermittent (6 h, 11 h), 3 % dormant (2 h, 30
days). The fleet is drawn tick by tick, so that a million devices need one number each and not their whole history.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.simulate.batteries import Batteries
from fleet_server.simulate.scene import PER_DAY, PER_HOUR, TICK_S, Scene

_CLASSES: Final = (0.77, 0.20, 0.03)
_ON_H, _OFF_H = np.array([72.0, 6.0, 2.0]), np.array([2.2, 11.0, 720.0])
_ZONE_HOURS: Final = 6
_MORNING, _EVENING, _WORKDAYS = 8, 18, 5
_OUTAGE_H: Final = (6.0, 24.0)
_BROKER_AFTER_H: Final = (0.5, 10.0, 30.0, 50.0)
_JOIN_UNTIL: Final = 4 * PER_DAY
_MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC)

Mask = NDArray[np.bool_]


class Availability:
    """One fleet's signs of life; `tick` is asked for in rising order, once each.

    Attributes:
        site: [N] site of each device.
        zone: [S] time zone of each site, 0 or 1.
        joined_at: [N] tick at which each device is enrolled; None: all are from the start.
        willing: [N] which devices would begin an update at the last tick; None: all.
    """

    def __init__(self, rng: np.random.Generator, devices: int, scene: Scene, ticks: int) -> None:
        self._rng, self._scene = rng, scene
        self.site = _sites(devices, scene)
        self.sites = int(self.site[-1]) + 1
        self.zone = rng.integers(0, 2, self.sites)
        kind = rng.choice(3, devices, p=_CLASSES)
        self._stays_on = (1 - 1 / (_ON_H * PER_HOUR))[kind].astype(np.float32)
        self._comes_on = (1 / (_OFF_H * PER_HOUR))[kind].astype(np.float32)
        leaves, comes = 1 - self._stays_on, self._comes_on
        self._on: Mask = rng.random(devices, np.float32) < comes / (leaves + comes)
        self._by_day: Mask = rng.random(devices) < scene.day_fraction
        self._shift = rng.integers(-2, 3, devices)
        self._slow: Mask = rng.random(devices) < scene.slow_fraction
        self._began_at = int(rng.integers(0, 7 * PER_DAY))  # a random hour of the week
        self._site_off = self._site_outages(ticks)
        starts = [PER_HOUR * (hour + rng.uniform(0, 6)) for hour in _BROKER_AFTER_H] if scene.broker_hours else []
        self._broker_off = [(int(start), int(start + PER_HOUR * scene.broker_hours)) for start in starts]
        # Drawn last: what other scenes draw must not move.
        self.joined_at: NDArray[np.int64] | None = None
        self.willing: Mask | None = None
        if scene.joiner_fraction:
            late = rng.random(devices) < scene.joiner_fraction
            late[0] = False  # somebody is there from the start
            self.joined_at = np.where(late, rng.integers(1, _JOIN_UNTIL, devices), 0)
        if scene.battery_fraction:
            self._on_battery = np.flatnonzero(rng.random(devices) < scene.battery_fraction)
            self._batteries = Batteries(rng, self.site[self._on_battery], self.sites)
            self.willing = np.ones(devices, bool)
        self._away_phase = rng.uniform(0, scene.away_every_hours) if scene.away_hours else 0.0

    def tick(self, number: int) -> Mask:
        """[N] which devices are heard."""
        draw = self._rng.random(len(self._on), np.float32)
        self._on = np.where(self._on, draw < self._stays_on, draw < self._comes_on)
        heard = self._on
        if self._scene.day_fraction:
            heard = heard & (~self._by_day | self._at_work(number))
        if self.willing is not None:
            heard = heard.copy()
            up, willing = self._batteries.tick(self._local(number))
            heard[self._on_battery] &= up
            self.willing[self._on_battery] = willing
        if self.joined_at is not None:
            heard = heard & (self.joined_at <= number)
        off = [site for site, start, end in self._site_off if start <= number < end]
        if off:
            heard = heard & ~np.isin(self.site, off)
        if self._scene.slow_fraction:
            heard = heard & (~self._slow | (self._rng.random(len(heard), np.float32) < 0.25))
        return np.zeros(len(heard), bool) if self.broker_off(number) else heard

    def broker_off(self, number: int) -> bool:
        """Whether our own broker is down."""
        return any(start <= number < end for start, end in self._broker_off)

    def server_away(self, number: int) -> bool:
        """Whether our own server is away; devices and broker know nothing of it."""
        return (number / PER_HOUR + self._away_phase) % self._scene.away_every_hours < self._scene.away_hours

    def local_time(self, number: int, zone: int) -> datetime:
        """The time by the clocks of a time zone, at the end of a tick."""
        return _MONDAY + timedelta(seconds=TICK_S * (self._began_at + number + 1 + PER_HOUR * _ZONE_HOURS * zone))

    def _local(self, number: int) -> NDArray[np.int64]:
        """[S] ticks since midnight of a Monday, by each site's own clock."""
        found: NDArray[np.int64] = self._began_at + number + PER_HOUR * _ZONE_HOURS * self.zone
        return found

    def _at_work(self, number: int) -> Mask:
        local = self._local(number)[self.site]
        of_day = local % PER_DAY
        weekday = local // PER_DAY % 7 < _WORKDAYS
        return np.asarray((of_day >= _MORNING * PER_HOUR + self._shift) & (of_day < _EVENING * PER_HOUR + self._shift) & weekday)

    def _site_outages(self, ticks: int) -> list[tuple[int, int, int]]:
        """(site, first tick, tick after the last)."""
        found: list[tuple[int, int, int]] = []
        if self._scene.outage_days is None:
            return found
        counts = self._rng.poisson(ticks / PER_DAY / self._scene.outage_days, self.sites)
        for site in np.flatnonzero(counts):
            for start in self._rng.integers(0, ticks, counts[site]):
                found.append((int(site), int(start), int(start + PER_HOUR * self._rng.uniform(*_OUTAGE_H))))
        return found


def _sites(devices: int, scene: Scene) -> NDArray[np.int64]:
    """[N] site numbers: half of the fleet in large sites, the rest in small ones."""
    large = max(1, devices // 2 // scene.large_site) * scene.large_site if devices >= 2 * scene.large_site else 0
    first = np.arange(large) // scene.large_site
    small = max(1, (devices - large) // scene.small_site)
    rest = np.minimum(np.arange(devices - large) // scene.small_site, small - 1)
    return np.concatenate([first, rest + (int(first[-1]) + 1 if large else 0)])
