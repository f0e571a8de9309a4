"""A person who is asked after the first wave and at each failure: she is waited for, accepts nothing, and overrules no gate."""

from dataclasses import replace
from datetime import datetime, timedelta

import msgspec
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import Event, Rollout, RolloutState, TransitionError, apply_person, parse_policy, policy_digest
from fleet_server.rollout.confirming import asks_at, said_of
from fleet_server.rollout.course import Course
from fleet_server.rollout.findings import NOBODY, Accepted, Confirmed
from fleet_server.rollout.judgement import decisive, judge
from fleet_server.rollout.model import ActionKind
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.transitions import TRANSITIONS
from fleet_server.simulate.run import simulate
from fleet_server.simulate.scene import BEHAVIOURS, SCENES, Behaviour
from tests.unit.fleet_server.test_rollout_course import HOUR, at, facts, settle, started
from tests.unit.fleet_server.test_rollout_judgement import BOUND, RIPE, tally

SMALL = Course(
    rule=Rule("posterior", extends=2),
    sizes=(20, 40, 100),
    dwell_s=(24 * HOUR, 12 * HOUR, 0.0),
    pace=course_of(default_policy(), 100).pace,
    confirm="first-wave-and-failure",
)
RIPE_AT = at(60)


def asked(failed: int = 0, course: Course = SMALL, now: datetime = RIPE_AT) -> Rollout:
    """A rollout whose first wave has had its time."""
    return settle(started(course), facts(20, failed), now)[0]


def course_after(rollout: Rollout) -> Course:
    assert rollout.course is not None
    return rollout.course


def test_a_first_wave_that_every_gate_promotes_waits_for_a_person_and_says_who_does_what() -> None:
    rollout = asked()

    assert (rollout.state, rollout.promoted_at, rollout.wave) == (RolloutState.PAUSED, (), 1)
    assert "an operator looks at the devices, then confirms or aborts" in rollout.last_reason
    assert settle(rollout, facts(20), RIPE_AT + timedelta(days=30))[0] == rollout, "silence of the person promoted it"


def test_once_confirmed_the_gates_promote_it_and_no_later_wave_is_asked_about() -> None:
    confirmed = apply_person(asked(), "confirm", "looked at all of them", at(61))
    assert (confirmed.state, confirmed.promoted_at) == (RolloutState.RUNNING, ()), "the confirmation itself promoted"

    second, taken = settle(confirmed, facts(20, opened=20), at(61))
    done, later = settle(second, facts(40), at(200))

    assert taken[:2] == [ActionKind.PROMOTE, ActionKind.OPEN_WAVE]
    assert ActionKind.PAUSE not in later
    assert done.wave == 3


@pytest.mark.parametrize(("failed", "state"), [(3, "paused"), (20, "aborted")])
def test_a_confirmation_promotes_nothing_past_a_gate_that_does_not_hold_any_more(failed: int, state: str) -> None:
    waiting = asked()
    meanwhile = settle(waiting, facts(20, failed), at(61))[0]
    after = meanwhile if meanwhile.state is RolloutState.ABORTED else apply_person(meanwhile, "confirm", "", at(61))

    after, _ = settle(after, facts(20, failed), at(62))

    assert (after.state.value, after.promoted_at) == (state, ())


def test_an_aborted_rollout_cannot_be_confirmed() -> None:
    aborted = settle(asked(), facts(20, 20), at(61))[0]

    with pytest.raises(TransitionError, match="does not know 'confirm'"):
        apply_person(aborted, "confirm", "", at(62))


def test_a_failure_is_asked_about_once_stays_in_the_evidence_and_the_next_one_is_asked_about_again() -> None:
    first = settle(started(SMALL), facts(20, 1), at(1))[0]
    assert first.state is RolloutState.PAUSED
    assert "1 of 20 devices failed; the policy asks a person at each failure" in first.last_reason

    looked_at = apply_person(first, "confirm", "a loose cable", at(2))
    same, taken = settle(looked_at, facts(20, 1), at(3))
    assert (same.state, taken) == (RolloutState.RUNNING, [])
    assert course_after(same).accepted == Accepted(), "the failure was taken out of the evidence"

    again = settle(same, facts(20, 2), at(4))[0]
    assert again.state is RolloutState.PAUSED
    assert "1 of them looked at before" in again.last_reason


def test_a_resume_accepts_the_failure_and_answers_the_question_as_well() -> None:
    first = settle(started(SMALL), facts(20, 1), at(1))[0]

    resumed = apply_person(first, "resume", "known and harmless", at(2))

    assert course_after(resumed).accepted.failures == 1
    assert settle(resumed, facts(20, 1), at(3))[1] == []


def test_a_failure_that_an_early_warning_showed_and_a_person_accepted_is_not_asked_about_again() -> None:
    clock = replace(RIPE, accepted=Accepted(failures=8), asks=asks_at("failure", 1, 3, Confirmed()))

    assert next(one.word for one in judge(BOUND, tally(failed=8), clock) if one.gate == "confirmation") == "promote"


def test_graver_gates_speak_before_the_question() -> None:
    clock = replace(RIPE, asks=asks_at("failure", 1, 3, Confirmed()))

    assert decisive(judge(BOUND, tally(failed=8), clock)).gate == "early warning"
    assert decisive(judge(BOUND, tally(failed=1), clock)).gate == "confirmation"


def test_a_pause_of_another_kind_is_not_ended_by_a_confirmation() -> None:
    warned = settle(started(SMALL), facts(20, 4), at(1))[0]
    by_hand = apply_person(asked(), "pause", "hall 3 is closed", at(61))

    for paused in (warned, by_hand):
        assert paused.state is RolloutState.PAUSED
        with pytest.raises(TransitionError, match="nothing waits for a confirmation"):
            apply_person(paused, "confirm", "", at(62))
    resumed, _ = settle(apply_person(by_hand, "resume", "open again", at(62)), facts(20), at(62))
    assert resumed.state is RolloutState.PAUSED, "the question was forgotten when somebody paused it"
    assert resumed.promoted_at == ()


def test_the_time_that_the_person_takes_is_no_hold_of_the_wave() -> None:
    matured = settle(started(SMALL), facts(20, missing=9), RIPE_AT)[0]
    assert course_after(matured).judged_at == RIPE_AT
    failed = settle(matured, facts(20, 1, missing=9), RIPE_AT + timedelta(hours=1))[0]

    confirmed = apply_person(failed, "confirm", "", RIPE_AT + timedelta(days=30))

    assert course_after(confirmed).judged_at == RIPE_AT + timedelta(days=30) - timedelta(hours=1)


def test_a_failure_of_the_last_wave_is_asked_about_and_the_rollout_soaks_on_afterwards() -> None:
    rollout = replace(
        asked(),
        state=RolloutState.SOAKING,
        wave=3,
        opened_at=(at(0), at(60), at(90)),
        promoted_at=(at(60), at(90), at(100)),
        changed_at=at(100),
    )
    paused = settle(rollout, facts(100, 1), at(101))[0]
    assert paused.state is RolloutState.PAUSED

    assert apply_person(paused, "confirm", "", at(102)).state is RolloutState.SOAKING


def test_only_a_paused_rollout_knows_the_event() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.CONFIRM} == {RolloutState.PAUSED}


def test_a_first_wave_that_is_everybody_opens_nothing_so_nothing_is_confirmed() -> None:
    assert not asks_at("first-wave", 1, 1, Confirmed()).promotion
    assert not asks_at("first-wave", 2, 3, Confirmed()).promotion
    assert asks_at("never", 1, 3, Confirmed()) == NOBODY


@pytest.mark.parametrize(
    ("devices", "expected"), [(1, "first-wave-and-failure"), (9, "first-wave-and-failure"), (10, "failure"), (29, "failure"), (30, "never")]
)
def test_the_default_asks_by_the_size_of_the_fleet(devices: int, expected: str) -> None:
    assert course_of(default_policy(), devices).confirm == expected


def by_evidence(**changes: object) -> Policy:
    document = {"name": "p", "evidence": "posterior", "soak_s": 1, "soak_rows": 0, "deadline_s": 9, "hold_s": 9}
    return parse_policy(document | changes)


def test_a_policy_with_waves_of_its_own_asks_nobody_unless_it_says_so() -> None:
    own = {"waves": [1, "100%"], "dwell_s": 5.0}

    assert course_of(by_evidence(**own), 8).confirm == "never"
    assert course_of(by_evidence(**own, confirm="first-wave"), 8).confirm == "first-wave"
    assert course_of(by_evidence(confirm="never"), 8).confirm == "never"


def test_a_policy_written_before_there_was_the_key_keeps_its_digest() -> None:
    assert policy_digest(by_evidence()) != policy_digest(by_evidence(confirm="never"))
    assert "confirm" not in {key for key, value in msgspec.structs.asdict(by_evidence()).items() if value is not None}


def test_a_word_that_is_none_and_a_policy_that_cannot_ask_are_refused() -> None:
    with pytest.raises(ConfigError, match="confirm"):
        by_evidence(confirm="always")
    with pytest.raises(ConfigError, match="confirm has no effect with evidence = 'unanimous'"):
        by_evidence(evidence="unanimous", waves=["100%"], confirm="failure")


def test_a_course_stored_before_there_was_a_question_asks_nobody() -> None:
    old = {key: value for key, value in msgspec.to_builtins(SMALL).items() if key not in ("confirm", "asked", "confirmed")}

    assert msgspec.convert(old, Course).confirm == "never"
    assert msgspec.json.decode(msgspec.json.encode(asked()), type=Rollout) == asked()


def test_a_plan_says_when_a_person_is_asked() -> None:
    assert "before wave 2 opens and at each failure" in said_of("first-wave-and-failure", 4)
    assert "asked at each failure" in said_of("first-wave-and-failure", 1)
    assert said_of("never", 4) == said_of("first-wave", 1) == ""


def test_a_person_who_answers_at_once_changes_no_figure_of_a_simulated_rollout() -> None:
    never = msgspec.structs.replace(default_policy(), confirm="never")
    for seed in range(1, 9):
        with_her = simulate(8, SCENES["churn"], BEHAVIOURS["10 %"], seed, policy=default_policy())
        assert with_her == simulate(8, SCENES["churn"], BEHAVIOURS["10 %"], seed, policy=never)


def test_a_person_who_answers_late_makes_it_take_longer_and_harms_nobody_more() -> None:
    at_once = simulate(8, SCENES["churn"], Behaviour("none", 0.0), 1)
    late = simulate(8, SCENES["churn"], Behaviour("none", 0.0), 1, answer_s=48 * HOUR)

    assert (at_once.stopped, late.stopped) == ("", "")
    assert late.hours >= at_once.hours + 48
