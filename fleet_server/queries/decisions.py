"""What the engine decided on: by rollout, and once more with the engine of today."""

from typing import Any

import msgspec
import sqlalchemy as sa

from fleet_server.queries.errors import NotFoundError
from fleet_server.read_decisions import DecidedView, Decision
from fleet_server.rollout.replay import again
from fleet_server.store import Database, decisions, rollouts


def decisions_of(db: Database, rollout_id: str) -> list[Decision]:
    """All actions of the engine in a rollout, oldest first.

    Raises:
        NotFoundError: No such rollout.
    """
    with db.read() as connection:
        if not rollouts.state_of(connection, rollout_id):
            raise NotFoundError("rollout", rollout_id)
        return decisions.of_rollout(connection, rollout_id)


def decision(db: Database, rollout_id: str, version: int) -> DecidedView:
    """One action of the engine, decided again.

    Raises:
        NotFoundError: The rollout has no decision of that version, or its facts were too large to be kept.
        StorageError: What is kept was changed after it was written.
    """
    with db.read() as connection:
        found = next((one for one in decisions.of_rollout(connection, rollout_id) if one.version == version), None)
        content = decisions.facts_of(connection, rollout_id, version)
    if found is None or content is None:
        raise NotFoundError(f"kept decision of rollout {rollout_id[:64]} at version", str(version))
    action = again(content)
    return DecidedView(
        version=version,
        decided_at=found.decided_at,
        action=found.action,
        facts_digest=found.facts_digest,
        again="" if action is None else action.kind.value,
        reason="" if action is None else action.reason,
        document=msgspec.json.decode(content, type=dict[str, Any]),
    )


def newest(connection: sa.Connection, rollout_id: str) -> Decision | None:
    """The last action of the engine, None before the first."""
    return next(reversed(decisions.of_rollout(connection, rollout_id)), None)
