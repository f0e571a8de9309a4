from pathlib import Path

import pytest

from fleet_server.rollout import Event, RolloutState, TransitionError, next_state
from fleet_server.rollout.transitions import FINAL, TRANSITIONS, render_markdown

PAGE = Path(__file__).parents[3] / "docs" / "rollout-states.md"


def test_the_documentation_is_what_the_table_says() -> None:
    assert PAGE.read_text() == render_markdown(), "write render_markdown() of fleet_server.rollout.transitions to docs/rollout-states.md"


@pytest.mark.parametrize("state", list(RolloutState))
def test_an_unlisted_pair_is_refused_with_state_and_event(state: RolloutState) -> None:
    for event in Event:
        if (state, event) in TRANSITIONS:
            assert next_state(state, event) is TRANSITIONS[state, event]
        else:
            with pytest.raises(TransitionError) as refused:
                next_state(state, event)
            assert state.value in str(refused.value)
            assert event.value in str(refused.value)


def test_final_states_lead_nowhere_and_all_others_lead_somewhere_else() -> None:
    leaving = {origin for (origin, _), target in TRANSITIONS.items() if target is not origin}
    assert leaving == set(RolloutState) - FINAL


def test_every_state_can_be_reached_from_draft() -> None:
    reached = {RolloutState.DRAFT}
    for _ in RolloutState:
        reached |= {target for (origin, _), target in TRANSITIONS.items() if origin in reached}
    assert reached == set(RolloutState)


def test_only_a_person_leads_out_of_a_pause_towards_more_devices() -> None:
    out = {event for (origin, event), target in TRANSITIONS.items() if origin is RolloutState.PAUSED and target is RolloutState.RUNNING}
    assert out == {Event.RESUME, Event.CONFIRM}


def test_nothing_leads_from_aborted_or_rolling_back_forward_again() -> None:
    behind = {RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.PAUSED_RB, RolloutState.ROLLED_BACK}
    assert {target for (origin, _), target in TRANSITIONS.items() if origin in behind} <= behind
