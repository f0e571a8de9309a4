"""Who is given the release next where the order alone does not say: windows, a site's budget, devices that are enrolled later.

By the limits of the course and the rules of `rollout.pacing.begin`, over whole rows of devices; a test holds them against each other. Under
a budget those who sleep give their place back by `rollout.places`, as the real server has it: a test holds the two beside each other.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec
import numpy as np

from fleet_server.rollout import places
from fleet_server.rollout.course import Course
from fleet_server.rollout.policy import Policy
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.scene import PER_HOUR, TICK_S

_NEARLY: Final = 0.9  # as the real scheduler: devices are asked some moments after their batch may begin


class Asking:
    """Devices of the waves, which of them are there, and which were given the release.

    Args:
        order: Of the waves.
        policy: With windows and budget.
        availability: Sites, clocks, and when each device is enrolled.
    """

    def __init__(self, order: Order, policy: Policy, availability: Availability) -> None:
        self._availability, self._order = availability, order
        self._wave = order.wave.copy()
        self._windows = () if policy.emergency else policy.windows
        self._policy, self._budget = policy, policy.site_budget
        joined_at = availability.joined_at
        self._joined_at = np.zeros(len(order.devices), np.int64) if joined_at is None else joined_at[order.devices]
        self._asked_at: Ints = np.full(len(order.devices), -1, np.int64)  # the first time, as pace and rate count
        self._deadline = policy.deadline_s / TICK_S
        self._asked_last: Ints = self._asked_at.copy()
        self._news_at: Ints = self._asked_at.copy()  # first tick whose signs of life are newer than what the device was told last
        self._aside: Mask = np.zeros(len(order.devices), bool)
        self._not_begun: Ints = np.empty(0, np.int64)  # places of the order: asked, and not known to have begun

    @staticmethod
    def needed(policy: Policy, availability: Availability) -> bool:
        """Whether the order alone does not say who is next."""
        return bool(policy.windows and not policy.emergency) or policy.site_budget is not None or availability.joined_at is not None

    @property
    def asked(self) -> Ints:
        """Devices that were given the release, also those that gave the place of their site back."""
        return self._order.devices[self._asked_at >= 0]

    @property
    def asking(self) -> Ints:
        """Devices whose document names the release."""
        return self._order.devices[(self._asked_at >= 0) & ~self._aside]

    def course(self, course: Course, number: int) -> Course:
        """The course with the sizes that its waves have at a tick; a wave without a device keeps a place, so that sizes go on rising."""
        there = self._wave[self._joined_at <= number]
        members = np.bincount(there, minlength=len(course.sizes) + 1)[1:]
        sizes = tuple(int(size) for size in np.cumsum(np.maximum(members, 1)))
        return course if sizes == course.sizes else msgspec.structs.replace(course, sizes=sizes)

    def grow(self, wave: int, before: Course, size: int, number: int) -> None:
        """The open wave takes the next devices; waves that would add nobody are left out, those behind move up.

        Args:
            wave: The open one.
            before: The course until now.
            size: Devices that the wave reaches from now on.
            number: Of the tick.
        """
        stay = [later for later in range(wave + 1, len(before.sizes) + 1) if before.sizes[later - 1] > size]
        there = self._joined_at <= number
        taken = there & (np.cumsum(there) <= size)
        # Who is enrolled later goes by thresholds: those of the last wave that is absorbed whole.
        taken |= ~there & (self._wave < min(stay, default=len(before.sizes) + 1))
        moved = self._wave.copy()
        for new, old in enumerate(stay, start=wave + 1):
            moved[self._wave == old] = new
        self._wave = np.where(taken & (self._wave > wave), wave, moved)

    def ask(self, number: int, now: datetime, course: Course, wave: int, ledger: Ledger) -> None:
        """Give the release to those that may begin at a tick; under a budget first to those that woke, and in place of those that sleep.

        Args:
            number: Of the tick.
            now: The same as a time.
            course: Of the rollout.
            wave: The open one.
            ledger: Who is in activation.
        """
        if self._budget is None:
            self._ask_next(number, self._room(number, now, course, wave), wave, ledger)
            return
        again = True
        while again:  # until nothing changes: who is asked anew may have committed unheard, and takes nobody's place
            again = self._ask_anew(number, ledger)
            self._ask_next(number, self._room(number, now, course, wave), wave, ledger)
            again = self._set_aside(number, now, ledger) or again

    def _ask_next(self, number: int, room: int, wave: int, ledger: Ledger) -> None:
        """Ask those that were never asked."""
        if room <= 0:
            return
        waiting = np.flatnonzero((self._asked_at < 0) & (self._joined_at <= number) & (self._wave <= wave))
        chosen = self._chosen(number, waiting, room, ledger)
        self._asked_at[chosen] = self._asked_last[chosen] = number
        self._news_at[chosen] = ledger.next_tick
        self._not_begun = np.concatenate([self._not_begun, chosen])

    def _ask_anew(self, number: int, ledger: Ledger) -> bool:
        """Whether some that gave their place back and were heard since are asked; pace and rate counted them when they were asked first."""
        aside = np.flatnonzero(self._aside)
        woken = aside[places.asked_anew(aside=self._aside[aside], heard_since=self._heard_since(aside, ledger))]
        chosen = self._chosen(number, woken, len(woken), ledger)
        self._aside[chosen], self._asked_last[chosen] = False, number
        self._news_at[chosen] = ledger.next_tick
        return bool(len(chosen))

    def _set_aside(self, number: int, now: datetime, ledger: Ledger) -> bool:
        """Whether some that sleep gave their place back, where others of their site wait: from now on nothing is asked of them."""
        deaf_until = ledger.deaf_until(number)
        deaf_until_at = None if deaf_until is None else now - timedelta(seconds=TICK_S * (number + 1 - deaf_until))
        if not places.silence_tells(self._policy, now, deaf_until_at):
            return False
        rows = self._not_begun
        began = ledger.began[self._order.devices[rows]] >= 0
        asleep = rows[
            places.sleeps(
                asked_long_ago=number - self._asked_last[rows] > self._deadline,
                began=began,
                aside=self._aside[rows],
                heard_since=self._heard_since(rows, ledger),
            )
        ]
        self._not_begun = rows[~began]
        if not len(asleep):
            return False
        rows = np.flatnonzero((self._asked_at < 0) | self._aside)
        waiting = rows[
            places.waits(
                asked=self._asked_at[rows] >= 0,
                in_wave=self._joined_at[rows] <= number,
                aside=self._aside[rows],
                heard_since=self._heard_since(rows, ledger),
            )
        ]
        giving = asleep[np.isin(self._site(asleep), self._site(waiting))]
        self._aside[giving], self._news_at[giving] = True, ledger.next_tick
        return bool(len(giving))

    def _heard_since(self, rows: Ints, ledger: Ledger) -> Mask:
        """Whether devices were heard since they were told last what is asked of them."""
        heard: Mask = ledger.last_heard[self._order.devices[rows]] >= self._news_at[rows]
        return heard

    def _site(self, rows: Ints) -> Ints:
        return self._availability.site[self._order.devices[rows]]

    def _chosen(self, number: int, waiting: Ints, room: int, ledger: Ledger) -> Ints:
        """Of places of the order, those that may begin now."""
        waiting = waiting[self._in_window(number, waiting)]
        if not len(waiting):
            return waiting
        busy = np.zeros(self._availability.sites, np.int64) if self._budget is None else ledger.in_activation(self.asking)
        return waiting[first_in_budget(self._site(waiting), room, self._budget, busy)]

    def _room(self, number: int, now: datetime, course: Course, wave: int) -> int:
        asked = int((self._asked_at >= 0).sum())
        left = course.left(wave, asked, now)
        if left["pace"]:
            # The wave's clock ran on outside the windows and out of budget; no batch grows by that.
            every = course.pace.every_s / TICK_S
            settled = int(((self._asked_at >= 0) & (self._asked_at <= number - _NEARLY * every)).sum())
            for _ in range(max(1, int(1 / every))):  # batches of one tick
                settled = course.batch_after(settled)
            left["pace"] = min(left["pace"], max(settled - asked, 0))
        if left.get("rate"):
            # Nor does the rate catch up with what it would have let begin meanwhile.
            opened = number if course.stage_at is None else number - int((now - course.stage_at).total_seconds() // TICK_S)
            for ticks in (1, PER_HOUR, max(PER_HOUR, int(course.one_in_s(wave, now) // TICK_S))):
                allowed = course.rate_within(wave, ticks * TICK_S, now)
                lately = int((self._asked_at >= max(number - ticks + 1, opened)).sum())
                left["rate"] = left["rate"] if allowed is None else min(left["rate"], max(allowed - lately, 0))
        return min(left.values())

    def _in_window(self, number: int, waiting: Ints) -> Mask:
        if not self._windows:
            return np.ones(len(waiting), bool)
        clocks = [self._availability.local_time(number, zone) for zone in (0, 1)]
        holds = np.array([any(window.holds(clock) for window in self._windows) for clock in clocks])
        found: Mask = holds[self._availability.zone[self._site(waiting)]]
        return found


def first_in_budget(site: Ints, room: int, budget: int | None, busy: Ints) -> Ints:
    """Places of the first devices in a row of which no site gets more than its budget.

    Args:
        site: [W] of each device, in their order.
        room: Most devices.
        budget: Most devices of a site in activation at once; None: any number.
        busy: [S] devices that are in activation already.

    >>> first_in_budget(np.array([0, 0, 0, 1, 1]), 3, 2, np.array([1, 0])).tolist()
    [0, 3, 4]
    """
    if budget is None:
        return np.arange(min(room, len(site)))
    free = np.flatnonzero(busy[site] < budget)  # few, while a small budget is used up nearly everywhere
    site = site[free]
    by_site = np.argsort(site, kind="stable")
    starts = np.searchsorted(site[by_site], site[by_site])
    before = np.empty(len(site), np.int64)
    before[by_site] = np.arange(len(site)) - starts
    return free[before + busy[site] < budget][:room]
