"""Rates, paced opening, windows in device time, the budget of a site."""

import doctest
import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout import pacing
from fleet_server.rollout.pacing import Pace, Rate, Ready, Window, begin, local_time

NOON = datetime(2026, 6, 3, 12, 0)  # noqa: DTZ001  # a device's own clock; a Wednesday
HOUR = 3_600.0
RATES = {
    "constant": Rate(per_hour=10),
    "linear": Rate(kind="linear", per_hour=10, step_per_hour=10, most_per_hour=30),
    "exponential": Rate(kind="exponential", per_hour=10, factor=2, most_per_hour=80),
}


def speeds(hours: float) -> dict[str, float]:
    return {"constant": 10.0, "linear": min(10 + 10 * hours, 30), "exponential": min(10 * 2**hours, 80)}


def fleet(count: int, sites: int = 4) -> list[Ready]:
    return [Ready(f"d{i}", f"s{i % sites}", NOON) for i in range(count)]


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(pacing)

    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("kind", RATES)
def test_a_rate_is_the_sum_of_its_hours(kind: str) -> None:
    summed = sum(speeds((second + 0.5) / HOUR)[kind] / HOUR for second in range(6 * 3_600))

    assert RATES[kind].allowed(6 * HOUR) == pytest.approx(1 + summed, abs=1)


@given(kind=st.sampled_from(sorted(RATES)), seconds=st.floats(0, 1e7), more=st.floats(0, 1e6))
def test_what_is_allowed_never_shrinks_and_never_outruns_the_most(kind: str, seconds: float, more: float) -> None:
    rate = RATES[kind]

    assert rate.allowed(seconds) <= rate.allowed(seconds + more) <= rate.allowed(seconds) + rate.most_per_hour * more / HOUR + 2


@given(
    per_hour=st.floats(1e-300, 1e6), factor=st.floats(1.000001, 100), most=st.floats(1e6, 1e300),
    seconds=st.floats(0, 3e8), more=st.floats(0, 1e7),
)  # fmt: skip
def test_an_exponential_rate_from_next_to_nothing_to_next_to_all_never_shrinks_and_never_breaks(
    per_hour: float, factor: float, most: float, seconds: float, more: float
) -> None:
    rate = Rate(kind="exponential", per_hour=per_hour, factor=factor, most_per_hour=most)

    assert 1 <= rate.allowed(seconds) <= rate.allowed(seconds + more) <= 10**15 + 1


@given(kind=st.sampled_from(sorted(RATES)), hours=st.integers(0, 200), of=st.floats(0, 1))
def test_hours_in_which_everything_allowed_begins_add_up_to_what_is_allowed(kind: str, hours: int, of: float) -> None:
    rate, ends = RATES[kind], [(number + of) * HOUR for number in range(hours + 1)]

    summed = sum(rate.allowed_within(HOUR, end) for end in ends)

    assert rate.allowed(ends[-1]) <= summed <= rate.allowed(ends[-1]) + len(ends)
    assert min(rate.allowed_within(HOUR, end) for end in ends) >= 1


def test_no_slow_rate_keeps_devices_waiting_whose_windows_miss_its_moments() -> None:
    # One device in two hours, and somebody who may only begin half an hour after that.
    assert Rate(per_hour=0.5).allowed_within(600, 9.5 * HOUR) == 1


@given(per_hour=st.floats(1e-300, 1e6), grown=st.floats(0, 1e300), factor=st.floats(1, 100), hours=st.floats(0, 1e5))
def test_one_device_takes_the_less_time_the_more_the_rate_has_grown(per_hour: float, grown: float, factor: float, hours: float) -> None:
    flat, exponential = Rate(per_hour=per_hour), Rate(kind="exponential", per_hour=per_hour, factor=factor)
    linear = Rate(kind="linear", per_hour=per_hour, step_per_hour=grown)

    for rate in (exponential, linear):
        assert 0 < rate.one_in_s(hours * HOUR) <= flat.one_in_s(hours * HOUR) * (1 + 1e-9)
        assert rate.one_in_s(0.0) == pytest.approx(flat.one_in_s(hours * HOUR))


def test_a_clock_before_the_start_allows_the_first_device_only() -> None:
    assert Rate(per_hour=100).allowed(-50.0) == 1


def test_opening_doubles_what_is_exposed_and_no_more() -> None:
    pace = Pace(first=5, every_s=100, growth=2)
    reached = [pace.allowed(0, seconds) for seconds in range(0, 500, 100)]

    assert reached == [5, 10, 20, 40, 80]
    assert pace.allowed(77, 0) == 154
    assert all(later - earlier <= earlier for earlier, later in itertools.pairwise(reached))


def test_small_steps_reach_as_far_as_large_ones_in_the_same_time_and_never_further() -> None:
    small, large = Pace(first=5, every_s=2_700, growth=1.26), Pace(first=5, every_s=8_100, growth=2)
    by_small, by_large = ([pace.allowed(0, 2_700.0 * step) for step in range(40)] for pace in (small, large))

    assert by_small[:7] == [5, 6, 7, 10, 12, 15, 20]
    assert all(abs(by_small[step] - by_large[step]) <= 0.02 * by_large[step] for step in range(0, 40, 3))
    assert all(later > earlier for earlier, later in itertools.pairwise(by_small))


def test_an_opening_ends_with_the_batch_that_reaches_the_goal_however_large() -> None:
    for pace in (Pace(), Pace(first=1, growth=1.01), Pace(growth=2)):
        opening_s = pace.opening_s(5, 1_000_000)
        assert pace.allowed(5, opening_s) >= 1_000_000 > pace.allowed(5, opening_s - 1)
    assert Pace().allowed(0, 1e12) == 10**15


@pytest.mark.parametrize(
    ("window", "local", "inside"),
    [
        (Window(), NOON, True),
        (Window(start="07:30", end="12:00"), NOON, False),
        (Window(start="12:00", end="12:01"), NOON, True),
        (Window(days=("thu",)), NOON, False),
        (Window(days=("wed",), start="22:00", end="06:00"), NOON.replace(hour=23), True),
        (Window(days=("wed",), start="22:00", end="06:00"), NOON.replace(hour=5) + timedelta(days=1), True),
        (Window(days=("wed",), start="22:00", end="06:00"), NOON.replace(hour=5), False),
        (Window(days=("sun",), start="22:00", end="06:00"), datetime(2026, 6, 1, 1, 0), True),  # noqa: DTZ001  # Monday
    ],
)
def test_a_window_is_judged_by_the_devices_clock(window: Window, local: datetime, inside: bool) -> None:
    assert window.holds(local) is inside


@pytest.mark.parametrize(
    ("utc", "inside"),
    [
        # Berlin goes from 02:00 to 03:00 on 29 March: the hour does not exist, and the window is not open on that day.
        ("2026-03-28T01:30", True),
        ("2026-03-29T00:59", False),
        ("2026-03-29T01:00", False),
        ("2026-03-29T01:30", False),
        ("2026-03-30T00:30", True),
        # It goes from 03:00 back to 02:00 on 25 October: the hour comes twice, and the window is open both times.
        ("2026-10-24T23:59", False),
        ("2026-10-25T00:30", True),
        ("2026-10-25T01:30", True),
        ("2026-10-25T02:00", False),
    ],
)
def test_an_hour_that_summer_time_skips_opens_no_window_and_one_that_comes_twice_opens_it_twice(utc: str, inside: bool) -> None:
    local = local_time(datetime.fromisoformat(utc).replace(tzinfo=UTC), "Europe/Berlin")

    assert local is not None
    assert Window(start="02:00", end="03:00").holds(local) is inside


def test_a_device_of_unknown_time_zone_is_outside_every_window() -> None:
    nowhere = [Ready("d0", "s", None)]

    assert begin(nowhere, most={}, windows=[Window()]) == ((), Counter({"window": 1}))
    assert begin(nowhere, most={})[0] == ("d0",)


def test_at_most_so_many_devices_of_a_site_change_at_once_over_all_rollouts() -> None:
    chosen, waits = begin(fleet(12), most={}, site_budget=2, in_activation={"s0": 2, "s1": 1})

    assert Counter(int(device[1:]) % 4 for device in chosen) == {1: 1, 2: 2, 3: 2}
    assert waits == {"site budget": 7}


def test_the_tightest_limit_names_what_the_others_wait_for() -> None:
    chosen, waits = begin(fleet(10), most={"rate": 4, "pace": 3})

    assert chosen == ("d0", "d1", "d2")
    assert waits == {"pace": 7}


def test_a_device_that_may_not_begin_takes_no_place_from_the_others() -> None:
    ready = [Ready("asleep", "s", NOON, busy=True), *fleet(3)]

    assert begin(ready, most={"rate": 2}) == (("d0", "d1"), Counter({"busy": 1, "rate": 1}))


@given(count=st.integers(0, 60), rate=st.integers(0, 60), pace=st.integers(0, 60), budget=st.integers(0, 9))
def test_no_limit_is_ever_exceeded_and_everybody_is_accounted_for(count: int, rate: int, pace: int, budget: int) -> None:
    chosen, waits = begin(fleet(count), most={"rate": rate, "pace": pace}, site_budget=budget)

    assert len(chosen) <= min(rate, pace, count)
    assert max(Counter(int(device[1:]) % 4 for device in chosen).values(), default=0) <= budget
    assert len(chosen) + waits.total() == count


@pytest.mark.parametrize(
    "made",
    [
        lambda: Rate(per_hour=0),
        lambda: Rate(per_hour=float("nan")),
        lambda: Rate(per_hour=10, most_per_hour=5),
        lambda: Rate(kind="linear", per_hour=1, step_per_hour=-1),
        lambda: Rate(kind="exponential", per_hour=1, factor=0.5),
        lambda: Pace(first=0),
        lambda: Pace(every_s=0),
        lambda: Pace(growth=1),
        lambda: Pace(growth=2.1),
        lambda: Window(days=()),
        lambda: Window(days=("someday",)),
        lambda: Window(start="7:30"),
        lambda: Window(start="24:00"),
        lambda: Window(end="24:01"),
        lambda: Window(end="12:60"),
    ],
)
def test_rates_and_windows_that_cannot_be_are_refused(made: object) -> None:
    with pytest.raises(ConfigError, match=r"rate|pace|window"):
        made()  # type: ignore[operator]
