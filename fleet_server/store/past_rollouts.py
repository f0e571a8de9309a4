"""What the project's completed rollouts by evidence did: the history that the posterior rule and the comparisons go by."""

from typing import Final

import msgspec
import sqlalchemy as sa

from fleet_server.rollout.clips import clips_from
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.rollout.posterior import History
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.comparison_rows import GIVEN
from fleet_server.store.tables import COMPARISON, ROLLOUT, ROLLOUT_SUM

_LATEST: Final = 20
_SAMPLED: Final = 200  # devices of a rollout, enough for a deviation within some percent


def history(connection: sa.Connection, project: str) -> History:
    """Failures of devices exposed, over the newest completed rollouts."""
    completed = (ROLLOUT.c.project == project, ROLLOUT.c.state == RolloutState.COMPLETED.value, ROLLOUT.c.cell_us.is_not(None))
    newest = sa.select(ROLLOUT.c.rollout_id).where(*completed).order_by(ROLLOUT.c.created_at.desc()).limit(_LATEST)
    ids = list(connection.scalars(newest))
    if not ids:
        return History()
    sums = sa.select(sa.func.sum(ROLLOUT_SUM.c.failed), sa.func.sum(ROLLOUT_SUM.c.begun)).where(ROLLOUT_SUM.c.rollout_id.in_(ids))
    failed, begun = connection.execute(sums).one()
    return History(len(ids), int(failed or 0), int(begun or 0), tuple(sorted(clips_from(_differences(connection, ids), len(ids)).items())))


def _differences(connection: sa.Connection, rollout_ids: list[str]) -> dict[str, list[list[float]]]:
    """Gate -> differences of some devices of each rollout."""
    found: dict[str, list[list[float]]] = {name: [] for name in COMPARISONS}
    for name, rows in found.items():
        for rollout_id in rollout_ids:
            mine = (COMPARISON.c.rollout_id == rollout_id, COMPARISON.c.gate == name, COMPARISON.c.state == GIVEN)
            told = connection.scalars(sa.select(COMPARISON.c.differences).where(*mine).order_by(COMPARISON.c.device_id).limit(_SAMPLED))
            rows += [msgspec.json.decode(row, type=list[float]) for row in told]
    return found
