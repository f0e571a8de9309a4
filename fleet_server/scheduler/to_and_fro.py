"""A device that goes to and fro between two releases asks for a person: the rollout that would change it once more is paused."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout import Action, ActionKind, RolloutState, apply
from fleet_server.rollout.flipflop import WEEK, Answer
from fleet_server.scheduler.changing import held_up
from fleet_server.scheduler.steering import ENGINE, note_action
from fleet_server.services import Services
from fleet_server.store import activations, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.rollouts import Stored

_NAMED: Final = 3
_LOOKED_AT: Final = 100


def pause_flipflop(services: Services, rollout_id: str) -> bool:
    """Pause a running rollout whose next devices went to and fro between the same two releases; whether it was."""
    now = services.clock()
    with services.db.read() as connection:
        if not _going_to_and_fro(connection, rollouts.load(connection, rollout_id), now):
            return False
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        answers = _going_to_and_fro(connection, stored, now)
        if stored is None or not answers:
            return False
        bad = sorted(answers)
        reason = f"Pause: {answers[bad[0]].sentence} on {len(bad)} devices ({', '.join(bad[:_NAMED])})."
        paused = apply(stored.rollout, Action(ActionKind.PAUSE, stored.rollout.wave, reason), now)
        rollouts.save(connection, stored, paused, None)
        note_action(connection, paused, ActionKind.PAUSE.value, ENGINE, reason, now)
    return True


def _going_to_and_fro(connection: sa.Connection, stored: Stored | None, now: datetime) -> dict[str, Answer]:
    if stored is None or stored.rollout.state is not RolloutState.RUNNING or not stored.rollout.wave:
        return {}
    value, since = stored.rollout, to_micros(now - WEEK)
    ids = activations.to_and_fro(connection, value.rollout_id, value.wave, value.release_id, since, _LOOKED_AT)
    return {device_id: answer for device_id, answer in held_up(connection, value, ids, now).items() if answer.word == "flip-flop"}
