"""A device that goes to and fro between two releases asks for a person: the rollout that would change it once more is paused."""

from typing import Final

from fleet_server.rollout import Action, ActionKind, RolloutState, apply
from fleet_server.scheduler.changing import held_up
from fleet_server.scheduler.steering import ENGINE, note_action
from fleet_server.services import Services
from fleet_server.store import rollouts

_NAMED: Final = 3


def pause_flipflop(services: Services, rollout_id: str) -> bool:
    """Pause a running rollout whose next devices went to and fro between the same two releases; whether it was."""
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        if stored is None or stored.rollout.state is not RolloutState.RUNNING or not stored.rollout.wave:
            return False
        waiting = rollouts.unasked_members(connection, rollout_id, stored.rollout.wave)
        answers = held_up(connection, stored.rollout, waiting, now)
        bad = sorted(device_id for device_id, answer in answers.items() if answer.word == "flip-flop")
        if not bad:
            return False
        reason = f"Pause: {answers[bad[0]].sentence} on {len(bad)} devices ({', '.join(bad[:_NAMED])})."
        paused = apply(stored.rollout, Action(ActionKind.PAUSE, stored.rollout.wave, reason), now)
        rollouts.save(connection, stored, paused, None)
        note_action(connection, paused, ActionKind.PAUSE.value, ENGINE, reason, now)
    return True
