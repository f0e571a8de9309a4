"""Merged input statistics: the pending ones that no drift round has seen, and those of the last few rounds for the histograms."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from edgefleet.statistics import InputStatistics
from fleet_server.store.tables import STATISTICS
from fleet_server.store.upsert import insert_or_update

PENDING: Final = 0
KEPT_ROUNDS: Final = 5


@dataclass(frozen=True)
class Counted:
    """Statistics of one device since the last round."""

    device_id: str
    statistics: InputStatistics
    windows: int


def add_pending(
    connection: sa.Connection, device_id: str, project: str, reference_digest: str, counted: InputStatistics, windows: int
) -> None:
    """Merge statistics into what waits for the next drift round."""
    where = (*_key(device_id, project, reference_digest), STATISTICS.c.round_at == PENDING)
    known = connection.execute(sa.select(STATISTICS.c.content, STATISTICS.c.windows).where(*where)).first()
    if known is not None:
        counted, windows = InputStatistics.from_bytes(known.content).merge(counted), windows + known.windows
    row = {"device_id": device_id, "project": project, "reference_digest": reference_digest, "round_at": PENDING}
    insert_or_update(connection, STATISTICS, [row | {"content": counted.to_bytes(), "windows": windows, "rows": counted.rows}])


def pending(connection: sa.Connection) -> dict[tuple[str, str], list[Counted]]:
    """What waits for a round, by (project, reference digest)."""
    found: dict[tuple[str, str], list[Counted]] = {}
    for row in connection.execute(sa.select(STATISTICS).where(STATISTICS.c.round_at == PENDING).order_by(STATISTICS.c.device_id)):
        counted = Counted(row.device_id, InputStatistics.from_bytes(row.content), row.windows)
        found.setdefault((row.project, row.reference_digest), []).append(counted)
    return found


def close_round(connection: sa.Connection, project: str, reference_digest: str, device_ids: list[str], round_at: int) -> None:
    """Move pending statistics of some devices to a round, and forget rounds that no histogram shows any more."""
    for device_id in device_ids:
        key = _key(device_id, project, reference_digest)
        connection.execute(sa.update(STATISTICS).where(*key, STATISTICS.c.round_at == PENDING).values(round_at=round_at))
        rounds = sa.select(STATISTICS.c.round_at).where(*key, STATISTICS.c.round_at != PENDING).order_by(STATISTICS.c.round_at.desc())
        kept = list(connection.scalars(rounds.limit(KEPT_ROUNDS)))
        connection.execute(sa.delete(STATISTICS).where(*key, STATISTICS.c.round_at != PENDING, STATISTICS.c.round_at < kept[-1]))


def recent(connection: sa.Connection, device_id: str, project: str, reference_digest: str) -> InputStatistics | None:
    """Statistics of the last rounds together, None when no round has seen the device."""
    merged: InputStatistics | None = None
    query = sa.select(STATISTICS.c.content).where(*_key(device_id, project, reference_digest), STATISTICS.c.round_at != PENDING)
    for content in connection.scalars(query):
        counted = InputStatistics.from_bytes(content)
        merged = counted if merged is None else merged.merge(counted)
    return merged


def _key(device_id: str, project: str, reference_digest: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (STATISTICS.c.device_id == device_id, STATISTICS.c.project == project, STATISTICS.c.reference_digest == reference_digest)


def drop_pending(connection: sa.Connection, device_id: str, project: str, reference_digest: str) -> None:
    """Forget what waits for a round of a reference that the device no longer runs."""
    where = (*_key(device_id, project, reference_digest), STATISTICS.c.round_at == PENDING)
    connection.execute(sa.delete(STATISTICS).where(*where))
