"""How far a rollout by evidence has come: how many devices each wave reaches, how fast they may begin, and since when it can be judged."""

import itertools
import math
from datetime import datetime, timedelta
from typing import Final

import msgspec

from edgefleet.errors import ConfigError
from fleet_server.rollout.bounds import devices_needed
from fleet_server.rollout.confirming import Confirm, asks_at
from fleet_server.rollout.findings import Accepted, Clock, Confirmed
from fleet_server.rollout.pacing import Pace, Rate, Wait, rate_s
from fleet_server.rollout.rules import Rule

DAY_S: Final = 86_400.0
_AWAY: Final = 10  # percent of devices more than a proof needs, because some are off


class Course(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stored with the rollout; replaced as a whole by each action.

    Attributes:
        rule: Limits of evidence.
        sizes: Cumulative devices of the waves, rising; the last one is everybody who is not held back.
        dwell_s: Per wave.
        pace: Batches of the opening.
        rate: None: as fast as the batches.
        rest_s: The last part of wave 1 begins so long after the others, which by then may have failed late.
        patience_s: A wave that can be judged and has no answer for so long grows, if that may help.
        hold_s: After so long without an answer a person is asked.
        stall_s: A wave that cannot be judged at all for so long is paused.
        exposed_before: Devices that were reached when the present batch began to double.
        stage_at: When it began: the opening of the wave, or its last growth.
        judged_at: Since when the open wave can be judged.
        grown: Times that it has grown.
        shown: What a person is shown of the pause that waits for her; None: nothing waits, or there is nothing to accept.
        accepted: What people accepted by resuming.
        resumed_at: When a person let it go on last, by resuming or confirming.
        confirm: When a person is asked although no gate is against going on.
        asked: What she confirms if she confirms the pause that waits for her; None: it asks for no confirmation.
        confirmed: What people confirmed.
        clips: Comparison, and where it cuts off the difference of one device; those that are missing have the default.
        clip_releases: Completed rollouts that these come from.
    """

    rule: Rule
    sizes: tuple[int, ...]
    dwell_s: tuple[float, ...]
    pace: Pace = Pace()
    rate: Rate | None = None
    rest_s: float = 0.0
    patience_s: float = 4 * 3_600.0
    hold_s: float = DAY_S
    stall_s: float = 7 * DAY_S
    exposed_before: int = 0
    stage_at: datetime | None = None
    judged_at: datetime | None = None
    grown: int = 0
    shown: Accepted | None = None
    accepted: Accepted = Accepted()
    resumed_at: datetime | None = None
    confirm: Confirm = "never"
    asked: Confirmed | None = None
    confirmed: Confirmed = Confirmed()
    clips: tuple[tuple[str, float], ...] = ()
    clip_releases: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or self.sizes[0] < 1 or any(b <= a for a, b in itertools.pairwise(self.sizes)):
            raise ConfigError(f"waves of {list(self.sizes)[:8]} devices must rise from at least 1")
        if len(self.dwell_s) != len(self.sizes) or min(self.dwell_s) < 0:
            raise ConfigError(f"{len(self.dwell_s)} dwells for {len(self.sizes)} waves; give one of at least 0 s for each")
        if not (self.patience_s >= 0 and self.rest_s >= 0 and self.hold_s > 0 and self.stall_s > 0):
            raise ConfigError("patience_s and rest_s must be at least 0, hold_s and stall_s above 0")

    def added(self, wave: int) -> int:
        """Devices that a wave adds to the ones before it."""
        return self.sizes[wave - 1] - (self.sizes[wave - 2] if wave > 1 else 0)

    def reach(self, wave: int, now: datetime) -> int:
        """Devices of all open waves that may have begun by now."""
        if wave == 0 or self.stage_at is None:
            return 0
        goal, paced_s = self._paced(wave, (now - self.stage_at).total_seconds())
        allowed = self.pace.allowed(self.exposed_before, paced_s)
        if self.rate is not None:
            allowed = min(allowed, self.exposed_before + self.rate.allowed(paced_s))
        return min(goal, allowed)

    def rests_at(self, wave: int) -> int:
        """Devices of all open waves after which the opening rests; those of the whole wave where it does not.

        Three quarters of wave 1, but no fewer than can prove the limit with one failure among them: a good release seldom waits for the
        others.
        """
        size = self.sizes[wave - 1]
        if wave != 1 or self.grown or not self.rest_s:
            return size
        enough = devices_needed(1, self.rule.limit, self.rule.confidence)
        return min(size, max(-(-3 * size // 4), -(-(100 + _AWAY) * enough // 100)))

    def _paced(self, wave: int, open_s: float) -> tuple[int, float]:
        """Devices that batches may reach now, and the seconds that count for them: all but the rest."""
        size, rests_at = self.sizes[wave - 1], self.rests_at(wave)
        if rests_at == size:
            return size, open_s
        goes_on_s = self._rests_from_s(wave) + self.rest_s
        return (rests_at, open_s) if open_s < goes_on_s else (size, open_s - self.rest_s)

    def _rests_from_s(self, wave: int) -> float:
        """Seconds from the opening of a wave until the devices before its rest may have begun."""
        paced = self.dwells_from_s(wave)
        return paced if self.rate is None else max(paced, rate_s(self.rate, self.rests_at(wave)))

    def left(self, wave: int, begun: int, now: datetime) -> dict[Wait, int]:
        """How many more devices each limit allows.

        Args:
            wave: The open one.
            begun: Devices that were asked so far, of all waves.
            now: Aware UTC.
        """
        if wave == 0 or self.stage_at is None:
            return {"pace": 0}
        goal, paced_s = self._paced(wave, (now - self.stage_at).total_seconds())
        found: dict[Wait, int] = {"pace": min(goal, self.pace.allowed(self.exposed_before, paced_s)) - begun}
        if self.rate is not None:
            found["rate"] = self.exposed_before + self.rate.allowed(paced_s) - begun
        return {name: max(count, 0) for name, count in found.items()}

    def rate_within(self, wave: int, span_s: float, now: datetime) -> int | None:
        """Devices that the rate lets begin in so long a time that ends now; None: the policy names no rate.

        Args:
            wave: The open one.
            span_s: Of that time, seconds.
            now: Aware UTC.
        """
        if self.rate is None or self.stage_at is None:
            return None
        _, paced_s = self._paced(wave, (now - self.stage_at).total_seconds())
        return self.rate.allowed_within(span_s, paced_s)

    def one_in_s(self, wave: int, now: datetime) -> float:
        """Seconds in which the rate lets one device begin now; 0 where the policy names none."""
        if self.rate is None or self.stage_at is None:
            return 0.0
        return self.rate.one_in_s(self._paced(wave, (now - self.stage_at).total_seconds())[1])

    def batch_after(self, asked_before: int) -> int:
        """Devices exposed after the batch that follows so many: the wave's own steps, one at a time, however long it stood still.

        Args:
            asked_before: Devices that were asked at least one batch ago, of all waves.
        """
        steps = (self.pace.allowed(self.exposed_before, batch * self.pace.every_s) for batch in itertools.count())
        return next(step for step in steps if step > asked_before)

    def next_batch_at(self, wave: int, now: datetime) -> datetime | None:
        """When more devices of the open wave may begin, None when all may."""
        if wave == 0 or self.stage_at is None or self.reach(wave, now) >= self.sizes[wave - 1]:
            return None
        open_s = (now - self.stage_at).total_seconds()
        goal, paced_s = self._paced(wave, open_s)
        if goal < self.sizes[wave - 1] and self.reach(wave, now) >= goal:
            return self.stage_at + timedelta(seconds=self._rests_from_s(wave) + self.rest_s)
        following_s = (math.floor(max(paced_s, 0.0) / self.pace.every_s) + 1) * self.pace.every_s
        return self.stage_at + timedelta(seconds=open_s - paced_s + following_s)

    def opening_s(self, wave: int) -> float:
        """Seconds from the opening of a wave until its last batch may begin, by its pace."""
        rest_s = self.rest_s if self.rests_at(wave) < self.sizes[wave - 1] else 0.0
        return rest_s + self.pace.opening_s(self.sizes[wave - 2] if wave > 1 else 0, self.sizes[wave - 1])

    def dwells_from_s(self, wave: int) -> float:
        """Seconds from the opening of a wave until its dwell counts: its last batch, or the last one before it rests."""
        return self.pace.opening_s(self.sizes[wave - 2] if wave > 1 else 0, self.rests_at(wave))

    def opened(self, wave: int, now: datetime) -> "Course":
        """After a wave was opened."""
        before = self.sizes[wave - 2] if wave > 1 else 0
        return msgspec.structs.replace(self, exposed_before=before, stage_at=now, judged_at=None, grown=0)

    def matured(self, now: datetime) -> "Course":
        """From now on the open wave can be judged."""
        return msgspec.structs.replace(self, judged_at=now)

    def resumed(self, now: datetime, dark_sites: int = 0) -> "Course":
        """A person goes on: what she was shown, and sites that are dark now, are accepted, and the wave has its patience again."""
        judged_at = None if self.judged_at is None else now
        accepted, confirmed = self.shown or self.accepted, self.asked or self.confirmed
        accepted = msgspec.structs.replace(accepted, sites_out=max(accepted.sites_out, dark_sites))
        return msgspec.structs.replace(
            self, accepted=accepted, shown=None, confirmed=confirmed, asked=None, judged_at=judged_at, resumed_at=now
        )

    def looked_at(self, since: datetime, now: datetime) -> "Course":
        """A person has looked and lets it go on: nothing is accepted, and the time she took counts as none.

        Args:
            since: When she was asked.
            now: Aware UTC, not before it.
        """
        judged_at = None if self.judged_at is None else self.judged_at + (now - since)
        return msgspec.structs.replace(
            self, confirmed=self.asked or self.confirmed, asked=None, shown=None, judged_at=judged_at, resumed_at=now
        )

    def larger(self, wave: int) -> int:
        """Devices that the wave would reach if it grew; no more than half of everybody, else it does not grow."""
        size = self.rule.grown(self.sizes[wave - 1])
        return size if size < self.sizes[-1] and (self.rule.kind == "posterior" or 2 * self.sizes[wave - 1] < self.sizes[-1]) else 0

    def grown_to(self, wave: int, size: int, now: datetime) -> "Course":
        """After the open wave grew; later waves that would add nobody are left out."""
        before = self.sizes[wave - 1]
        if not before < size < self.sizes[-1]:
            raise ConfigError(f"wave {wave} cannot grow from {before} to {size} devices of {self.sizes[-1]}; nothing was changed")
        later = [(s, d) for s, d in zip(self.sizes[wave:], self.dwell_s[wave:], strict=True) if s > size]
        return msgspec.structs.replace(
            self,
            sizes=(*self.sizes[: wave - 1], size, *(s for s, _ in later)),
            dwell_s=(*self.dwell_s[:wave], *(d for _, d in later)),
            exposed_before=before,
            stage_at=now,
            judged_at=None,
            grown=self.grown + 1,
        )


def clock_of(course: Course, wave: int, opened_at: datetime, now: datetime) -> Clock:
    """Where the open wave stands; the dwell counts from its last batch, or the last before its rest; a growth does not start it anew."""
    dwell_s = course.dwell_s[wave - 1]
    dwells_from_s = 0.0 if course.grown else course.dwells_from_s(wave)
    open_s = (now - opened_at - timedelta(seconds=dwells_from_s)).total_seconds()
    return Clock(
        opened_all=course.reach(wave, now) >= course.sizes[wave - 1],
        open_s=max(open_s, 0.0),
        dwell_s=dwell_s,
        judged_s=None if course.judged_at is None else (now - course.judged_at).total_seconds(),
        patience_s=course.patience_s,
        # With the default of a day: eight hours more than the dwell.
        hold_s=max(course.hold_s, dwell_s + course.hold_s / 3),
        grown=course.grown,
        may_grow=course.larger(wave) > 0,
        resumed_s=None if course.resumed_at is None else (now - course.resumed_at).total_seconds(),
        accepted=course.accepted,
        asks=asks_at(course.confirm, wave, len(course.sizes), course.confirmed),
    )
