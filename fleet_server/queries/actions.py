"""What a person can do with a rollout now, what it would do in devices, and why not when not."""

from collections.abc import Mapping
from typing import Final, Literal

from fleet_server.read_models import ActionView, Progress
from fleet_server.rollout import Event, Rollout, RolloutState, TransitionError, next_state

ActionName = Literal["start", "pause", "resume", "abort", "roll-back"]
_NAMES: Final[tuple[tuple[ActionName, str], ...]] = (
    ("start", "Start"),
    ("pause", "Pause"),
    ("resume", "Resume"),
    ("abort", "Abort"),
    ("roll-back", "Roll back"),
)


def actions(rollout: Rollout, progress: Mapping[str, Progress], *, owned: bool, first_timers: int) -> list[ActionView]:
    """All five actions, those that are refused with the reason.

    Args:
        rollout: The rollout.
        progress: The word for each device.
        owned: Whether any device is still its own.
        first_timers: Devices that ran no release before this one.
    """
    effects = _effects(rollout, progress)
    refused = {event: _refused(rollout, event, owned=owned) for event in effects}
    if first_timers and not refused[Event.ROLL_BACK]:
        refused[Event.ROLL_BACK] = f"{_devices(first_timers)} ran no release before: there is nothing to go back to."
    return [ActionView(name=name, label=label, effect=effects[Event(name)], refused=refused[Event(name)]) for name, label in _NAMES]


def _refused(rollout: Rollout, event: Event, *, owned: bool) -> str:
    state = rollout.state
    if event is Event.START and state is RolloutState.DRAFT:
        return ""
    try:
        following = next_state(state, event)
    except TransitionError:
        return f"A rollout that is {state.value} cannot be {_PARTICIPLES[event]}."
    if following is state:
        return f"It is {state.value} already."
    return "" if owned else "Its devices belong to a later rollout."


def _effects(rollout: Rollout, progress: Mapping[str, Progress]) -> dict[Event, str]:
    members = rollout.members
    not_ok = [device_id for device_id in members if progress[device_id] != "ok"]
    waiting = sum(len(wave) for wave in rollout.waves[rollout.wave :])
    first = len(rollout.waves[0]) if rollout.waves else 0
    accepted = f" and the failure of {', '.join(rollout.paused_for[:3])} is accepted" if rollout.paused_for else ""
    return {
        Event.START: f"{_devices(first)} of wave 1 get the release now; {_devices(waiting - first)} wait for later waves.",
        Event.PAUSE: f"No further device begins: {_devices(waiting)} wait; {_devices(len(members))} keep what they have.",
        Event.RESUME: f"It goes on with {_devices(waiting)} to come{accepted}.",
        Event.ABORT: f"It ends: {_devices(len(not_ok))} that are not ok go back, {_devices(waiting)} never begin.",
        Event.ROLL_BACK: f"{_devices(len(members))} go back to what they ran before.",
    }


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count:,} devices"


_PARTICIPLES: Final = {
    Event.START: "started",
    Event.PAUSE: "paused",
    Event.RESUME: "resumed",
    Event.ABORT: "aborted",
    Event.ROLL_BACK: "rolled back",
}
