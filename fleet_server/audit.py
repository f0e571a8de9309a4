"""The log of actions, by people and by the engine, as a hash chain.

Each entry's hash covers its own stored text and the hash before it, so that a changed, missing or inserted entry shows. A chain proves
nothing against somebody who owns the database and recomputes it; publish the head elsewhere if that matters.
"""

import hashlib
import re
from typing import Final

import msgspec
import sqlalchemy as sa

from fleet_server.store.tables import EVENT

GENESIS: Final = "0" * 64
MAX_DETAIL: Final = 2_000
_FACTS: Final = re.compile(r" \[facts ([0-9a-f]{64})\]\Z")
_APPENDING: Final = 0x65667365  # number of the lock in the database, the same for every server process


def record(connection: sa.Connection, at: int, *, actor: str, action: str, subject: tuple[str, str], detail: str = "") -> None:
    """Append one entry in the transaction of the action itself.

    Args:
        connection: A write transaction; it holds the lock, so nobody else appends between our reading the head and our insert.
        at: Microseconds UTC.
        actor: Who did it: a token's name, or `engine`, `drift`.
        action: What was done, one word: `start`, `promote`, `enroll` ...
        subject: Kind and id: ("rollout", "r-..."), ("device", ...), ("release", ...), ("project", ...).
        detail: One sentence; cut at MAX_DETAIL characters.
    """
    if connection.dialect.name == "postgresql":
        # Locking the newest entry would not do: who waited for it would read it again, and not the one that was appended meanwhile.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_APPENDING)))
    head = connection.execute(sa.select(EVENT.c.seq, EVENT.c.hash).order_by(EVENT.c.seq.desc()).limit(1)).first()
    seq, previous = (head.seq + 1, head.hash) if head is not None else (1, GENESIS)
    kind, key = subject
    entry = {
        "seq": seq,
        "at": at,
        "actor": actor[:120],
        "action": action,
        "subject_kind": kind,
        "subject": key,
        "detail": detail[:MAX_DETAIL],
    }
    connection.execute(sa.insert(EVENT).values(**entry, hash=_link(previous, *entry.values())))


def with_facts(detail: str, facts_digest: str) -> str:
    """A detail that ends with the digest of the facts that were decided on, so that the chain covers it; if need be the sentence is cut."""
    ending = f" [facts {facts_digest}]"
    return detail[: MAX_DETAIL - len(ending)] + ending


def without_facts(detail: str) -> tuple[str, str]:
    """A detail as a sentence, and the digest that it ends with, "" when there is none.

    >>> without_facts(with_facts("Wave 1 opens.", "ab" * 32)) == ("Wave 1 opens.", "ab" * 32)
    True
    """
    found = _FACTS.search(detail)
    return (detail, "") if found is None else (detail[: found.start()], found.group(1))


def verify(connection: sa.Connection) -> int:
    """Number of entries of an intact chain.

    Raises:
        ValueError: The first entry that does not fit, by its number.
    """
    previous, expected = GENESIS, 1
    for row in connection.execute(sa.select(EVENT).order_by(EVENT.c.seq)):
        values = (row.seq, row.at, row.actor, row.action, row.subject_kind, row.subject, row.detail)
        if row.seq != expected or row.hash != _link(previous, *values):
            raise ValueError(f"the log of actions is broken at entry {expected}: it was changed or removed after it was written")
        previous, expected = row.hash, expected + 1
    return expected - 1


def _link(previous: str, *values: int | str) -> str:
    return hashlib.sha256(msgspec.json.encode([previous, *values])).hexdigest()
