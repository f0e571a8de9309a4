"""What the project's completed rollouts by evidence did: the history that the posterior rule compares with."""

from typing import Final

import sqlalchemy as sa

from fleet_server.rollout.posterior import History
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import ROLLOUT, ROLLOUT_SUM

_LATEST: Final = 20


def history(connection: sa.Connection, project: str) -> History:
    """Failures of devices exposed, over the newest completed rollouts."""
    completed = (ROLLOUT.c.project == project, ROLLOUT.c.state == RolloutState.COMPLETED.value, ROLLOUT.c.cell_us.is_not(None))
    newest = sa.select(ROLLOUT.c.rollout_id).where(*completed).order_by(ROLLOUT.c.created_at.desc()).limit(_LATEST)
    ids = list(connection.scalars(newest))
    if not ids:
        return History()
    sums = sa.select(sa.func.sum(ROLLOUT_SUM.c.failed), sa.func.sum(ROLLOUT_SUM.c.begun)).where(ROLLOUT_SUM.c.rollout_id.in_(ids))
    failed, begun = connection.execute(sums).one()
    return History(len(ids), int(failed or 0), int(begun or 0))
