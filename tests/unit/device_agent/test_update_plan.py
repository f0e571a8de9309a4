"""The state machine of an update, as a table."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.update.plan import MAX_REMEMBERED, TRANSITIONS, WORKING, Event, PlanError, Progress, judge_desired, step
from edgefleet.messages import DeviceState

A, B = "a" * 64, "b" * 64


def test_every_state_of_the_message_has_a_row() -> None:
    assert set(TRANSITIONS) == set(get_args(DeviceState))


def test_every_target_is_a_state() -> None:
    assert {target for row in TRANSITIONS.values() for target in row.values()} <= set(get_args(DeviceState))


def test_a_pair_that_is_not_listed_is_an_error_and_names_both() -> None:
    with pytest.raises(PlanError, match="TRIAL_OK is unknown in the state 'idle'"):
        step(Progress(), Event.TRIAL_OK)


def test_the_straight_way_leads_to_committed() -> None:
    progress = step(Progress(), Event.DESIRED_NEW, subject=B)
    for event in (Event.FETCHED, Event.SELFTEST_STARTED, Event.SELFTEST_OK, Event.TRIAL_OK):
        progress = step(progress, event)
    assert (progress.state, progress.subject, progress.tries) == ("committed", B, ())


@pytest.mark.parametrize(
    ("state", "event", "target"),
    [
        ("downloading", Event.WRONG_BYTES, "quarantined"),
        ("self-test", Event.SELFTEST_FAILED, "quarantined"),
        ("trial", Event.TRIAL_REJECTED, "rolled-back"),
        ("trial", Event.EXHAUSTED, "rolled-back"),
        ("self-test", Event.EXHAUSTED, "quarantined"),
    ],
)
def test_a_failure_quarantines_the_digest_with_its_reason(state: DeviceState, event: Event, target: str) -> None:
    after = step(Progress(state=state, subject=B), event, reason="because")

    assert (after.state, after.conviction(B)) == (target, "because")


@pytest.mark.parametrize("state", sorted(WORKING))
def test_a_withdrawn_bundle_is_given_up_and_not_quarantined(state: DeviceState) -> None:
    after = step(Progress(state=state, subject=B), Event.DESIRED_RUNNING)

    assert (after.state, after.subject, after.quarantined) == ("idle", "", ())


def test_the_third_interrupted_trial_is_the_last() -> None:
    progress = Progress(state="verified", subject=B)
    for _ in range(2):
        progress = step(step(progress, Event.SELFTEST_STARTED), Event.SELFTEST_OK)
        progress = step(progress, Event.RESTARTED)
        assert progress.state == "verified"
    progress = step(step(progress, Event.SELFTEST_STARTED), Event.SELFTEST_OK)

    progress = step(progress, Event.RESTARTED)

    assert (progress.state, progress.attempt) == ("rolled-back", 3)
    assert "3 of 3 attempts" in (progress.conviction(B) or "")


def test_a_stop_on_request_is_no_attempt() -> None:
    progress = step(step(Progress(state="verified", subject=B), Event.SELFTEST_STARTED), Event.SELFTEST_OK)

    stopped = step(progress, Event.STOPPED)

    assert (stopped.state, stopped.attempt) == ("verified", 0)


def test_attempts_survive_that_another_bundle_was_wanted_meanwhile() -> None:
    progress = step(Progress(state="verified", subject=B), Event.SELFTEST_STARTED)

    progress = step(step(step(progress, Event.CRASHED), Event.DESIRED_NEW, subject=A), Event.DESIRED_NEW, subject=B)

    assert progress.attempt == 1


def test_a_quarantined_bundle_that_is_wanted_again_says_why_it_is_not_taken() -> None:
    progress = Progress(state="rolled-back", subject=B, quarantined=((B, "disagrees"),))

    after = step(progress, judge_desired(progress, B, A), subject=B)

    assert (after.state, after.subject, after.reason) == ("quarantined", B, "failed here before: disagrees")


@pytest.mark.parametrize(
    ("progress", "wanted", "event"),
    [
        (Progress(), None, Event.WITHDRAWN),
        (Progress(), A, Event.DESIRED_RUNNING),
        (Progress(), B, Event.DESIRED_NEW),
        (Progress(state="trial", subject=B), B, Event.DESIRED_SAME),
        (Progress(state="refused", subject=B), B, Event.DESIRED_NEW),
        (Progress(quarantined=((B, "x"),)), B, Event.DESIRED_QUARANTINED),
        (Progress(quarantined=((A, "x"),)), A, Event.DESIRED_RUNNING),
    ],
)
def test_what_a_desired_state_means_while_a_runs(progress: Progress, wanted: str | None, event: Event) -> None:
    assert judge_desired(progress, wanted, A) is event


@pytest.mark.parametrize(
    ("progress", "wanted", "event"),
    [
        (Progress(), B, Event.DESIRED_BELOW_FLOOR),
        (Progress(state="trial", subject=B), B, Event.DESIRED_BELOW_FLOOR),
        (Progress(), A, Event.DESIRED_RUNNING),
        (Progress(), None, Event.WITHDRAWN),
        (Progress(quarantined=((B, "x"),)), B, Event.DESIRED_QUARANTINED),
    ],
)
def test_what_is_wanted_from_below_the_floor_is_not_begun_and_what_runs_is_not_asked(
    progress: Progress, wanted: str | None, event: Event
) -> None:
    assert judge_desired(progress, wanted, A, below_floor=True) is event


def test_a_commit_that_is_decided_but_does_not_run_yet_is_not_told_as_success() -> None:
    decided = Progress(state="committed", subject=B)

    assert (decided.state_while(A), decided.state_while(B)) == ("trial", "committed")


def test_what_is_remembered_is_bounded() -> None:
    many = tuple((f"{i:064d}", "x") for i in range(MAX_REMEMBERED))

    after = step(Progress(state="self-test", subject=B, quarantined=many), Event.SELFTEST_FAILED, reason="y" * 10_000)

    assert len(after.quarantined) == MAX_REMEMBERED
    assert len(after.conviction(B) or "") == 500


@given(st.lists(st.tuples(st.sampled_from(list(Event)), st.sampled_from([A, B])), max_size=40))
def test_whatever_happens_a_convicted_digest_is_never_worked_on_and_attempts_stay_within_the_policy(story: list[tuple[Event, str]]) -> None:
    progress = Progress()
    for event, digest in story:
        if event in (Event.DESIRED_NEW, Event.DESIRED_SAME, Event.DESIRED_QUARANTINED, Event.DESIRED_RUNNING):
            event = judge_desired(progress, digest, "")  # noqa: PLW2901  # the caller judges, the story only says what is wanted
        if event in TRANSITIONS[progress.state]:
            progress = step(progress, event, subject=digest, attempts=3)
        assert progress.state not in WORKING or progress.conviction(progress.subject) is None
        assert progress.attempt <= 3
