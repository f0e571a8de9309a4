"""Steps that every rule of evidence takes in the same way: open the next wave, stop when nothing can be decided."""

from fleet_server.rollout.model import Action, ActionKind, Rollout
from fleet_server.rollout.transitions import RolloutState


def open_next(rollout: Rollout, why: str) -> Action | None:
    """The next wave opens, None when there is none."""
    number = rollout.wave + 1
    if number > rollout.wave_count:
        return None
    size = len(rollout.waves[number - 1]) if rollout.course is None else rollout.course.added(number)
    return Action(ActionKind.OPEN_WAVE, number, f"{why} Wave {number} opens for {size} {'device' if size == 1 else 'devices'}.")


def undecidable(rollout: Rollout, reason: str) -> Action | None:
    """A decision that cannot be made pauses what can be paused; it never promotes."""
    stoppable = rollout.state in (RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.ROLLING_BACK)
    return Action(ActionKind.PAUSE, rollout.wave, reason) if stoppable else None
