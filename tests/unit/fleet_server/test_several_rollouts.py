"""Several rollouts at once: the 18 decisions, each by its number, as pure rules; over a database: test_several_rollouts_steered.py."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fleet_server.rollout import RolloutState, apply_person, decide
from fleet_server.rollout.approval import Approval, Superseded, plan_digest, plan_parts, standing
from fleet_server.rollout.conflicts import Owner, bring_forward, resolve, stratum_from
from fleet_server.rollout.flipflop import Change, may_change
from fleet_server.rollout.following import following, held_too_often
from fleet_server.rollout.late_evidence import judge_late
from fleet_server.rollout.pacing import Pace
from fleet_server.rollout.precedence import Wish, expected_false_stops, order
from fleet_server.rollout.rollback_targets import Stay, target_of
from fleet_server.rollout.tally import Stratum
from tests.unit.fleet_server.rollout_world import OLD, T0, at, draft, facts, idle, in_wave_two, proven, settle, started

ALIVE = tuple(RolloutState(name) for name in ("draft", "approved", "running", "soaking", "paused"))


def owner(state: RolloutState = RolloutState.RUNNING, **changes: Any) -> Owner:
    return replace(Owner("r-1", state, ("d1", "d2")), **changes)


@pytest.mark.parametrize("state", ALIVE)
@pytest.mark.parametrize(("policy", "word"), [("refuse", "refuse"), ("queue", "queue"), ("supersede", "supersede")])
def test_decision_01_a_conflict_about_a_device_is_refused_queued_or_superseded_when_the_second_rollout_is_created(
    policy: Any, word: str, state: RolloutState
) -> None:
    found = resolve(policy, 8, [owner(state)])

    assert (found.word, found.owners) == (word, ("r-1",))
    assert "2 of 8 devices (d1, d2) belong to rollout r-1" in found.sentence


def test_decision_01_devices_of_an_aborted_rollout_are_free_for_the_asking() -> None:
    found = resolve("refuse", 8, [owner(RolloutState.ABORTED)])

    assert (found.word, found.lets_go, found.sentence) == ("free", ("r-1",), "")


def test_decision_01_devices_on_their_way_back_are_not_taken_away_by_superseding() -> None:
    for state in (RolloutState.ROLLING_BACK, RolloutState.PAUSED_RB):
        found = resolve("supersede", 8, [owner(state), owner(rollout_id="r-2")])

        assert found.word == "refuse"
        assert "on their way back" in found.sentence


def test_decision_04_a_superseded_rollout_is_final_at_once_and_wants_nothing_on_any_device() -> None:
    from fleet_server.rollout import wants

    rollout = in_wave_two()

    after = apply_person(rollout, "supersede", "by rollout r-2", at(20))

    assert after.state is RolloutState.SUPERSEDED
    assert decide(after, facts(rollout), at(30)) is None
    assert {wants(after, device_id, "pending") for device_id in rollout.members} == {None}
    assert stratum_from("arm hall", "r-1", harmed=False) == "arm hall|from r-1"


def test_decision_05_devices_harmed_by_the_aborted_rollout_come_first_in_its_fix() -> None:
    waves = [["d1"], ["d2", "d3"], ["d4", "d5", "d6"]]

    assert bring_forward(waves, ["d5", "d2", "gone"]) == (("d2",), ("d5", "d1"), ("d3", "d4", "d6"))
    assert stratum_from("", "r-1", harmed=True) == "harmed by r-1"


def test_decision_05_by_evidence_all_harmed_devices_are_in_wave_one_of_the_fix() -> None:
    from fleet_server.rollout.membership import Candidate
    from fleet_server.rollout.outline import all_first, outline
    from fleet_server.rollout.plans import default_policy

    selected = [Candidate(f"d{n}", "arm", "hall") for n in range(400)]
    harmed = {f"d{n}" for n in range(25)}
    marked = [replace(one, stratum=stratum_from("arm", "r-1", harmed=True)) if one.device_id in harmed else one for one in selected]

    planned = all_first(outline(default_policy(), marked, "salt"), marked, ["arm|harmed by r-1"])

    assert planned.course is not None
    assert harmed - set(planned.held_back) <= set(planned.waves[0])
    assert planned.course.sizes[0] == len(planned.waves[0])
    assert planned.course.sizes[-1] + len(planned.held_back) == 400


def test_decision_05_devices_that_were_harmed_before_are_evidence_against_the_fix_and_none_for_it() -> None:
    from tests.unit.fleet_server.test_rollout_judgement import BOUND, tally, word

    mixed = replace(tally(80), strata={"arm": Stratum(20, 0), "arm|harmed by r-1": Stratum(60, 0)})
    alike = replace(tally(80), strata={"arm": Stratum(20, 0), "arm|of another kind": Stratum(60, 0)})
    worse = replace(tally(80), strata={"arm": Stratum(20, 0), "arm|harmed by r-1": Stratum(60, 30)})

    assert word(BOUND, alike) == "promote"
    assert word(BOUND, mixed) == "hold"  # twenty devices without a failure prove no 5 %
    assert word(BOUND, worse) == "abort"


STAYS = [
    Stay("rel-1", 1, "a" * 64, True),
    Stay("rel-2", 2, "b" * 64, True),
    Stay("rel-3", 3, "c" * 64, False),
    Stay("rel-4", 4, "d" * 64, False),
]


@pytest.mark.parametrize(
    ("limits", "word", "release"),
    [
        ({}, "completed", "rel-2"),  # not rel-3, which it merely ran before: its rollout was never completed
        ({"quarantined": ["b" * 64]}, "completed", "rel-1"),
        ({"floor": 3}, "keep", None),
        ({"floor": 3, "baseline": Stay("rel-5", 5, "e" * 64, False)}, "baseline", "rel-5"),
        ({"floor": 3, "baseline": Stay("rel-5", 5, "e" * 64, False), "quarantined": ["e" * 64]}, "keep", None),
        ({"floor": 3, "baseline": Stay("rel-0", 0, "f" * 64, False)}, "keep", None),
    ],
)
def test_decision_06_a_device_goes_back_to_the_last_release_completed_there_else_to_the_baseline_else_it_keeps_what_it_runs(
    limits: dict[str, Any], word: str, release: str | None
) -> None:
    target = target_of(STAYS, leaving="rel-4", **limits)

    assert (target.word, target.release_id) == (word, release)


def test_decision_06_nobody_goes_back_to_what_he_is_leaving() -> None:
    assert target_of([Stay("rel-1", 1, "a" * 64, True)], leaving="rel-1").word == "keep"


def test_decision_07_a_rollback_that_fails_pauses_for_a_person_and_never_rolls_forward() -> None:
    rollout = in_wave_two()
    back = apply_person(rollout, "roll-back", "no", at(20))
    first, *others = rollout.members
    stuck = proven(first, T0, state="quarantined", subject_digest=OLD, reason="the old model fails its self-test")

    paused, kinds = settle(back, facts(rollout, stuck, *(idle(d) for d in others)), at(30))

    assert (paused.state, kinds) == (RolloutState.PAUSED_RB, ["pause"])
    assert "the way back failed on 1 of 3 devices" in paused.last_reason
    assert decide(paused, facts(rollout, *(proven(d, T0) for d in rollout.members)), at(10_000)) is None


def test_decision_08_a_rollout_that_was_rolled_back_is_final_and_going_forward_again_takes_a_plan_of_its_own() -> None:
    from fleet_server.rollout import Event, TransitionError, next_state

    for event in Event:
        with pytest.raises(TransitionError):
            next_state(RolloutState.ROLLED_BACK, event)
    one, again = draft(), replace(draft(), salt="another", rollout_id="r-2")
    assert plan_digest(plan_parts(one, {})) != plan_digest(plan_parts(again, {}))


def change(hours: float, before: str = "A", after: str = "B", *, forward: bool = True) -> Change:
    return Change(T0 + timedelta(hours=hours), before, after, forward)


def hour(hours: float) -> datetime:
    return T0 + timedelta(hours=hours)


def test_decision_09_a_device_is_activated_once_in_24_hours_and_twice_in_an_emergency() -> None:
    history = [change(0, "A", "B")]
    assert may_change(history, "B", "C", hour(23)).word == "wait"
    assert may_change(history, "B", "C", hour(23)).again_at == hour(24)
    assert may_change(history, "B", "C", hour(24)).word == "begin"
    assert may_change(history, "B", "C", hour(1), emergency=True).word == "begin"

    twice = [*history, change(1, "B", "C")]
    assert may_change(twice, "C", "D", hour(2), emergency=True).word == "wait"
    assert may_change(twice, "C", "D", hour(24), emergency=True).word == "begin"


def test_decision_09_the_third_change_between_the_same_two_releases_in_seven_days_is_a_flip_flop() -> None:
    history = [change(0, "A", "B"), change(30, "B", "A", forward=False)]

    assert may_change(history, "A", "B", hour(60)).word == "flip-flop"
    assert may_change(history, "A", "C", hour(60)).word == "begin"
    assert may_change(history, "A", "B", hour(7 * 24 + 1)).word == "begin"  # the first of the three is older than a week


def test_decision_09_going_back_does_not_use_up_the_activation_of_the_day() -> None:
    assert may_change([change(0, "B", "A", forward=False)], "A", "C", hour(1)).word == "begin"


def test_decision_10_what_a_rollout_wants_follows_from_its_present_state_alone() -> None:
    from fleet_server.rollout import wants

    rollout = started()
    (asleep,) = rollout.members
    back = apply_person(rollout, "roll-back", "no", at(20))
    over, _ = settle(back, facts(rollout), at(30))

    assert [wants(one, asleep, "not-begun") for one in (rollout, back, over)] == ["new", "previous", "previous"]
    assert over.state is RolloutState.ROLLED_BACK


@pytest.mark.parametrize(
    ("failed", "on_late", "word"),
    [
        (0, "start", "nothing"),
        (2, "draft", "draft"),
        (2, "start", "draft"),
        (30, "draft", "draft"),
        (30, "start", "start"),
        (30, "ignore", "nothing"),
    ],
)
def test_decision_11_late_evidence_drafts_a_rollback_and_starts_it_only_by_policy_and_from_evidence_20_on(
    failed: int, on_late: Any, word: str
) -> None:
    found = judge_late(failed, 200, limit=0.05, on_late=on_late)

    assert found.word == word
    assert f"{failed} of 200 devices" in found.sentence
    assert (found.evidence >= 20) == (failed == 30)


def test_decision_11_a_hold_back_that_fails_is_a_stream_of_its_own_and_does_not_vanish_among_the_others() -> None:
    one_stream = judge_late(12, 9_530, limit=0.05, on_late="start")
    found = judge_late(2, 9_500, limit=0.05, on_late="start", failed_latecomers=10, latecomers=30)

    assert (one_stream.word, found.word) == ("draft", "start")
    assert found.sentence.startswith("2 of 9500 devices (0.0%) failed after the completion; evidence against 5%: ")
    assert "of those that took it on afterwards 10 of 30 (33.3%): " in found.sentence
    assert judge_late(0, 9_500, limit=0.05, on_late="draft", failed_latecomers=1, latecomers=30).word == "draft"
    assert judge_late(0, 9_500, limit=0.05, on_late="start", latecomers=30).word == "nothing"


def test_decision_12_nobody_is_held_back_three_times_in_a_row() -> None:
    waves = {"once": [0, 2], "twice": [0, 0, 3], "thrice": [0, 0, 0], "before": [1, 0, 0], "new": []}

    assert held_too_often(waves) == {"twice", "thrice"}


def test_decision_12_the_hold_back_follows_seven_days_after_the_completion_as_a_trickle() -> None:
    pace = Pace(first=5, every_s=3600, growth=2.0)

    assert following(T0, T0 + timedelta(days=7) - timedelta(seconds=1), pace, 0) == 0
    assert following(T0, T0 + timedelta(days=7), pace, 0) == 5
    assert following(T0, T0 + timedelta(days=7, hours=1), pace, 0) == 10
    assert following(T0, T0 + timedelta(days=7), pace, 100) == 100


def test_decision_13_emergencies_then_rollbacks_then_older_approvals_come_first() -> None:
    old, new = Wish("r-old", False, False, at(0)), Wish("r-new", False, False, at(9))
    back, alarm = Wish("r-back", False, True, at(8)), Wish("r-alarm", True, False, at(9))

    assert [wish.rollout_id for wish in sorted([new, old, back, alarm], key=order)] == ["r-alarm", "r-back", "r-old", "r-new"]


def test_decision_14_an_approval_is_void_once_the_superseded_rollout_has_moved() -> None:
    rollout = draft(approvals=1)
    stands, moved = Superseded("r-0", "running", 1, 4), Superseded("r-0", "paused", 1, 5)
    parts = plan_parts(rollout, {}, superseded=[stands])
    given = [Approval("anna", plan_digest(parts), T0, "", parts)]
    assert standing(rollout, parts, given).missing == ""

    after = standing(rollout, plan_parts(rollout, {}, superseded=[moved]), given)

    assert (after.valid, after.outdated) == ((), ("anna",))
    assert "r-0 is running in wave 1 (version 4); now r-0 is paused in wave 1 (version 5)" in after.missing
    assert "approve again" in after.missing


def test_decision_14_the_creators_own_approval_never_counts_whoever_stored_it() -> None:
    rollout = draft(approvals=1)
    parts = plan_parts(rollout, {})
    own = Approval(rollout.created_by, plan_digest(parts), T0, "", parts)

    assert standing(rollout, parts, [own]).missing.startswith("0 of 1 approvals")


def test_decision_15_the_price_of_many_rollouts_is_told_as_false_stops_per_year_and_no_limit_is_corrected() -> None:
    starts = [T0 - timedelta(days=days) for days in (1, 100, 365, 400)]

    assert expected_false_stops(starts, T0) == pytest.approx(0.15)
    assert expected_false_stops([], T0) == 0
    assert started(8).policy == started(9).policy


def test_decision_16_an_experiment_and_a_rollout_of_one_model_exclude_each_other() -> None:
    for policy in ("refuse", "supersede"):
        assert resolve(policy, 8, [owner(kind="experiment")]).word == "refuse"
        assert resolve(policy, 8, [owner()], kind="experiment").word == "refuse"
    assert "exclude each other" in resolve("supersede", 8, [owner(kind="experiment")]).sentence
    assert resolve("queue", 8, [owner(kind="experiment")]).word == "queue"


def test_decision_18_a_device_that_joins_late_gets_the_wave_that_its_salted_hash_gives_it_and_nobody_else_moves() -> None:
    from fleet_server.rollout.membership import Candidate, members_by_wave, plan_membership

    some = [Candidate(f"d{n}", "arm", "hall") for n in range(200)]
    membership = plan_membership("salt", some, [20, 80, 200])
    before = members_by_wave(membership, some)
    late = [Candidate(f"late-{n}", "arm", "hall") for n in range(200)]

    after = members_by_wave(membership, [*some, *late])

    for wave, devices in before.items():
        assert set(devices) <= set(after[wave])
    joined = [len(set(after[wave]) - set(before[wave])) for wave in (1, 2, 3)]
    assert sum(joined) == 200
    assert 5 <= joined[0] <= 40  # about a tenth, as planned: not all of them at once
