"""What a person can do with a rollout now, what it would do in devices, and why not when not."""

from dataclasses import dataclass
from typing import Final, Literal

from fleet_server.read_models import ActionView
from fleet_server.rollout import Event, Rollout, RolloutState, TransitionError, next_state
from fleet_server.rollout.approval import needs_approval
from fleet_server.rollout.on_abort import GOES_BACK

ActionName = Literal["start", "pause", "confirm", "resume", "abort", "roll-back"]
_NAMES: Final[tuple[tuple[ActionName, str], ...]] = (
    ("start", "Start"),
    ("pause", "Pause"),
    ("confirm", "Confirm"),
    ("resume", "Resume"),
    ("abort", "Abort"),
    ("roll-back", "Roll back"),
)


@dataclass(frozen=True)
class Scale:
    """How many devices an action is about.

    Attributes:
        first: Devices of wave 1.
        open: Of the open waves.
        not_ok: Of these, not ok.
        later: Of the waves that are not open.
    """

    first: int
    open: int
    not_ok: int
    later: int


def actions(rollout: Rollout, scale: Scale, *, gone: str, first_timers: int) -> list[ActionView]:
    """All actions, those that are refused with the reason; to confirm only where the policy asks a person to.

    Args:
        rollout: The rollout.
        scale: Its devices.
        gone: What became of its devices if none is left to act on, as `ownership.why_nothing_is_left` says it.
        first_timers: Devices that ran no release before this one.
    """
    effects = _effects(rollout, scale)
    refused = {event: _refused(rollout, event, gone) for event in effects}
    if first_timers and not refused[Event.ROLL_BACK]:
        refused[Event.ROLL_BACK] = f"{_devices(first_timers)} ran no release before: there is nothing to go back to."
    return [
        ActionView(name=name, label=label, effect=effects[Event(name)], refused=refused[Event(name)]) for name, label in _names(rollout)
    ]


def _names(rollout: Rollout) -> list[tuple[ActionName, str]]:
    asks = rollout.course is not None and rollout.course.confirm != "never"
    return [(name, label) for name, label in _NAMES if asks or name != "confirm"]


def _refused(rollout: Rollout, event: Event, gone: str) -> str:
    state = rollout.state
    if event is Event.START and state is RolloutState.DRAFT:
        return needs_approval(rollout)
    try:
        following = next_state(state, event)
    except TransitionError:
        return f"A rollout that is {state.value} cannot be {_PARTICIPLES[event]}."
    if event is Event.CONFIRM and (rollout.course is None or rollout.course.asked is None):
        return "Nothing waits for a confirmation; this pause is of another kind."
    if following is state:
        return f"It is {state.value} already."
    return f"Its devices {gone}." if gone else ""


def _effects(rollout: Rollout, scale: Scale) -> dict[Event, str]:
    accepted = f" and the failure of {', '.join(rollout.paused_for[:3])} is accepted" if rollout.paused_for else ""
    if rollout.course is not None and rollout.course.shown is not None:
        accepted = ", and what the pause showed holds back no promotion any more"
    return {
        Event.START: f"{_devices(scale.first)} of wave 1 get the release now; {_devices(scale.later - scale.first)} wait for later waves.",
        Event.PAUSE: f"No further device begins: {_devices(scale.later)} wait; {_devices(scale.open)} keep what they have.",
        Event.CONFIRM: f"It goes on with {_devices(scale.later)} to come, as far as its gates allow; nothing is accepted.",
        Event.RESUME: f"It goes on with {_devices(scale.later)} to come{accepted}.",
        Event.ABORT: f"It ends: {_goes_back(rollout, scale)}, {_devices(scale.later)} never begin.",
        Event.ROLL_BACK: f"{_devices(scale.open)} go back to what they ran before.",
    }


def _goes_back(rollout: Rollout, scale: Scale) -> str:
    on_abort = rollout.policy.on_abort
    if on_abort == "stop":
        return f"{_devices(scale.not_ok)} that are not ok go back"
    return f"{_devices(scale.open)} go back" if on_abort == "roll-back" else GOES_BACK[on_abort]


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"


_PARTICIPLES: Final = {
    Event.START: "started",
    Event.PAUSE: "paused",
    Event.CONFIRM: "confirmed",
    Event.RESUME: "resumed",
    Event.ABORT: "aborted",
    Event.ROLL_BACK: "rolled back",
}
