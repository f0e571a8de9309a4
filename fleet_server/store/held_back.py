"""Who was held back in the rollouts of a model so far."""

from typing import Final

import sqlalchemy as sa

from fleet_server.rollout.following import held_too_often
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import ROLLOUT, ROLLOUT_MEMBER

_LOOKED_AT: Final = 10
_NEVER_BEGAN: Final = (RolloutState.DRAFT.value, RolloutState.APPROVED.value, RolloutState.DISCARDED.value)


def too_often(connection: sa.Connection, project: str) -> frozenset[str]:
    """Devices that were held back in the last rollouts that selected them, and must not be again."""
    began = (ROLLOUT.c.project == project, ROLLOUT.c.cell_us.is_not(None), ROLLOUT.c.state.not_in(_NEVER_BEGAN))
    newest = sa.select(ROLLOUT.c.rollout_id).where(*began).order_by(ROLLOUT.c.created_at.desc()).limit(_LOOKED_AT)
    order = {rollout_id: place for place, rollout_id in enumerate(connection.scalars(newest))}
    if len(order) < 2:
        return frozenset()
    member = ROLLOUT_MEMBER.c
    held = sa.select(member.device_id).where(member.rollout_id.in_(order), member.wave == 0).distinct()
    query = sa.select(member.device_id, member.rollout_id, member.wave).where(member.rollout_id.in_(order), member.device_id.in_(held))
    waves: dict[str, list[tuple[int, int]]] = {}
    for row in connection.execute(query):
        waves.setdefault(row.device_id, []).append((order[row.rollout_id], row.wave))
    return held_too_often({device_id: [wave for _, wave in sorted(seen)] for device_id, seen in waves.items()})
