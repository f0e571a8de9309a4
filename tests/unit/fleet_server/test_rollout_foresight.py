"""What a plan says before it starts: times, chances, cautions and refusals, against hand-made cases."""

import doctest
import time
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import foresight
from fleet_server.rollout.cautions import Selected, cautions, refuse_hopeless
from fleet_server.rollout.course import Course
from fleet_server.rollout.foresight import Awake, chances, chances_unanimous, wave_times
from fleet_server.rollout.opening_hours import opening_with_rate_s
from fleet_server.rollout.pacing import Pace, Rate, rate_s
from fleet_server.rollout.plans import default_course
from fleet_server.rollout.rules import Rule

H = 3_600.0
MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
BOUND = Course(
    rule=Rule("bound"), sizes=(95, 475, 2_375, 9_500), dwell_s=(24 * H, 12 * H, 2 * H, 0.0), pace=Pace(every_s=2.25 * H, growth=2)
)
EIGHT = Course(rule=Rule("posterior"), sizes=(1, 2, 4, 8), dwell_s=(24 * H, 12 * H, 12 * H, 0.0))
MANY_SITES = {f"site-{i}": 100 for i in range(100)}


def awake(day: float, night: float) -> Awake:
    """Awake from 8 to 18 UTC."""
    return Awake(tuple(day if 8 <= hour < 18 else night for hour in range(24)), days=7, devices=100)


def said(course: Course, selected: Selected) -> str:
    return " ".join(cautions(course, selected))


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(foresight)
    assert result.attempted > 0
    assert result.failed == 0


def test_an_awake_fleet_needs_opening_and_dwell_or_deadline_whichever_is_longer() -> None:
    times = wave_times(BOUND, 2 * H, MIDNIGHT)

    # Wave 1: 5 batches of 2.25 h after the first, then 24 h; the last one has no dwell: its last batch has its deadline.
    assert [time.done_s / H for time in times] == [35.25, 51.75, 58.25, 62.5]
    assert [time.opens_s for time in times] == [0.0, *(time.done_s for time in times[:-1])]
    assert all(time.asleep_s == 0 for time in times)


def test_a_wave_that_has_had_its_time_at_night_waits_for_the_morning() -> None:
    one_day = Course(rule=Rule("posterior"), sizes=(5, 100), dwell_s=(24 * H, 0.0))

    times = wave_times(one_day, 2 * H, MIDNIGHT, awake(day=0.9, night=0.1))

    # Opened at midnight it is due at midnight of the next day, where 10 % are heard and 60 % are needed: until 8.
    assert times[0].asleep_s == 8 * H
    assert times[0].done_s == 32 * H


def test_devices_that_sleep_at_the_start_have_their_deadline_from_the_morning_on() -> None:
    everybody = Course(rule=Rule("posterior"), sizes=(5,), dwell_s=(0.0,))

    times = wave_times(everybody, 2 * H, MIDNIGHT, awake(day=0.9, night=0.1))

    assert times[0].done_s == 10 * H


def test_nobody_waits_longer_than_a_day_for_a_fleet_that_is_never_half_awake() -> None:
    everybody = Course(rule=Rule("posterior"), sizes=(5,), dwell_s=(0.0,))

    assert wave_times(everybody, 2 * H, MIDNIGHT, awake(day=0.3, night=0.1))[0].asleep_s == 24 * H


@pytest.mark.parametrize(
    "rate", [Rate(per_hour=10), Rate(kind="exponential", per_hour=5), Rate(kind="linear", per_hour=1, step_per_hour=3)]
)
def test_the_time_of_a_rate_is_when_it_allows_the_last_device(rate: Rate) -> None:
    seconds = rate_s(rate, 60)

    assert rate.allowed(seconds) >= 60
    assert rate.allowed(seconds - 2) < 60


def test_a_slow_rate_lengthens_the_opening_and_a_fast_one_does_not() -> None:
    slow = Course(rule=Rule("posterior"), sizes=(5, 100), dwell_s=(H, 0.0), rate=Rate(per_hour=1))
    fast = Course(rule=Rule("posterior"), sizes=(5, 100), dwell_s=(H, 0.0), rate=Rate(per_hour=1e6))

    # The first device begins at once, the other 94 of the wave one an hour.
    assert opening_with_rate_s(slow, 2) == pytest.approx(94 * H, abs=1)
    assert opening_with_rate_s(fast, 2) == fast.opening_s(2)


def test_chances_of_the_default_policy_are_those_of_the_research() -> None:
    found = {one.failing: one for one in chances(BOUND, np.random.default_rng(7))}

    assert found[0.01].at_once.stopped < 0.01
    assert found[0.1].at_once.stopped_in_first > 0.99
    assert found[0.1].at_once.harmed_median == pytest.approx(8, abs=1)
    assert found[0.5].at_once.harmed_median == 3
    assert found[0.5].late is not None
    # All of wave 1 is out before a late failure shows.
    assert found[0.5].late.harmed_median == pytest.approx(95 / 2, abs=2)


def test_a_rest_of_wave_1_spares_devices_of_releases_that_fail_late_or_not_at_all_by_their_word() -> None:
    resting, whole = default_course(10_000), msgspec.structs.replace(default_course(10_000), rest_s=0.0)

    found = [
        {one.failing: one for one in chances(course, np.random.default_rng(7), failing=(0.1, 0.2, 0.5), runs=2_000)}
        for course in (resting, whole)
    ]

    assert [one[0.5].late.harmed_median for one in found if one[0.5].late] == pytest.approx([36, 47.5], abs=1)
    assert [one[0.2].dark.harmed_median for one in found if one[0.2].dark] == pytest.approx([15, 19], abs=1)
    assert all(one[0.1].dark.stopped_in_first > 0.99 for one in found if one[0.1].dark)


def test_the_same_seed_foretells_the_same_numbers_and_another_does_not() -> None:
    one, again, other = (chances(BOUND, np.random.default_rng(seed), runs=1_000) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_ten_thousand_runs_of_every_share_take_less_than_a_second() -> None:
    started = time.process_time()

    chances(BOUND, np.random.default_rng(3))

    assert time.process_time() - started < 1.0


def test_under_unanimity_a_rollout_stops_at_the_first_failure_of_anybody() -> None:
    found = {one.failing: one.at_once for one in chances_unanimous((1, 3, 4), np.random.default_rng(1))}

    # Standard error of 10,000 runs is 0.5 points at most; four of them.
    assert found[0.1].stopped_in_first == pytest.approx(0.1, abs=0.02)
    assert found[0.1].stopped == pytest.approx(1 - 0.9**8, abs=0.02)
    # E[harmed] = x (1 + (1-x) 3 + (1-x)^4 4): the devices of a wave that is reached.
    assert found[0.1].harmed_mean == pytest.approx(0.1 * (1 + 0.9 * 3 + 0.9**4 * 4), abs=0.03)


def test_an_empty_wave_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty wave"):
        chances_unanimous((1, 0, 4), np.random.default_rng(1))


def test_below_fifty_devices_it_is_said_that_nothing_can_prove_five_percent() -> None:
    assert "With 8 devices nothing can prove 5 %" in said(EIGHT, Selected(8, 0, {"hall": 8}))
    assert "nothing can prove" not in said(BOUND, Selected(10_000, 500, MANY_SITES))


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ({"hall": 10_000}, "All devices are at one site (hall)"),
        ({"": 10_000}, "No device has a label 'site'"),
        ({"a": 5_000, "b": 5_000}, "2 sites are too few for statistics"),
    ],
)
def test_what_cannot_be_seen_of_whole_sites_is_said(sites: dict[str, int], words: str) -> None:
    assert words in said(BOUND, Selected(10_000, 500, sites))


def test_a_large_fleet_with_sites_history_and_controls_has_nothing_to_be_warned_of() -> None:
    assert cautions(BOUND, Selected(10_000, 500, MANY_SITES, awake(0.9, 0.8))) == ()


def test_without_history_of_heartbeats_the_times_are_said_to_be_those_of_a_fleet_that_never_sleeps() -> None:
    assert "never sleeps" in said(BOUND, Selected(10_000, 500, MANY_SITES))


def test_short_dwells_everywhere_are_warned_of_and_one_long_one_is_enough() -> None:
    short = Course(rule=Rule("posterior"), sizes=(10, 20, 300), dwell_s=(6 * H, 6 * H, 0.0))

    assert "longer than 6 h" in said(short, Selected(320, 20, MANY_SITES))
    assert "longer than" not in said(BOUND, Selected(10_000, 500, MANY_SITES))


def test_a_wave_that_must_grow_before_it_can_pass_is_named() -> None:
    course = Course(rule=Rule("bound"), sizes=(20, 2_500), dwell_s=(24 * H, 0.0))

    assert "Wave 1 must grow from 20 to 40 devices" in said(course, Selected(2_600, 100, MANY_SITES))


def test_a_rate_that_outlasts_the_patience_of_the_engine_is_named() -> None:
    course = Course(rule=Rule("posterior"), sizes=(10, 1_000), dwell_s=(24 * H, 0.0), rate=Rate(per_hour=1))

    assert "Wave 2 needs 41.2 days to open" in said(course, Selected(1_050, 50, MANY_SITES))


def test_a_plan_that_no_release_can_complete_is_refused_with_what_would_help() -> None:
    hopeless = Course(rule=Rule("bound", extends=0), sizes=(20, 2_500), dwell_s=(24 * H, 0.0))

    with pytest.raises(ConfigError, match=r"20 devices without a failure still allow 7.73 % .* at least 32 devices"):
        refuse_hopeless(hopeless)
    refuse_hopeless(BOUND)
    refuse_hopeless(EIGHT)


def test_a_posterior_that_asks_for_more_than_a_wave_can_show_is_refused() -> None:
    strict = Course(rule=Rule("posterior", promote_below=0.05), sizes=(1, 8), dwell_s=(H, 0.0))

    with pytest.raises(ConfigError, match=r"promote_below = 0\.05 is stricter"):
        refuse_hopeless(strict)


def test_hours_that_are_no_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="24 shares"):
        Awake((0.5,) * 23, days=1, devices=1)
