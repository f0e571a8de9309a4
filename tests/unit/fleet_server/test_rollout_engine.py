from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from fleet_server.rollout import (
    ActionKind,
    Facts,
    Rollout,
    RolloutState,
    TransitionError,
    apply,
    apply_person,
    decide,
    next_due,
    view,
    wants,
)
from tests.unit.fleet_server.rollout_world import (
    NEW,
    OLD,
    T0,
    at,
    draft,
    facts,
    failed,
    idle,
    in_wave_two,
    proved,
    proven,
    settle,
    started,
    trying,
)


def test_a_good_release_goes_through_all_waves_and_completes() -> None:
    rollout = started()
    seen: list[str] = []
    for seconds in (10, 20, 30):
        rollout, kinds = settle(rollout, proved(rollout, rollout.members), at(seconds))
        seen += kinds
    assert seen == ["promote", "open-wave", "promote", "open-wave", "promote", "complete"]
    assert rollout.state is RolloutState.COMPLETED
    assert rollout.promoted_at == (at(10), at(20), at(30))


def test_nothing_begins_before_a_person_starts_it() -> None:
    rollout = draft()
    assert decide(rollout, facts(rollout), T0) is None
    assert all(wants(rollout, device_id, "not-begun") is None for wave in rollout.waves for device_id in wave)


def test_wave_two_waits_for_the_soak_of_wave_one() -> None:
    rollout = started()
    known = proved(rollout, rollout.members, at(1))
    assert decide(rollout, known, at(3.9)) is None
    promoted = decide(rollout, known, at(4))
    assert promoted is not None
    assert promoted.kind is ActionKind.PROMOTE


def test_wave_two_waits_for_the_rows_of_wave_one() -> None:
    rollout = started()
    assert decide(rollout, facts(rollout, proven(rollout.members[0], T0, rows_since_commit=19)), at(10)) is None


def test_wave_two_waits_for_the_dwell_of_wave_one() -> None:
    rollout = started(dwell_s=[600.0, 0.0, 0.0])
    known = proved(rollout, rollout.members)
    assert decide(rollout, known, at(599)) is None
    assert settle(rollout, known, at(600))[1] == ["promote", "open-wave"]


def test_a_wave_opens_only_on_a_stored_promotion() -> None:
    rollout = started()
    action = decide(rollout, proved(rollout, rollout.members), at(10))
    assert action is not None
    assert action.kind is ActionKind.PROMOTE
    with pytest.raises(TransitionError, match="0 of 3 waves are promoted"):
        apply(rollout, replace(action, kind=ActionKind.OPEN_WAVE, wave=2), at(10))


def test_a_second_scheduler_tick_changes_nothing() -> None:
    rollout = in_wave_two()
    known = facts(rollout, *(proven(device_id, T0) for device_id in rollout.members[:2]))
    assert decide(rollout, known, at(11)) is None
    assert decide(rollout, known, at(11)) is None


def test_a_second_scheduler_with_the_same_action_is_refused() -> None:
    rollout = started()
    known = proved(rollout, rollout.members)
    action = decide(rollout, known, at(10))
    assert action is not None
    after = apply(rollout, action, at(10))
    with pytest.raises(TransitionError, match="already promoted"):
        apply(after, action, at(10))


def test_one_failure_pauses() -> None:
    rollout = in_wave_two()
    rollout, kinds = settle(rollout, facts(rollout, failed(rollout.members[1], at(12))), at(13))
    assert kinds == ["pause"]
    assert rollout.state is RolloutState.PAUSED
    assert rollout.last_reason.startswith("Pause: 1 of 1 devices failed.")
    assert "21 of 50 rows agree" in rollout.last_reason


def test_a_second_failure_aborts_even_while_paused() -> None:
    rollout = in_wave_two()
    one, two = rollout.members[1:]
    rollout, _ = settle(rollout, facts(rollout, failed(one, at(12))), at(13))
    rollout, kinds = settle(rollout, facts(rollout, failed(one, at(12)), failed(two, at(14))), at(15))
    assert kinds == ["abort"]
    assert rollout.state is RolloutState.ABORTED


def test_a_late_failure_of_wave_one_stops_wave_two() -> None:
    rollout = in_wave_two()
    first, *others = rollout.members
    known = facts(rollout, proven(first, T0, failed_at=at(20), failure="crashed"), *(proven(d, T0) for d in others))
    assert settle(rollout, known, at(21))[1] == ["pause"]


def test_a_bad_release_reaches_nobody_outside_wave_one() -> None:
    rollout = started()
    (first,) = rollout.members
    rollout, _ = settle(rollout, facts(rollout, failed(first, at(5))), at(6))
    rollout = apply_person(rollout, "abort", "the model is bad", at(60))
    assert {d: wants(rollout, d, "failed") for wave in rollout.waves for d in wave if wants(rollout, d, "failed")} == {first: "previous"}


def test_resume_accepts_the_failure_that_paused_it_and_goes_on_with_the_others() -> None:
    rollout = in_wave_two()
    bad, *good = rollout.members
    known = facts(rollout, failed(bad, at(12)), *(proven(device_id, T0) for device_id in good))
    rollout, _ = settle(rollout, known, at(13))
    rollout = apply_person(rollout, "resume", "that camera is broken", at(14))
    assert rollout.accepted == (bad,)
    assert settle(rollout, known, at(15))[1] == ["promote", "open-wave"]


def test_accepted_failures_alone_are_no_evidence() -> None:
    rollout = started()
    known = facts(rollout, failed(rollout.members[0], at(2)))
    rollout, _ = settle(rollout, known, at(3))
    rollout = apply_person(rollout, "resume", "go on", at(4))
    assert decide(rollout, known, at(5)) is None
    assert "nobody is no evidence" in view(rollout, known, at(5))[1]


def test_resume_does_not_accept_a_failure_that_came_during_the_pause() -> None:
    rollout = apply_person(in_wave_two(), "pause", "lunch", at(12))
    known = facts(rollout, failed(rollout.members[1], at(13)))
    assert decide(rollout, known, at(14)) is None
    rollout = apply_person(rollout, "resume", "back", at(20))
    assert settle(rollout, known, at(21))[1] == ["pause"]


def test_a_hold_that_lasts_too_long_pauses() -> None:
    rollout = started()
    known = facts(rollout, trying(rollout.members[0], T0, last_heard_at=at(119)))
    assert decide(rollout, known, at(119)) is None
    rollout, kinds = settle(rollout, known, at(120))
    assert kinds == ["pause"]
    assert rollout.last_reason.startswith("Pause: held for 120 s. Hold: wave 1 waits for 1 of 1 devices")


def test_the_dwell_is_no_hold_even_after_a_resume() -> None:
    rollout = apply_person(apply_person(started(dwell_s=600), "pause", "", at(10)), "resume", "", at(20))
    known = proved(rollout, rollout.members)
    assert decide(rollout, known, at(500)) is None
    assert settle(rollout, known, at(600))[1] == ["promote", "open-wave"]


def test_a_resume_gives_another_hold_time() -> None:
    rollout, _ = settle(started(), facts(started()), at(120))
    rollout = apply_person(rollout, "resume", "wait for it", at(130))
    assert decide(rollout, facts(rollout), at(249)) is None
    assert settle(rollout, facts(rollout), at(250))[1] == ["pause"]


def test_paused_never_expires_into_promotion() -> None:
    rollout = apply_person(started(), "pause", "lunch", at(1))
    assert decide(rollout, proved(rollout, rollout.members), at(1_000_000)) is None


def test_a_missing_or_unreadable_device_pauses_with_its_name() -> None:
    rollout = in_wave_two()
    lost = rollout.members[1]
    known = proved(rollout, rollout.members)
    without = Facts({device_id: one for device_id, one in known.devices.items() if device_id != lost})
    for damaged in (without, replace(known, unreadable=(lost,))):
        after, kinds = settle(rollout, damaged, at(20))
        assert kinds == ["pause"]
        assert lost in after.last_reason


def test_an_exception_in_a_decision_pauses_and_never_promotes() -> None:
    rollout = started()
    naive = proven(rollout.members[0], T0, committed_at=datetime(2026, 3, 2, 9, 0))  # noqa: DTZ001
    after, kinds = settle(rollout, facts(rollout, naive), at(20))
    assert kinds == ["pause"]
    assert "TypeError" in after.last_reason


def test_a_rollout_without_devices_pauses_instead_of_being_done() -> None:
    rollout = replace(apply_person(draft(), "start", "go", T0), waves=())
    after, kinds = settle(rollout, Facts({}), T0)
    assert kinds == ["pause"]
    assert "nobody is no evidence" in after.last_reason


def test_an_empty_wave_never_passes() -> None:
    rollout = started()
    empty = replace(rollout, waves=((), *rollout.waves[1:]))
    assert decide(empty, facts(empty), at(10)) is None
    assert settle(empty, facts(empty), at(120))[1] == ["pause"]


def test_a_clock_that_stands_before_the_last_change_decides_nothing() -> None:
    rollout = in_wave_two()
    known = proved(rollout, rollout.members, at(-1000))
    assert decide(rollout, known, at(9)) is None
    assert decide(rollout, known, at(10)) is not None
    assert next_due(rollout, known, at(9)) == at(10)


def test_times_of_a_rollout_never_go_back() -> None:
    paused = apply_person(in_wave_two(), "pause", "", at(-500))
    assert paused.changed_at == at(10)


def test_after_an_abort_proven_devices_keep_the_release_and_the_others_go_back() -> None:
    rollout = apply_person(in_wave_two(), "abort", "enough", at(20))
    device_id = rollout.members[0]
    assert wants(rollout, device_id, "ok") == "new"
    for word in ("pending", "failed", "silent", "not-begun"):
        assert wants(rollout, device_id, word) == "previous"
    assert wants(rollout, rollout.waves[2][0], "not-begun") is None


def test_on_abort_wave_also_takes_the_release_from_what_was_ok_in_the_open_wave() -> None:
    rollout = apply_person(in_wave_two(on_abort="wave"), "abort", "enough", at(20))
    (first,), (second, _), *_ = rollout.waves

    assert wants(rollout, first, "ok") == "new"
    assert [wants(rollout, second, word) for word in ("ok", "pending", "failed", "silent", "not-begun")] == ["previous"] * 5
    assert wants(rollout, first, "pending") == "previous"


def test_on_abort_keep_sends_nobody_back_who_has_begun_and_nobody_else_begins() -> None:
    rollout = apply_person(in_wave_two(on_abort="keep"), "abort", "enough", at(20))
    device_id = rollout.members[0]

    assert [wants(rollout, device_id, word) for word in ("ok", "pending", "failed", "silent")] == ["new"] * 4
    assert wants(rollout, device_id, "not-begun") == "previous"
    assert wants(rollout, rollout.waves[2][0], "not-begun") is None
    assert view(rollout, proved(rollout, []), at(21))[2] == "Nobody who has begun goes back; a person can roll them back."
    # A person overrules it.
    assert wants(apply_person(rollout, "roll-back", "harm", at(22)), device_id, "ok") == "previous"


def test_on_abort_roll_back_sends_every_device_back_and_ends_when_all_are() -> None:
    rollout = in_wave_two(on_abort="roll-back")
    one, two, three = rollout.members
    bad = facts(rollout, proven(one, T0), failed(two, at(12)), failed(three, at(12)))
    rollout, kinds = settle(rollout, bad, at(13))
    assert kinds == ["abort", "roll-back"]
    assert wants(rollout, one, "ok") == "previous"
    back = facts(rollout, *(idle(device_id, began_at=T0) for device_id in rollout.members))
    assert settle(rollout, back, at(20))[1] == ["rolled-back"]


def test_a_roll_back_that_does_not_come_home_pauses_and_never_rolls_forward() -> None:
    rollout = apply_person(in_wave_two(), "roll-back", "wrong version", at(20))
    stuck = proved(rollout, rollout.members)
    assert decide(rollout, stuck, at(139)) is None
    rollout, kinds = settle(rollout, stuck, at(140))
    assert (kinds, rollout.state) == (["pause"], RolloutState.PAUSED_RB)
    assert {wants(rollout, device_id, "ok") for device_id in rollout.members} == {"previous"}
    assert apply_person(rollout, "resume", "again", at(150)).state is RolloutState.ROLLING_BACK


def test_a_device_that_still_tries_the_release_is_not_back() -> None:
    rollout = apply_person(in_wave_two(), "roll-back", "", at(20))
    known = facts(rollout, trying(rollout.members[0], at(11)))
    assert decide(rollout, known, at(21)) is None


def test_a_superseded_rollout_wants_nothing_any_more() -> None:
    rollout = apply_person(in_wave_two(), "supersede", "rel-3", at(20))
    assert {wants(rollout, device_id, "ok") for device_id in rollout.members} == {None}
    assert decide(rollout, proved(rollout, rollout.members), at(30)) is None


def test_a_resume_after_the_last_promotion_goes_on_soaking() -> None:
    rollout = started(devices=1)
    known = proved(rollout, rollout.members)
    promotion = decide(rollout, known, at(10))
    assert promotion is not None
    rollout = apply_person(apply(rollout, promotion, at(10)), "pause", "", at(11))
    rollout = apply_person(rollout, "resume", "", at(12))
    assert rollout.state is RolloutState.SOAKING
    assert settle(rollout, known, at(13))[1] == ["complete"]


@pytest.mark.parametrize("event", ["promote", "complete", "halt", "nonsense"])
def test_a_person_cannot_do_what_only_the_engine_does(event: str) -> None:
    with pytest.raises(TransitionError):
        apply_person(started(), event, "please", at(1))


def test_a_refused_event_says_what_is_possible() -> None:
    with pytest.raises(TransitionError, match=r"draft does not know 'pause'.*possible: approve, abort, supersede"):
        apply_person(draft(), "pause", "", T0)


@pytest.mark.parametrize(
    ("rollout", "seconds", "due"),
    [
        (draft(), 0, None),
        (started(), 0, 120),
        (apply_person(started(), "pause", "", at(5)), 6, None),
        (apply_person(started(), "abort", "", at(5)), 6, None),
        (started(dwell_s=600), 0, 600),
        (apply_person(started(), "roll-back", "", at(5)), 6, 6),
    ],
)
def test_the_next_look_is_when_time_alone_may_change_the_answer(rollout: Rollout, seconds: float, due: float | None) -> None:
    expected = None if due is None else at(due)
    assert next_due(rollout, facts(rollout), at(seconds)) == expected


def test_the_next_look_comes_at_the_end_of_a_soak_and_at_a_deadline() -> None:
    rollout = started()
    (first,) = rollout.members
    assert next_due(rollout, facts(rollout, proven(first, at(1))), at(2)) == at(4)
    assert next_due(rollout, facts(rollout, trying(first, at(1), last_heard_at=at(7))), at(8)) == at(67)


def test_what_is_due_happens_at_that_time() -> None:
    rollout = started()
    known = proved(rollout, rollout.members, at(1))
    due = next_due(rollout, known, at(2))
    assert due is not None
    assert decide(rollout, known, due) is not None


@pytest.mark.parametrize(
    ("rollout", "verdict", "sentence"),
    [
        (draft(), "waiting", "Waiting: 8 devices in 3 waves; no device has begun."),
        (in_wave_two(), "hold", "Hold: wave 2 waits for 3 of 3 devices"),
        (apply_person(in_wave_two(), "pause", "lunch", at(12)), "pause", "Paused by a person: lunch"),
        (apply_person(in_wave_two(), "abort", "bad", at(12)), "abort", "Aborted by a person: bad"),
        (apply_person(in_wave_two(), "supersede", "rel-3", at(12)), "done", "Superseded: rel-3"),
    ],
)
def test_the_page_gets_verdict_sentence_and_what_is_missing(rollout: Rollout, verdict: str, sentence: str) -> None:
    found, words, missing = view(rollout, facts(rollout), at(13))
    assert found == verdict
    assert words.startswith(sentence)
    assert missing


def test_a_promotion_says_what_it_rests_on() -> None:
    rollout = started(devices=5, waves=["100%"])
    verdict, sentence, _ = view(rollout, proved(rollout, rollout.members), at(10))
    assert verdict == "promote"
    assert sentence == "Promote: 5 of 5 devices of wave 1 and before are ok. The true failure rate may still be 37 %."


def test_a_device_that_runs_the_release_already_counts_once_it_is_attested() -> None:
    rollout = started()
    (first,) = rollout.members
    already = idle(first, running_digest=NEW, attested_digest=OLD, state="committed", subject_digest=NEW, committed_at=T0)
    assert decide(rollout, facts(rollout, already), at(10)) is None
    attested = replace(already, attested_digest=NEW, rows_since_commit=20, last_heard_at=at(9))
    assert settle(rollout, facts(rollout, attested), at(10))[1] == ["promote", "open-wave"]


def test_a_rollout_survives_storage_unchanged() -> None:
    rollout = apply_person(in_wave_two(), "pause", "lunch", at(12))
    assert msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout) == rollout


def test_a_rollout_that_was_started_before_the_clock_was_set_back_can_still_be_shown() -> None:
    rollout = apply_person(draft(), "start", "go", T0)
    verdict, sentence, missing = view(rollout, facts(rollout), at(-60))
    assert (verdict, sentence) == ("hold", "Hold: the server's clock stands 60 s before the last change.")
    assert missing


def test_a_rollout_that_was_started_before_the_clock_was_set_back_is_looked_at_when_it_has_caught_up() -> None:
    rollout = apply_person(draft(), "start", "go", T0)
    assert next_due(rollout, facts(rollout), at(-60)) == T0
    assert next_due(rollout, facts(rollout), T0) == T0
