"""How long a wave takes to open when its devices may begin only in windows of their own time. For plans: it decides nothing.

Pure: clocks of the devices go in as counts per time zone. A week is repeated as it is at the start of the rollout; a change to or from
summer time in the meantime moves the estimate by an hour.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from typing import Final

from edgefleet.errors import ConfigError
from fleet_server.rollout.course import Course
from fleet_server.rollout.judgement import HEARD_AFTER_DWELL, HEARD_SHARE
from fleet_server.rollout.pacing import DAYS, Window, rate_s, zone_of

ZONE: Final = "time-zone"
_WEEK_S: Final = 7 * 86_400.0
_MOST_BATCHES: Final = 2_000  # of one wave that are followed one by one; more are taken together
_NAMED: Final = 3
_LITTLE: Final = 1e-9  # of a batch: quotients of floats

Spans = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Hours:
    """Windows of a policy, and the clocks of the devices that it selects.

    Attributes:
        windows: None: always.
        zones: Value of the label `time-zone` -> devices, of the values that are a zone.
        clockless: Devices without such a label, or with one that is no zone: outside every window.
    """

    windows: tuple[Window, ...] = ()
    zones: Mapping[str, int] = field(default_factory=dict)
    clockless: tuple[str, ...] = ()

    @classmethod
    def of(cls, windows: Sequence[Window], labels: Mapping[str, str | None]) -> "Hours":
        """Of a policy's windows and the zone that each selected device says it is in.

        >>> Hours.of([Window()], {"d1": "Europe/Berlin", "d2": "Atlantis", "d3": None}).clockless
        ('d2', 'd3')
        """
        zones: dict[str, int] = {}
        clockless = []
        for device_id, name in sorted(labels.items()):
            if name and zone_of(name) is not None:
                zones[name] = zones.get(name, 0) + 1
            else:
                clockless.append(device_id)
        return cls(tuple(windows), zones, tuple(clockless))

    def refuse_if_nobody_may_begin(self) -> None:
        """Refuse windows that no device has a clock for.

        Raises:
            ConfigError: With what to do.
        """
        if self.windows and not self.zones:
            first = self.clockless[0] if self.clockless else "DEVICE"
            raise ConfigError(
                f"windows are by the devices' own clocks, and none of {len(self.clockless)} devices has a label '{ZONE}' that is a time "
                f"zone: nobody could ever begin; label them (`edgefleet devices relabel {first} --set {ZONE}=Europe/Berlin --reason ...`), "
                "or leave windows away"
            )

    def caution(self) -> str:
        """Who is outside every window, in a sentence; empty when nobody is."""
        count = len(self.clockless)
        if not self.windows or not count:
            return ""
        few = ", ".join(self.clockless[:_NAMED]) + (" ..." if count > _NAMED else "")
        return (
            f"{count} of {count + sum(self.zones.values())} devices have no label '{ZONE}' that is a time zone ({few}): they are outside "
            "every window and never asked, and a wave that one of them is in cannot be promoted and pauses for a person. Label them first."
        )

    def opening_s(self, course: Course, wave: int, opens_at: datetime) -> tuple[float, float]:
        """Seconds from the opening of a wave: until its last device may begin, and until as many have as must be heard after their dwell.

        Args:
            course: Of the plan.
            wave: From 1.
            opens_at: When it opens, aware UTC.

        Returns:
            By pace, rate, and these windows. The second is never more than the first, and not before the wave's own dwell counts.
        """
        plain_s = opening_with_rate_s(course, wave)
        if not self.windows or not self.zones:
            return plain_s, course.dwells_from_s(wave)
        clocks = [_open_spans(self.windows, zone, opens_at) for name in self.zones if (zone := zone_of(name)) is not None]
        anywhere = _merged(itertools.chain.from_iterable(clocks))
        rest_s = course.rest_s if course.rests_at(wave) < course.sizes[wave - 1] else 0.0
        batches = math.ceil((plain_s - rest_s) / course.pace.every_s)
        step_s = (plain_s - rest_s) / min(batches, _MOST_BATCHES) if batches > _MOST_BATCHES else course.pace.every_s
        begun_s = enough_s = _next_open(anywhere, 0.0)
        steps = _until_enough_s(course, wave) / step_s
        for step in range(1, min(batches, _MOST_BATCHES) + 1):
            begun_s = _next_open(anywhere, begun_s + step_s)
            enough_s = begun_s if step - 1 < steps - _LITTLE else enough_s
        dwells_from_s = max(enough_s if steps >= 0 else 0.0, course.dwells_from_s(wave))
        # Devices of a zone begin in its own hours: each zone must have had some.
        begun_s = max(begun_s, *(_next_open(spans, 0.0) for spans in clocks))
        return (_next_open(anywhere, begun_s + rest_s) if rest_s else begun_s), dwells_from_s


def opening_with_rate_s(course: Course, wave: int) -> float:
    """Seconds from the opening of a wave until its last device may begin, by pace and rate."""
    paced = course.opening_s(wave)
    return paced if course.rate is None else max(paced, rate_s(course.rate, course.added(wave)))


def _until_enough_s(course: Course, wave: int) -> float:
    """Seconds of opening until so many have begun as the wave must hear after their dwell; below 0 if those of earlier waves are enough."""
    size, before = course.sizes[wave - 1], course.sizes[wave - 2] if wave > 1 else 0
    enough = math.ceil(min(HEARD_SHARE * size, HEARD_AFTER_DWELL))
    if enough <= before:
        return -1.0
    paced_s = course.pace.opening_s(before, enough)
    return paced_s if course.rate is None else max(paced_s, rate_s(course.rate, enough - before))


def _open_spans(windows: Sequence[Window], zone: tzinfo, from_at: datetime) -> Spans:
    """Open times of one clock in the week from a moment on, in seconds after it, rising and apart."""
    first = (from_at.astimezone(zone) - timedelta(days=1)).date()
    found = []
    for day in (first + timedelta(days=number) for number in range(9)):
        for window in windows:
            if DAYS[day.weekday()] in window.days:
                begin, end = (
                    (datetime.combine(day, time()) + timedelta(minutes=minute)).replace(tzinfo=zone).astimezone(UTC)
                    for minute in window.minutes()
                )
                found.append(((begin - from_at).total_seconds(), (end - from_at).total_seconds()))
    spans = _merged((max(begin, 0.0), min(end, _WEEK_S)) for begin, end in found if end > 0 and begin < _WEEK_S and begin < end)
    offset = zone.utcoffset(from_at.astimezone(zone).replace(tzinfo=None))
    # In this week the only hour is one that summer time skips: the others are as if there were none.
    return spans if spans or offset is None else _open_spans(windows, timezone(offset), from_at)


def _merged(spans: Iterable[tuple[float, float]]) -> Spans:
    found: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)


def _next_open(spans: Spans, at_s: float) -> float:
    """First open moment from then on; the week repeats."""
    weeks, rest_s = divmod(at_s, _WEEK_S)
    place = bisect.bisect_right(spans, (rest_s, math.inf))
    if place and rest_s < spans[place - 1][1]:
        return at_s
    if place < len(spans):
        return weeks * _WEEK_S + spans[place][0]
    return (weeks + 1) * _WEEK_S + spans[0][0]
