"""What a live page should ask for again. A hint, not a log: bounded, and whoever fell behind asks for everything."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.tables import CHANGE

KEPT: Final = 5_000


def touch(connection: sa.Connection, at: int, *topics: str) -> None:
    """Note that topics (`overview`, `rollout:<id>`, `device:<id>`, `drift`, `releases`, `devices`) have changed."""
    distinct = list(dict.fromkeys(topics))
    if distinct:
        connection.execute(sa.insert(CHANGE), [{"topic": topic, "at": at} for topic in distinct])


def after(connection: sa.Connection, seq: int, limit: int) -> list[tuple[int, str]]:
    """Changes with a higher number than `seq`, oldest first."""
    rows = connection.execute(sa.select(CHANGE.c.seq, CHANGE.c.topic).where(CHANGE.c.seq > seq).order_by(CHANGE.c.seq).limit(limit))
    return [(row.seq, row.topic) for row in rows]


def last(connection: sa.Connection) -> int:
    """Number of the newest change, 0 when there was none."""
    return int(connection.scalar(sa.select(sa.func.max(CHANGE.c.seq))) or 0)


def prune(connection: sa.Connection) -> None:
    """Forget all but the newest changes."""
    connection.execute(sa.delete(CHANGE).where(CHANGE.c.seq <= last(connection) - KEPT))
