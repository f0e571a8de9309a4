"""States of a rollout and what leads from one to the next, as data.

`docs/rollout-states.md` is rendered from this table; a test compares them. A pair that is not listed is an error, never a default.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from edgefleet.errors import ConfigError


class RolloutState(StrEnum):
    """Where a rollout stands."""

    DRAFT = "draft"
    APPROVED = "approved"
    RUNNING = "running"
    PAUSED = "paused"
    SOAKING = "soaking"
    COMPLETED = "completed"
    ABORTED = "aborted"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"
    PAUSED_RB = "paused-rb"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"


class Event(StrEnum):
    """What happens to a rollout: by a person, by another rollout (supersede) or by the engine."""

    APPROVE = "approve"
    START = "start"
    PAUSE = "pause"
    CONFIRM = "confirm"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll-back"
    SUPERSEDE = "supersede"
    OPEN_WAVE = "open-wave"
    MATURE = "mature"
    EXTEND = "extend"
    PROMOTE = "promote"
    LAST_WAVE_DONE = "last-wave-done"
    HALT = "halt"
    ABORT_VERDICT = "abort-verdict"
    COMPLETE = "complete"
    CONCLUDE = "conclude"
    ALL_BACK = "all-back"


EVENT_MEANING: Final[Mapping[Event, str]] = {
    Event.APPROVE: "the approvals that the policy asks for are there",
    Event.START: "a person starts it",
    Event.PAUSE: "a person pauses it: no further device begins",
    Event.CONFIRM: "a person has looked at what the policy asks her to look at: the gates go on, and nothing is accepted",
    Event.RESUME: "a person goes on, and accepts the failures that stopped it",
    Event.ABORT: "a person ends it: devices that are not ok go back, or those that on_abort says",
    Event.ROLL_BACK: "a person, or the policy's on_abort, sends every device back",
    Event.SUPERSEDE: "a later rollout takes the devices over",
    Event.OPEN_WAVE: "the engine opens the next wave",
    Event.MATURE: "the open wave has had its time: from now on a hold is a hold",
    Event.EXTEND: "the engine lets the open wave grow, because more devices can tell what these cannot",
    Event.PROMOTE: "the engine finds the evidence of the open wave sufficient and stores that",
    Event.LAST_WAVE_DONE: "the promoted wave was the last one",
    Event.HALT: "the engine pauses: a failure, a hold that lasts too long, an unreadable fact, or the policy asks a person",
    Event.ABORT_VERDICT: "the engine ends it: the evidence is against the release",
    Event.CONCLUDE: "the release of arm B has won the experiment: its devices keep it",
    Event.COMPLETE: "every device is ok, or is a failure that a person accepted",
    Event.ALL_BACK: "no device runs or tries the release any more",
}

FINAL: Final = frozenset({RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.SUPERSEDED, RolloutState.DISCARDED})

_S, _E = RolloutState, Event
TRANSITIONS: Final[Mapping[tuple[RolloutState, Event], RolloutState]] = {
    (_S.DRAFT, _E.APPROVE): _S.APPROVED,
    (_S.DRAFT, _E.ABORT): _S.DISCARDED,
    (_S.DRAFT, _E.SUPERSEDE): _S.DISCARDED,
    (_S.APPROVED, _E.APPROVE): _S.APPROVED,
    (_S.APPROVED, _E.START): _S.RUNNING,
    (_S.APPROVED, _E.ABORT): _S.DISCARDED,
    (_S.APPROVED, _E.SUPERSEDE): _S.DISCARDED,
    (_S.RUNNING, _E.START): _S.RUNNING,
    (_S.RUNNING, _E.RESUME): _S.RUNNING,
    (_S.RUNNING, _E.OPEN_WAVE): _S.RUNNING,
    (_S.RUNNING, _E.MATURE): _S.RUNNING,
    (_S.RUNNING, _E.EXTEND): _S.RUNNING,
    (_S.RUNNING, _E.PROMOTE): _S.RUNNING,
    (_S.RUNNING, _E.LAST_WAVE_DONE): _S.SOAKING,
    (_S.RUNNING, _E.CONCLUDE): _S.COMPLETED,
    (_S.RUNNING, _E.HALT): _S.PAUSED,
    (_S.RUNNING, _E.ABORT_VERDICT): _S.ABORTED,
    (_S.RUNNING, _E.PAUSE): _S.PAUSED,
    (_S.RUNNING, _E.ABORT): _S.ABORTED,
    (_S.RUNNING, _E.ROLL_BACK): _S.ROLLING_BACK,
    (_S.RUNNING, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.PAUSED, _E.PAUSE): _S.PAUSED,
    (_S.PAUSED, _E.CONFIRM): _S.RUNNING,
    (_S.PAUSED, _E.RESUME): _S.RUNNING,
    # Gates keep running while a rollout is paused, so that it can still abort.
    (_S.PAUSED, _E.ABORT_VERDICT): _S.ABORTED,
    (_S.PAUSED, _E.ABORT): _S.ABORTED,
    (_S.PAUSED, _E.ROLL_BACK): _S.ROLLING_BACK,
    (_S.PAUSED, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.SOAKING, _E.MATURE): _S.SOAKING,
    (_S.SOAKING, _E.COMPLETE): _S.COMPLETED,
    (_S.SOAKING, _E.CONCLUDE): _S.COMPLETED,
    (_S.SOAKING, _E.HALT): _S.PAUSED,
    (_S.SOAKING, _E.ABORT_VERDICT): _S.ABORTED,
    (_S.SOAKING, _E.PAUSE): _S.PAUSED,
    (_S.SOAKING, _E.ABORT): _S.ABORTED,
    (_S.SOAKING, _E.ROLL_BACK): _S.ROLLING_BACK,
    (_S.SOAKING, _E.SUPERSEDE): _S.SUPERSEDED,
    (_S.ABORTED, _E.ABORT): _S.ABORTED,
    (_S.ABORTED, _E.ROLL_BACK): _S.ROLLING_BACK,
    (_S.ABORTED, _E.SUPERSEDE): _S.ABORTED,
    (_S.ROLLING_BACK, _E.ROLL_BACK): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, _E.PAUSE): _S.PAUSED_RB,
    (_S.ROLLING_BACK, _E.HALT): _S.PAUSED_RB,
    (_S.ROLLING_BACK, _E.ALL_BACK): _S.ROLLED_BACK,
    (_S.PAUSED_RB, _E.PAUSE): _S.PAUSED_RB,
    (_S.PAUSED_RB, _E.ROLL_BACK): _S.PAUSED_RB,
    (_S.PAUSED_RB, _E.RESUME): _S.ROLLING_BACK,
}


class TransitionError(ConfigError):
    """The table has no way from this state by this event; nothing was changed."""


def next_state(state: RolloutState, event: Event) -> RolloutState:
    """The state that an event leads to.

    Raises:
        TransitionError: The pair is not in the table; the message names state, event and what is possible.
    """
    following = TRANSITIONS.get((state, event))
    if following is None:
        possible = ", ".join(other.value for origin, other in TRANSITIONS if origin is state) or "nothing, it is final"
        raise TransitionError(f"a rollout that is {state.value} does not know {event.value!r}; nothing was changed; possible: {possible}")
    return following


def render_markdown() -> str:
    """The page docs/rollout-states.md: the table, the meaning of the events, and the diagram."""
    lines = [
        "# States of a rollout",
        "",
        "Generated from `fleet_server/rollout/transitions.py`; a test compares them. Do not edit.",
        "",
        "A blank cell is refused with an error that names state and event; `=` stays.",
        "",
        "| state | " + " | ".join(event.value for event in Event) + " |",
        "|---|" + "---|" * len(Event),
    ]
    for state in RolloutState:
        cells = (_cell(state, event) for event in Event)
        lines.append(f"| {state.value} | " + " | ".join(cells) + " |")
    lines += ["", "| event | what it means |", "|---|---|"]
    lines += [f"| {event.value} | {EVENT_MEANING[event]} |" for event in Event]
    lines += ["", "```mermaid", "stateDiagram-v2", "    [*] --> draft"]
    lines += [
        f"    {_node(origin)} --> {_node(target)}: {event.value}" for (origin, event), target in TRANSITIONS.items() if origin is not target
    ]
    lines += [f"    {_node(state)} --> [*]" for state in RolloutState if state in FINAL]
    return "\n".join([*lines, "```", ""])


def _cell(state: RolloutState, event: Event) -> str:
    target = TRANSITIONS.get((state, event))
    return "" if target is None else "=" if target is state else target.value


def _node(state: RolloutState) -> str:
    # Mermaid reads a hyphen in a state's name as an operator.
    return state.value.replace("-", "_")
