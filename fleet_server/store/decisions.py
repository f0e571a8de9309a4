"""What the engine decided on, kept beside each action: enough to decide it again, as long as it is small.

The sums of a rollout by evidence are a few kilobytes whatever the fleet; facts that name every device may be too large, and then only
their digest is kept.
"""

import zlib
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server.read_decisions import Decision
from fleet_server.rollout import Action, Facts
from fleet_server.rollout.replay import digest_of, document
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import DECISION

MOST_BYTES: Final = 262_144  # compressed
_MOST_READ: Final = 64 * MOST_BYTES


def keep(connection: sa.Connection, found: Stored, known: Facts, action: Action, now: datetime) -> str:
    """Keep what an action was decided on, in its transaction; the digest."""
    content = document(found.rollout, known, now)
    digest, packed = digest_of(content), zlib.compress(content)
    connection.execute(
        sa.insert(DECISION).values(
            rollout_id=found.rollout.rollout_id,
            version=found.version,
            decided_at=to_micros(now),
            action=action.kind.value,
            facts_digest=digest,
            facts=packed if len(packed) <= MOST_BYTES else None,
        )
    )
    return digest


def of_rollout(connection: sa.Connection, rollout_id: str) -> list[Decision]:
    """All of a rollout, oldest first."""
    d = DECISION.c
    query = sa.select(d.version, d.decided_at, d.action, d.facts_digest, d.facts.is_not(None).label("kept"))
    rows = connection.execute(query.where(d.rollout_id == rollout_id).order_by(d.version))
    return [Decision(row.version, from_micros(row.decided_at), row.action, row.facts_digest, bool(row.kept)) for row in rows]


def facts_of(connection: sa.Connection, rollout_id: str, version: int) -> bytes | None:
    """The document of one decision, for `replay.again`; None: there is none of that version, or it was too large to be kept.

    Raises:
        StorageError: It was changed after it was written.
    """
    where = (DECISION.c.rollout_id == rollout_id, DECISION.c.version == version)
    row = connection.execute(sa.select(DECISION.c.facts, DECISION.c.facts_digest).where(*where)).first()
    if row is None or row.facts is None:
        return None
    try:
        content = zlib.decompressobj().decompress(row.facts, _MOST_READ)
        intact = digest_of(content) == row.facts_digest
    except (zlib.error, ValueError) as err:
        raise StorageError(f"what rollout {rollout_id} was decided on at version {version} cannot be read: {str(err)[:200]}") from err
    if not intact:
        raise StorageError(f"what rollout {rollout_id} was decided on at version {version} was changed after it was written")
    return content
