"""Messages that must be published, written in the transaction of their cause and deleted after the broker has them."""

from dataclasses import dataclass

import sqlalchemy as sa

from fleet_server.store.tables import LEASE, OUTBOX
from fleet_server.store.upsert import insert_or_ignore


@dataclass(frozen=True)
class Waiting:
    """One message that waits."""

    seq: int
    topic: str
    payload: bytes
    retain: bool


def put(connection: sa.Connection, topic: str, payload: bytes, at: int) -> None:
    """Queue a retained message. An older one of the same topic that still waits goes: only the newest state means anything."""
    connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.topic == topic))
    connection.execute(sa.insert(OUTBOX).values(topic=topic, payload=payload, retain=True, created_at=at))


def lease(connection: sa.Connection, owner: str, at: int, lease_us: int) -> bool:
    """Whether `owner` may publish now: one relay at a time keeps the order."""
    insert_or_ignore(connection, LEASE, [{"name": "relay", "owner": owner, "until": 0}])
    free = sa.or_(LEASE.c.until <= at, LEASE.c.owner == owner)
    taken = sa.update(LEASE).where(LEASE.c.name == "relay", free).values(owner=owner, until=at + lease_us)
    return connection.execute(taken).rowcount == 1


def waiting(connection: sa.Connection, limit: int) -> list[Waiting]:
    """The oldest messages that wait."""
    rows = connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.seq).limit(limit))
    return [Waiting(row.seq, row.topic, row.payload, row.retain) for row in rows]


def any_waiting(connection: sa.Connection) -> bool:
    """Whether a message waits."""
    return connection.execute(sa.select(OUTBOX.c.seq).limit(1)).first() is not None


def done(connection: sa.Connection, seqs: list[int]) -> None:
    """The broker has these; a crash before this publishes them again, which does no harm."""
    connection.execute(sa.delete(OUTBOX).where(OUTBOX.c.seq.in_(seqs)))
