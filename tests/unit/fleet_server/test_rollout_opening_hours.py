"""How long waves take to open where devices may begin only at some hours of their own clocks, against hand-made weeks."""

import doctest
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout import opening_hours
from fleet_server.rollout.course import Course
from fleet_server.rollout.foresight import wave_times
from fleet_server.rollout.opening_hours import Hours, opening_with_rate_s
from fleet_server.rollout.pacing import Pace, Rate, Window, local_time
from fleet_server.rollout.rules import Rule

H = 3_600.0
MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
# 5, 10, 20 and 40 devices: three batches after the first, half an hour apart.
FORTY = Course(rule=Rule("posterior"), sizes=(40, 80), dwell_s=(24 * H, 0.0), pace=Pace(every_s=H / 2, growth=2))


def hours(*windows: Window, **zones: int) -> Hours:
    return Hours(windows, {name.replace("_", "/", 1): count for name, count in zones.items()})


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(opening_hours)
    assert result.attempted > 0
    assert result.failed == 0


def test_without_windows_an_opening_takes_what_pace_and_rate_let_it() -> None:
    assert Hours().opening_s(FORTY, 1, MONDAY)[0] == opening_with_rate_s(FORTY, 1) == 1.5 * H
    assert hours(Window(), UTC=3).opening_s(FORTY, 1, MONDAY)[0] == 1.5 * H


@pytest.mark.parametrize(
    ("window", "opens_at", "expected_h"),
    [
        # All four batches fit into the first night.
        (Window(start="22:00", end="02:00"), MONDAY + timedelta(hours=3), 19 + 1.5),
        # It opens in the middle of a window that began the day before, which has room for two.
        (Window(start="22:00", end="02:00"), MONDAY + timedelta(hours=1), 21 + 0.5),
        # One batch a day: 22:00 of four days.
        (Window(start="22:00", end="22:15"), MONDAY, 22 + 3 * 24),
        # Two batches a week, on Sunday from 01:00.
        (Window(days=("sun",), start="01:00", end="02:00"), MONDAY, 6 * 24 + 1 + 7 * 24 + 0.5),
    ],
)
def test_batches_wait_for_the_windows_of_the_devices(window: Window, opens_at: datetime, expected_h: float) -> None:
    assert hours(window, UTC=3).opening_s(FORTY, 1, opens_at)[0] / H == pytest.approx(expected_h)


def test_windows_are_those_of_each_zone_and_all_zones_must_have_had_theirs() -> None:
    night = Window(start="22:00", end="23:45")

    # 22:00 is 13:00 UTC in Tokyo and 03:00 UTC of the next day in New York.
    assert hours(night, Asia_Tokyo=3).opening_s(FORTY, 1, MONDAY)[0] == 14.5 * H
    assert hours(night, America_New_York=1).opening_s(FORTY, 1, MONDAY)[0] == (3 + 1.5) * H
    assert hours(night, Asia_Tokyo=3, America_New_York=1).opening_s(FORTY, 1, MONDAY)[0] == 13 * H


def test_the_rest_of_wave_one_ends_in_a_window_too() -> None:
    rests = msgspec.structs.replace(FORTY, sizes=(100, 200), rest_s=6 * H)
    assert rests.rests_at(1) < 100

    # The batch that would reach 160 is at 10:30; six hours later the day is over. The wave rests from 80 on, at 10:00.
    assert hours(Window(start="08:00", end="16:00"), UTC=1).opening_s(rests, 1, MONDAY) == ((24 + 8) * H, 10 * H)


def test_the_dwell_of_a_plan_counts_from_the_devices_that_must_be_heard_after_it_and_not_from_the_last() -> None:
    waves = msgspec.structs.replace(FORTY, sizes=(60, 120, 200), dwell_s=(24 * H, 24 * H, 0.0))
    late = hours(Window(start="23:00", end="24:00"), UTC=1)

    # Of 60 devices 36 must be heard: 40 have begun on Tuesday at 23:30, the others begin on Wednesday.
    assert late.opening_s(waves, 1, MONDAY) == ((48 + 23) * H, 47.5 * H)
    # Of 120 only 45, and 60 are there: wave 2 dwells by its own clock, from its opening, and its one batch begins at night.
    assert late.opening_s(waves, 2, MONDAY) == (23 * H, 0.0)


def test_a_slow_rate_counts_in_windows_only() -> None:
    slow = msgspec.structs.replace(FORTY, rate=Rate(per_hour=10))
    plain_h = opening_with_rate_s(slow, 1) / H

    assert plain_h == pytest.approx(3.9, abs=0.01)
    assert hours(Window(start="08:00", end="10:00"), UTC=1).opening_s(slow, 1, MONDAY)[0] / H > 24 + 8


def test_the_times_of_a_plan_wait_for_windows_wave_by_wave() -> None:
    times = wave_times(FORTY, 2 * H, MONDAY, hours=hours(Window(start="23:00", end="24:00"), UTC=1))

    # Two batches on Monday night, two on Tuesday night, the last one at 23:30; its devices have had their dwell a day later.
    assert times[0].opening_s == 47.5 * H
    assert times[0].done_s == 71.5 * H
    # Wave 2 opens in the night and goes on at once; its devices have two hours to be heard.
    assert times[1].opens_s == times[0].done_s
    assert times[1].opening_s == 0
    assert times[1].done_s == 73.5 * H


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(0, 23), length=st.integers(1, 24), day=st.sampled_from(["mon", "thu", "sun"]), offset_h=st.integers(-11, 12),
    from_h=st.integers(0, 167), zone=st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"]),
)  # fmt: skip
def test_the_first_open_moment_is_the_one_that_the_scheduler_would_find(
    start: int, length: int, day: str, offset_h: int, from_h: int, zone: str
) -> None:
    window = Window(days=(day,), start=f"{start:02}:00", end=f"{(start + length) % 24:02}:00")
    first = msgspec.structs.replace(FORTY, sizes=(5, 80))
    opens_at = MONDAY + timedelta(hours=from_h, minutes=7 * offset_h)

    found = hours(window, **{zone.replace("/", "_", 1): 1}).opening_s(first, 1, opens_at)[0]

    at = opens_at
    while (local := local_time(at, zone)) is None or not window.holds(local):
        at += timedelta(minutes=1)
    assert found == (at - opens_at).total_seconds()


def test_a_window_that_nobody_has_a_clock_for_is_refused_with_a_remedy() -> None:
    with pytest.raises(ConfigError, match=r"none of 2 devices has a label 'time-zone'.*relabel d1 --set time-zone=Europe/Berlin"):
        Hours.of([Window()], {"d1": None, "d2": "Atlantis"}).refuse_if_nobody_may_begin()
    Hours.of([], {"d1": None}).refuse_if_nobody_may_begin()
    Hours.of([Window()], {"d1": None, "d2": "UTC"}).refuse_if_nobody_may_begin()
