"""Messages that could not be used: counted for ever, kept in part, the newest only."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.tables import DEAD_LETTER, TALLY
from fleet_server.store.upsert import add_to

KEPT: Final = 1_000
HEAD_BYTES: Final = 512


def put(connection: sa.Connection, *, topic: str, payload: bytes, reason: str, at: int) -> None:
    """Keep the beginning of a message and why it was refused."""
    values = {"at": at, "topic": topic[:200], "reason": reason[:500], "size_bytes": len(payload), "head": payload[:HEAD_BYTES]}
    seq = connection.execute(sa.insert(DEAD_LETTER).values(**values)).inserted_primary_key
    if seq is not None:
        connection.execute(sa.delete(DEAD_LETTER).where(DEAD_LETTER.c.seq <= seq[0] - KEPT))
    count(connection, "put-aside")


def count(connection: sa.Connection, name: str) -> None:
    """Add one to a tally."""
    add_to(connection, TALLY, {"name": name, "count": 1}, ["count"])


def tallies(connection: sa.Connection) -> dict[str, int]:
    """All tallies by name."""
    return {row[0]: row[1] for row in connection.execute(sa.select(TALLY.c.name, TALLY.c["count"]))}
