"""What a plan will do, said before anything happens: when each wave can be done, and what a bad release would cost.

Estimates for people who decide whether to start. Times come from the plan and from the hours at which devices were heard before; chances
come from the rule's own limits. Nothing here decides anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from edgefleet.errors import ConfigError
from fleet_server.rollout.course import Course
from fleet_server.rollout.judgement import DUE_OF_OPENED, HEARD_AFTER_DWELL, HEARD_SHARE
from fleet_server.rollout.opening_hours import Hours
from fleet_server.rollout.planner import RUNS, Foretold, foretell

FAILING: Final = (0.01, 0.03, 0.05, 0.1, 0.2, 0.5)
ALWAYS: Final = Hours()
_HOUR_S: Final = 3_600.0
_DAY_HOURS: Final = 24


@dataclass(frozen=True)
class Awake:
    """At which hours devices were heard.

    Attributes:
        shares: [24] by hour UTC, share of the selected devices that was heard in such an hour.
        days: Days that were looked at.
        devices: Devices that were looked at, a sample of a large selection.
    """

    shares: tuple[float, ...]
    days: int
    devices: int

    def __post_init__(self) -> None:
        if len(self.shares) != _DAY_HOURS or not all(0 <= share <= 1 for share in self.shares):
            raise ConfigError(f"awake: {len(self.shares)} numbers; expected {_DAY_HOURS} shares from 0 to 1, one for each hour UTC")


@dataclass(frozen=True)
class WaveTime:
    """When a wave can be done, if nothing goes wrong.

    Attributes:
        number: From 1.
        opens_s: Seconds from the start of the rollout until it opens.
        opening_s: Until its last device may begin: pace, rate, windows, and the budget of its sites.
        dwell_s: It stays open at least so long after the pace's last batch.
        asleep_s: Waiting for devices that are usually not heard at that hour.
        done_s: From the start of the rollout until it can be promoted.
    """

    number: int
    opens_s: float
    opening_s: float
    dwell_s: float
    asleep_s: float
    done_s: float


@dataclass(frozen=True)
class Chance:
    """What happens if the release fails on a share of the devices.

    Attributes:
        failing: That share.
        at_once: If failures show in the first minutes.
        late: If every failure shows only after the wave's last batch, or while it rests, but within its dwell; None where nothing is
            foretold of it.
        dark: If those devices are never heard again instead; None where nothing is foretold of it.
    """

    failing: float
    at_once: Foretold
    late: Foretold | None
    dark: Foretold | None = None


def wave_times(
    course: Course,
    deadline_s: float,
    starts_at: datetime,
    awake: Awake | None = None,
    hours: Hours = ALWAYS,
    least_opening_s: Sequence[float] = (),
) -> tuple[WaveTime, ...]:
    """When each wave can be done: opening, dwell, deadline of its last devices, and the hours at which devices sleep.

    Who is heard at several hours is not known, so an hour counts by itself: the estimate is on the careful side, but nobody is waited for
    longer than a day.

    Args:
        course: Of the plan; nothing of it has begun.
        deadline_s: Seconds that a device has, from its beginning, to be heard.
        starts_at: When it would be started, aware UTC.
        awake: None: as if every device were always awake.
        hours: Windows in which devices may begin, and their clocks.
        least_opening_s: Of each wave, as its sites' budget makes it; none: no budget.
    """
    found: list[WaveTime] = []
    opens_s = 0.0
    for number, dwell_s in enumerate(course.dwell_s, start=1):
        opening_s, dwells_from_s = hours.opening_s(course, number, starts_at + timedelta(seconds=opens_s))
        opening_s = max(opening_s, least_opening_s[number - 1] if least_opening_s else 0.0)
        begun_s, dwelled_s = opens_s + opening_s, opens_s + dwells_from_s + dwell_s
        awakened = _done_s(course, number, begun_s, dwelled_s, deadline_s, None if awake is None else (awake, starts_at))
        asleep = awakened - _done_s(course, number, begun_s, dwelled_s, deadline_s, None)
        found.append(WaveTime(number, opens_s, opening_s, dwell_s, asleep, awakened))
        opens_s = awakened
    return tuple(found)


def _done_s(course: Course, number: int, begun: float, dwelled: float, deadline_s: float, sleep: tuple[Awake, datetime] | None) -> float:
    """Seconds from the start of the rollout until a wave can be promoted whose last devices begin, and whose dwell ends, at these."""
    if sleep is not None:
        begun += asleep_s(sleep[0], sleep[1] + timedelta(seconds=begun), DUE_OF_OPENED)
    due = max(begun + deadline_s, dwelled)
    if sleep is None or course.dwell_s[number - 1] <= 0:
        return due
    # Some must be heard once more after the dwell.
    return due + asleep_s(sleep[0], sleep[1] + timedelta(seconds=due), min(HEARD_SHARE, HEARD_AFTER_DWELL / course.sizes[number - 1]))


def budget_s(sites: Mapping[str, int], budget: int | None, activation_s: float) -> float:
    """Seconds until the last device of a wave may begin where no more than a budget of each site change at once.

    Args:
        sites: Site -> devices that the wave adds there.
        budget: None: any number.
        activation_s: That a device takes at least, from its beginning to its commit.

    >>> budget_s({"hall-1": 7, "hall-2": 2}, 2, 3600.0)
    10800.0
    """
    most = max(sites.values(), default=0)
    return 0.0 if budget is None or most == 0 else (-(-most // budget) - 1) * activation_s


def asleep_s(awake: Awake, from_at: datetime, needed: float) -> float:
    """Seconds until an hour in which so large a share is usually heard; a day where there is none.

    >>> from datetime import UTC
    >>> night = Awake(tuple(0.2 if hour < 6 else 0.8 for hour in range(24)), days=7, devices=50)
    >>> asleep_s(night, datetime(2026, 1, 1, 4, 30, tzinfo=UTC), 0.5)
    5400.0
    """
    if awake.shares[from_at.hour] >= needed:
        return 0.0
    rest = _HOUR_S - from_at.minute * 60 - from_at.second
    for step in range(_DAY_HOURS - 1):
        if awake.shares[(from_at.hour + 1 + step) % _DAY_HOURS] >= needed:
            return rest + step * _HOUR_S
    return _DAY_HOURS * _HOUR_S


def chances(course: Course, rng: np.random.Generator, *, failing: Sequence[float] = FAILING, runs: int = RUNS) -> tuple[Chance, ...]:
    """What the plan does to releases that fail on these shares of the devices; about 0.2 s for 10,000 devices.

    Args:
        course: Of the plan.
        rng: Seeded from the plan's digest: the same plan foretells the same numbers.
        failing: True shares of failing devices.
        runs: Of each share.
    """
    rests_at = course.rests_at(1) if course.rests_at(1) < course.sizes[0] else 0

    def told(share: float, late: float = 0.0, *, dark: bool = False) -> Foretold:
        first, growth = course.pace.first, course.pace.growth
        return foretell(
            course.sizes, course.rule, share, rng, late=late, runs=runs, first=first, growth=growth, rests_at=rests_at, dark=dark
        )

    return tuple(Chance(share, told(share), told(share, 1.0), told(share, dark=True)) for share in failing)


def chances_unanimous(
    added: Sequence[int], rng: np.random.Generator, *, failing: Sequence[float] = FAILING, runs: int = RUNS
) -> tuple[Chance, ...]:
    """The same for the rule that every device must be ok: a wave begins as a whole, and any failure in it stops the rollout.

    Args:
        added: Devices that each wave adds.
        rng: As above.
        failing: As above.
        runs: As above.

    Raises:
        ConfigError: A wave without a device.
    """
    if not added or min(added) < 1:
        raise ConfigError(f"waves add {list(added)[:8]} devices: an empty wave never passes")
    return tuple(_unanimous(added, rng, share, runs) for share in failing)


def _unanimous(added: Sequence[int], rng: np.random.Generator, share: float, runs: int) -> Chance:
    harmed, stopped_in = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
    for number, devices in enumerate(added, start=1):
        on = stopped_in == 0
        failed = rng.binomial(devices, share, int(on.sum()))
        harmed[on] += failed
        stopped_in[np.flatnonzero(on)[failed > 0]] = number
    foretold = Foretold(
        stopped_in_first=float((stopped_in == 1).mean()),
        stopped=float((stopped_in > 0).mean()),
        harmed_median=float(np.median(harmed)),
        harmed_p95=float(np.quantile(harmed, 0.95)),
        harmed_mean=float(harmed.mean()),
    )
    # A silent device is not ok either.
    return Chance(share, foretold, foretold, foretold)


def growths(course: Course, wave: int) -> Iterator[int]:
    """Devices that a wave reaches: as planned, then each time that it may grow."""
    reach = course.sizes[wave - 1]
    for _ in range(course.rule.extends + 1):
        yield reach
        reach = course.rule.grown(reach)
        if reach >= course.sizes[-1]:
            return
