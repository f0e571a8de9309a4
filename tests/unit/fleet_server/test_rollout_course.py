"""A rollout by evidence through the engine: waves open in batches, mature, grow, are promoted, and stop when nothing can be decided."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout.by_evidence import decide_by_evidence
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.course import Course, clock_of
from fleet_server.rollout.engine import apply, apply_person, decide
from fleet_server.rollout.judgement import Accepted
from fleet_server.rollout.model import Action, ActionKind, Facts, Rollout
from fleet_server.rollout.pacing import Pace, Rate
from fleet_server.rollout.plans import default_course
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import Silence, silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.rollout.transitions import RolloutState, TransitionError
from tests.unit.fleet_server.rollout_world import draft
from tests.unit.fleet_server.test_rollout_judgement import groups_of

HOUR = 3_600.0
T0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
DOUBLING = Pace(every_s=2.25 * HOUR, growth=2)
COURSE = Course(rule=Rule("bound"), sizes=(77, 200, 1_000, 4_000), dwell_s=(24 * HOUR, 12 * HOUR, 2 * HOUR, 0.0), pace=DOUBLING)
OPENING_H = 4 * 2.25  # 5, 10, 20, 40, 77


def at(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def started(course: Course = COURSE) -> Rollout:
    rollout = replace(draft(), waves=(), course=course)
    return settle(apply_person(rollout, "start", "", T0), None, T0)[0]


def facts(exposed: int, failed: int = 0, *, opened: int | None = None, missing: int = 0) -> Facts:
    groups = groups_of(exposed, missing=missing)
    tally = Tally(
        opened=opened or exposed,
        strata={"m": Stratum(exposed, failed)},
        quiet=silence(groups),
        dwelled=exposed,
        dwelled_failed=failed,
        heard_after_dwell=exposed - failed,
        sites_exposed=10,
    )
    return Facts(devices={}, tally=tally)


NOTHING = Facts(devices={}, tally=Tally(opened=77, strata={}, quiet=silence([])))


def settle(rollout: Rollout, known: Facts | None, now: datetime) -> tuple[Rollout, list[ActionKind]]:
    taken = []
    while (action := decide(rollout, known or NOTHING, now)) is not None:
        rollout = apply(rollout, action, now)
        taken.append(action.kind)
        assert len(taken) <= 5 * (rollout.wave_count + 1)
    return rollout, taken


def test_the_first_wave_opens_in_doubling_batches() -> None:
    rollout = started()
    assert rollout.course is not None

    assert rollout.wave == 1
    assert [rollout.course.reach(1, at(2.25 * i)) for i in range(6)] == [5, 10, 20, 40, 77, 77]
    assert rollout.course.opening_s(1) == OPENING_H * HOUR


def test_the_last_quarter_of_wave_1_rests_until_late_failures_of_the_others_can_be_known() -> None:
    course = default_course(10_000).opened(1, T0)

    # 5 devices, then 26 % more each 45 minutes: 63 after 8.25 h, and 72 of the 80 that 9 h allow.
    # The others half a dwell and the deadline of 2 h later.
    assert [course.reach(1, at(hours)) for hours in (8.25, 9, 10, 22.9, 23, 23.75)] == [63, 72, 72, 72, 80, 95]
    assert (course.rests_at(1), course.rests_at(2)) == (72, 475)
    assert (course.dwells_from_s(1), course.opening_s(1)) == (9 * HOUR, 23.75 * HOUR)
    assert course.next_batch_at(1, at(10)) == at(23)
    assert course.next_batch_at(1, at(23.1)) == at(23.75)
    assert course.left(1, 72, at(20)) == {"pace": 0}
    # The dwell does not wait for the rest.
    assert clock_of(course, 1, T0, at(33)).open_s == 24 * HOUR


def test_the_devices_before_the_rest_can_prove_the_limit_with_one_failure_even_if_a_tenth_is_away() -> None:
    course = default_course(2_000)

    assert (course.sizes[0], course.rests_at(1)) == (77, 65)
    assert Rule("bound").promotes(1, 65 * 10 // 11)


def test_a_wave_that_grew_and_one_of_the_posterior_rule_do_not_rest() -> None:
    grown = default_course(10_000).opened(1, T0).grown_to(1, 190, at(40))
    small = default_course(300)

    assert grown.rests_at(1) == 190
    assert small.rests_at(1) == small.sizes[0]


def test_a_slow_rate_begins_the_rest_when_the_devices_before_it_have_begun() -> None:
    course = msgspec.structs.replace(default_course(10_000), rate=Rate(per_hour=2)).opened(1, T0)

    # The first at once and 2 an hour: 72 after 35.5 h, and 14 h later the rate goes on.
    assert [course.reach(1, at(hours)) for hours in (35.6, 49.4, 50.1, 61.1)] == [72, 72, 73, 95]


def test_a_rate_slows_the_batches_down() -> None:
    slow = started(msgspec.structs.replace(COURSE, rate=Rate(per_hour=1))).course
    assert slow is not None

    assert [slow.reach(1, at(hours)) for hours in (0, 2, 9, 200)] == [1, 3, 10, 77]


def test_a_good_wave_is_promoted_after_its_opening_and_dwell_and_not_before() -> None:
    rollout = started()

    early, taken = settle(rollout, facts(77), at(OPENING_H + 23.9))
    later, then = settle(rollout, facts(77), at(OPENING_H + 24.1))

    assert (early.wave, taken) == (1, [])
    assert (later.wave, then) == (2, [ActionKind.PROMOTE, ActionKind.OPEN_WAVE])
    assert later.course is not None
    assert later.course.reach(2, at(OPENING_H + 24.1)) == 154


def test_a_good_release_goes_through_all_waves_and_is_completed() -> None:
    rollout, now = started(), T0
    for _ in range(400):
        now += timedelta(hours=1)
        assert rollout.course is not None
        rollout, _ = settle(rollout, facts(rollout.course.sizes[rollout.wave - 1]), now)
        if rollout.state is RolloutState.COMPLETED:
            break

    assert rollout.state is RolloutState.COMPLETED
    assert len(rollout.promoted_at) == 4


def test_failures_pause_at_once_and_many_abort_even_while_paused() -> None:
    paused, taken = settle(started(), facts(40, 5), at(8))
    assert taken == [ActionKind.PAUSE]

    aborted, then = settle(paused, facts(40, 20), at(9))

    assert (aborted.state, then) == (RolloutState.ABORTED, [ActionKind.ABORT])


def test_a_doubtful_wave_matures_then_grows_then_asks_a_person() -> None:
    rollout, known = started(), facts(77, 3)
    ripe_h = OPENING_H + 24.5
    rollout, taken = settle(rollout, known, at(ripe_h))
    assert taken == [ActionKind.MATURE]
    assert settle(rollout, known, at(ripe_h + 3.9))[1] == []

    rollout, taken = settle(rollout, known, at(ripe_h + 4))
    course = rollout.course
    assert course is not None
    assert taken[0] is ActionKind.EXTEND
    assert (course.sizes, course.grown) == ((154, 200, 1_000, 4_000), 1)
    assert course.dwell_s == COURSE.dwell_s

    rollout, taken = settle(rollout, facts(154, 10), at(ripe_h + 4 + 32.1))
    assert rollout.state is RolloutState.PAUSED
    assert "no answer for 32.1 h" in rollout.last_reason


def test_a_wave_that_grows_past_a_later_one_takes_its_place() -> None:
    grown = COURSE.opened(1, T0).grown_to(1, 308, at(40))

    assert (grown.sizes, grown.dwell_s) == ((308, 1_000, 4_000), (24 * HOUR, 2 * HOUR, 0.0))
    assert grown.reach(1, at(40)) == 154
    assert grown.reach(1, at(43)) == 308


def test_growth_does_not_start_the_dwell_anew() -> None:
    grown = COURSE.opened(1, T0).grown_to(1, 154, at(40))

    assert clock_of(grown, 1, T0, at(41)).open_s == 41 * HOUR
    assert clock_of(COURSE.opened(1, T0), 1, T0, at(41)).open_s == (41 - OPENING_H) * HOUR


def test_a_wave_never_grows_into_more_than_half_of_the_fleet() -> None:
    assert COURSE.larger(3) == 2_000
    assert msgspec.structs.replace(COURSE, sizes=(77, 200, 2_000, 4_000)).larger(3) == 0


def test_a_fleet_that_nobody_hears_is_paused_in_the_end_and_never_promoted() -> None:
    rollout = started()

    waits, taken = settle(rollout, NOTHING, at(8 * 24))
    stalled, then = settle(rollout, NOTHING, at(8 * 24 + OPENING_H))

    assert (waits.state, taken) == (RolloutState.RUNNING, [])
    assert (stalled.state, then) == (RolloutState.PAUSED, [ActionKind.PAUSE])
    assert "could not be judged for 7 days" in stalled.last_reason


def test_without_sums_nothing_is_decided_but_a_pause() -> None:
    assert settle(started(), Facts(devices={}), at(1))[0].state is RolloutState.PAUSED


def test_sums_that_contradict_each_other_pause() -> None:
    known = facts(77)
    assert known.tally is not None
    broken = replace(known.tally.quiet, silent=-1)

    rollout, taken = settle(started(), Facts(devices={}, tally=replace(known.tally, quiet=broken)), at(40))

    assert taken == [ActionKind.PAUSE]
    assert "the decision failed (ConfigError" in rollout.last_reason


def test_a_clock_that_is_set_back_changes_nothing() -> None:
    rollout, _ = settle(started(), facts(77, 3), at(40))

    assert decide(rollout, facts(77, 70), at(39)) is None


def test_a_resumed_rollout_accepts_what_its_pause_showed_and_pauses_again_for_as_much_more() -> None:
    paused, _ = settle(started(), facts(77, 8), at(40))
    assert paused.state is RolloutState.PAUSED

    resumed = apply_person(paused, "resume", "looked at it", at(41))

    assert settle(resumed, facts(77, 8), at(41))[0].state is not RolloutState.PAUSED
    assert settle(resumed, facts(77, 16), at(41))[0].state in (RolloutState.PAUSED, RolloutState.ABORTED)


def test_a_pause_by_a_person_accepts_nothing() -> None:
    running, _ = settle(started(), facts(77, 2), at(20))
    paused = apply_person(running, "pause", "lunch", at(21))

    resumed = apply_person(paused, "resume", "back", at(22))

    assert resumed.course is not None
    assert resumed.course.accepted == Accepted()


def test_a_wave_that_nobody_hears_has_its_patience_again_after_a_resume() -> None:
    stalled, _ = settle(started(), NOTHING, at(8 * 24 + OPENING_H))
    assert stalled.state is RolloutState.PAUSED

    resumed = apply_person(stalled, "resume", "the mast is up again", at(9 * 24 + OPENING_H))

    assert settle(resumed, NOTHING, at(10 * 24 + OPENING_H))[0].state is RolloutState.RUNNING
    assert settle(resumed, NOTHING, at(17 * 24 + OPENING_H))[0].state is RolloutState.PAUSED


def test_decisions_are_pure() -> None:
    rollout, known = started(), facts(77, 3)

    assert decide(rollout, known, at(40)) == decide(rollout, known, at(40))
    assert rollout.course is not None
    assert decide_by_evidence(rollout, rollout.course, known, at(40)) == decide(rollout, known, at(40))


def test_a_course_survives_its_storage() -> None:
    rollout = started()

    assert msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout) == rollout


def test_growing_is_refused_where_no_wave_can_grow() -> None:
    grow = Action(ActionKind.EXTEND, 1, "why", size=99)
    named = apply(apply_person(draft(), "start", "", T0), Action(ActionKind.OPEN_WAVE, 1, ""), T0)

    with pytest.raises(TransitionError, match="names its devices"):
        apply(named, grow, T0)
    with pytest.raises(ConfigError, match="cannot grow"):
        apply(started(), replace(grow, size=40), T0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": ()},
        {"sizes": (0, 5), "dwell_s": (0.0, 0.0)},
        {"sizes": (5, 5), "dwell_s": (0.0, 0.0)},
        {"dwell_s": (0.0,)},
        {"dwell_s": (-1.0, 0.0, 0.0, 0.0)},
        {"hold_s": 0.0},
        {"stall_s": float("nan")},
    ],
)
def test_courses_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        msgspec.structs.replace(COURSE, **changes)


def test_pace_and_silence_are_values() -> None:
    assert COURSE.pace == DOUBLING
    assert isinstance(silence([]), Silence)


def test_after_a_standstill_batches_follow_the_waves_own_steps_one_at_a_time() -> None:
    course = default_course(300).opened(1, T0)
    steps = [course.pace.allowed(0, batch * course.pace.every_s) for batch in range(8)]

    assert [course.batch_after(before) for before in (0, *steps[:-1])] == steps
    assert course.batch_after(steps[3] - 1) == steps[3]


def test_a_wave_whose_devices_cannot_be_compared_is_paused_for_a_person_and_never_promoted() -> None:
    known = facts(77)
    assert known.tally is not None
    half = Wealth.start(COMPARISONS["memory"]).after(COMPARISONS["memory"], [[0.0]] * 30)
    unreadable = replace(known, tally=replace(known.tally, wealth={"memory": half}))
    rollout, _ = settle(started(), unreadable, at(OPENING_H + 25))

    held, taken = settle(rollout, unreadable, at(OPENING_H + 25 + 31))
    paused, paused_taken = settle(held, unreadable, at(OPENING_H + 25 + 33))

    assert (held.state, taken) == (RolloutState.RUNNING, [])
    assert (paused.state, paused_taken) == (RolloutState.PAUSED, [ActionKind.PAUSE])
    assert "too few devices have been compared yet for memory" in paused.last_reason
    resumed, _ = settle(apply_person(paused, "resume", "go on", at(70)), unreadable, at(71))
    assert resumed.wave == 1
    left_out = replace(half, left_out=47)
    mended, _ = settle(resumed, replace(known, tally=replace(known.tally, wealth={"memory": left_out})), at(72))
    assert mended.wave == 2
