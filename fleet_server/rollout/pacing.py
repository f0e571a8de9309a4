"""How many devices begin, and which: rate, paced opening, disruption budget of a site, windows in the device's own time.

All of it only delays: a device that may not begin now is asked again at the next look, and why it waits is counted for the page.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edgefleet.errors import ConfigError

_HOUR_S: Final = 3600.0
_DAY_MINUTES: Final = 24 * 60
_OFFSET: Final = re.compile(r"([+-])(\d{2}):([0-5]\d)")
_MOST: Final = 10**15  # devices; beyond, floats would no longer count one by one
_MOST_LOG: Final = 60.0
_FACTOR: Final = 2.0
_LONGEST_S: Final = 10 * 366 * 86_400.0
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Wait = Literal["rate", "pace", "site budget", "window", "busy", "site out"]


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Devices that may begin per hour.

    Attributes:
        kind: `constant`, `linear` (grows by `step_per_hour` each hour) or `exponential` (grows by `factor` each hour).
        per_hour: At the start of each wave.
        step_per_hour: Of `linear`.
        factor: Of `exponential`.
        most_per_hour: Never more.
        backward: It bounds a rollback too, which else goes as fast as budgets let it; an emergency is never bounded.
    """

    kind: Literal["constant", "linear", "exponential"] = "constant"
    per_hour: float
    step_per_hour: float = 0.0
    factor: float = _FACTOR
    most_per_hour: float = 1e9
    backward: bool = False

    def __post_init__(self) -> None:
        for name, value in (("per_hour", self.per_hour), ("most_per_hour", self.most_per_hour)):
            if not 0 < value < math.inf:
                raise ConfigError(f"rate.{name} = {value} must be a number above 0")
        if not 0 <= self.step_per_hour < math.inf or not 1 <= self.factor <= 100:
            raise ConfigError(f"rate.step_per_hour = {self.step_per_hour} must be at least 0 and factor = {self.factor} from 1 to 100")
        if self.most_per_hour < self.per_hour:
            raise ConfigError(f"rate.most_per_hour = {self.most_per_hour:g} is below per_hour = {self.per_hour:g}")

    def refuse_idle_keys(self) -> None:
        """Refuse growth that the kind of the rate does not have, and a linear rate without any.

        Raises:
            ConfigError: A key that would have no effect, with the kind that it belongs to.
        """
        if self.kind == "linear" and self.step_per_hour == 0:
            raise ConfigError("rate.kind = 'linear' needs step_per_hour above 0, or it never grows; else use 'constant'")
        if self.kind != "linear" and self.step_per_hour > 0:
            raise ConfigError(f"rate.step_per_hour = {self.step_per_hour:g} has no effect with kind = {self.kind!r}; it is for 'linear'")
        if self.kind != "exponential" and self.factor != _FACTOR:
            raise ConfigError(f"rate.factor = {self.factor:g} has no effect with kind = {self.kind!r}; it is for 'exponential'")

    def allowed(self, open_s: float) -> int:
        """Devices that may have begun so many seconds after the start: the integral of the rate, the first one at once.

        >>> [Rate(per_hour=10).allowed(3600 * h) for h in (0, 1, 2)]
        [1, 11, 21]
        """
        hours = max(open_s, 0.0) / _HOUR_S
        cap = self._hours_to_cap()
        grown = min(hours, cap)
        if self.kind == "linear":
            begun = self.per_hour * grown + self.step_per_hour * grown**2 / 2
        elif self.kind == "exponential" and self.factor > 1:
            begun = self._grown_by(grown * math.log(self.factor))
        else:
            begun = self.per_hour * grown
        return 1 + math.floor(min(begun + self.most_per_hour * (hours - grown), 1e15) + 1e-9)

    def allowed_within(self, span_s: float, open_s: float) -> int:
        """Devices that may begin in so long a time that ends so many seconds after the start; at least one.

        What was not used up before, because nothing could begin, is not caught up with at once.

        >>> [Rate(per_hour=10).allowed_within(3600, 3600 * h) for h in (0, 1, 2, 9.5)]
        [1, 11, 10, 10]
        """
        return max(self.allowed(open_s) - (self.allowed(open_s - span_s) if open_s > span_s else 0), 1)

    def one_in_s(self, open_s: float) -> float:
        """Seconds in which the rate of a moment lets one device begin; ten years at most."""
        hours = min(max(open_s, 0.0) / _HOUR_S, self._hours_to_cap())
        speed = self.per_hour + (self.step_per_hour * hours if self.kind == "linear" else 0.0)
        if self.kind == "exponential":
            speed = math.exp(math.log(self.per_hour) + hours * math.log(self.factor))
        return min(_HOUR_S, _LONGEST_S * speed) / speed

    def _hours_to_cap(self) -> float:
        """Hours until the rate reaches its most."""
        if self.kind == "linear" and self.step_per_hour > 0:
            return (self.most_per_hour - self.per_hour) / self.step_per_hour
        if self.kind == "exponential" and self.factor > 1:
            return (math.log(self.most_per_hour) - math.log(self.per_hour)) / math.log(self.factor)
        return math.inf

    def _grown_by(self, log_growth: float) -> float:
        """Devices that an exponential rate let begin while it grew by a factor, given as its logarithm."""
        base = self.per_hour / math.log(self.factor)
        if log_growth < _MOST_LOG:
            return base * math.expm1(log_growth)
        return math.exp(min(math.log(base) + log_growth, _MOST_LOG))


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Opening in batches: what is exposed grows by a factor, twice at most. Small steps often harm fewer devices than large ones rarely.

    Attributes:
        first: Devices of the first batch.
        every_s: Seconds from batch to batch, long enough for a prompt failure to be told.
        growth: Devices exposed after a batch, over those before it; 1.26 every 45 minutes doubles them in 2.25 hours.
    """

    first: int = 5
    every_s: float = 0.75 * _HOUR_S
    growth: float = 1.26

    def __post_init__(self) -> None:
        if self.first < 1 or not 0 < self.every_s < math.inf:
            raise ConfigError(f"pace.first = {self.first} must be at least 1 and every_s = {self.every_s} above 0")
        if not 1.01 <= self.growth <= 2:
            raise ConfigError(f"pace.growth = {self.growth} is outside 1.01 to 2: never more new devices than are exposed already")

    def allowed(self, exposed_before: int, open_s: float) -> int:
        """Devices, of all waves together, that may be exposed so long after a wave opened.

        >>> [Pace(every_s=100, growth=2).allowed(0, s) for s in (0, 99, 100, 200)]
        [5, 5, 10, 20]
        """
        batch = math.floor(max(open_s, 0.0) / self.every_s)
        # The first batch of later waves already adds to what the waves before exposed.
        start, batch = (self.first, batch) if exposed_before == 0 else (exposed_before, batch + 1)
        grown = math.floor(start * math.exp(min(batch * math.log(self.growth), _MOST_LOG)) + 1e-9)
        # Where the factor is less than one device a batch, each batch still brings one.
        return min(max(grown, start + batch), _MOST)

    def opening_s(self, exposed_before: int, goal: int) -> float:
        """Seconds from the opening of a wave until its last batch may begin."""
        batches = 0
        while self.allowed(exposed_before, batches * self.every_s) < goal:
            batches += 1
        return batches * self.every_s


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When devices may begin, by their own clock.

    Attributes:
        days: Of the week on which the window begins.
        start: "HH:MM".
        end: "HH:MM"; not after `start`: it ends on the next day.
    """

    days: tuple[str, ...] = DAYS
    start: str = "00:00"
    end: str = "24:00"

    def __post_init__(self) -> None:
        wrong = [day for day in self.days if day not in DAYS]
        if wrong or not self.days:
            raise ConfigError(f"window.days {list(self.days)[:8]}: expected one or more of {', '.join(DAYS)}")
        if _minutes("start", self.start) == _DAY_MINUTES:
            raise ConfigError("window.start = '24:00' is the next day; use '00:00'")
        _minutes("end", self.end)

    def holds(self, local: datetime) -> bool:
        """Whether this local time lies inside."""
        (start, end), minute = self.minutes(), 60 * local.hour + local.minute
        today, yesterday = DAYS[local.weekday()] in self.days, DAYS[local.weekday() - 1] in self.days
        return (today and start <= minute < end) or (yesterday and minute < end - _DAY_MINUTES)

    def minutes(self) -> tuple[int, int]:
        """Start and end in minutes after the midnight before it; what ends on the next day ends after 1,440 of them."""
        start, end = _minutes("start", self.start), _minutes("end", self.end)
        return start, end if start < end else end + _DAY_MINUTES


@dataclass(frozen=True)
class Ready:
    """A device that could begin.

    Attributes:
        local_time: By its own clock; None where its time zone is unknown, which is outside every window.
        busy: Another rollout changes it, or its last change is too recent.
    """

    device_id: str
    site: str
    local_time: datetime | None
    busy: bool = False


def begin(
    ready: Sequence[Ready],
    *,
    most: Mapping[Wait, int],
    windows: Iterable[Window] = (),
    site_budget: int | None = None,
    in_activation: Mapping[str, int] | None = None,
) -> tuple[tuple[str, ...], Counter[Wait]]:
    """Which devices begin now, in the order given, and how many wait for what.

    Args:
        ready: In the order of the rollout.
        most: How many more each limit (`rate`, `pace`) allows; the first limit that is used up stops the rest.
        windows: None: always.
        site_budget: Most devices of a site in activation at once, over all rollouts.
        in_activation: Site -> devices that are in activation already.
    """
    open_windows, busy_sites = tuple(windows), Counter(in_activation or {})
    chosen: list[str] = []
    waits: Counter[Wait] = Counter()
    for one in ready:
        used_up = next((name for name, left in most.items() if len(chosen) >= left), None)
        if one.busy:
            waits["busy"] += 1
        elif open_windows and not (one.local_time is not None and any(window.holds(one.local_time) for window in open_windows)):
            waits["window"] += 1
        elif site_budget is not None and busy_sites[one.site] >= site_budget:
            waits["site budget"] += 1
        elif used_up is not None:
            waits[used_up] += 1
        else:
            chosen.append(one.device_id)
            busy_sites[one.site] += 1
    return tuple(chosen), waits


def rate_s(rate: Rate, devices: int) -> float:
    """Seconds until a rate has let so many devices begin, to the second.

    >>> rate_s(Rate(per_hour=10), 21)
    7200.0
    """
    low, high = 0.0, 1.0
    while rate.allowed(high) < devices and high < _LONGEST_S:
        low, high = high, 2 * high
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if rate.allowed(middle) >= devices else (middle, high)
    return float(math.ceil(high))


def local_time(now: datetime, zone: str | None) -> datetime | None:
    """The time by a device's own clock.

    Args:
        now: Aware.
        zone: A name of the time zone database, `Europe/Berlin`, or an offset, `+02:00`; None: the device has no such label.

    Returns:
        None where the zone is missing or unknown, which is outside every window.

    >>> local_time(datetime(2026, 7, 1, 10, 0, tzinfo=timezone.utc), "+05:30").isoformat()
    '2026-07-01T15:30:00+05:30'
    """
    found = zone_of(zone) if zone else None
    return None if found is None else now.astimezone(found)


@lru_cache(maxsize=1_024)
def zone_of(name: str) -> tzinfo | None:
    """The zone that a label `time-zone` means: a name of the time zone database or an offset; None where it means none."""
    offset = _OFFSET.fullmatch(name)
    if offset:
        sign, hours, minutes = offset.groups()
        length = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-length if sign == "-" else length) if length < timedelta(days=1) else None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _minutes(name: str, text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if not (colon and len(hours) == len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()):
        raise ConfigError(f"window.{name} = {text[:20]!r} is no time like '07:30'")
    found = 60 * int(hours) + int(minutes)
    if found > _DAY_MINUTES or int(minutes) > 59:
        raise ConfigError(f"window.{name} = {text!r} is outside 00:00 to 24:00")
    return found
