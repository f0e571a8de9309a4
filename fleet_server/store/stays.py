"""What a device committed before, and whether the rollout that brought it was completed: where it can go back to."""

from collections.abc import Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from fleet_server.rollout.rollback_targets import Stay
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store import lifts
from fleet_server.store.tables import DEVICE_FACT, RELEASE, ROLLOUT, ROLLOUT_MEMBER

_BATCH: Final = 500


def of_device(connection: sa.Connection, device_id: str, project: str) -> list[Stay]:
    """Releases that the device committed, oldest first."""
    member = ROLLOUT_MEMBER.c
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == member.rollout_id)
    joined = joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id)
    query = (
        sa.select(RELEASE.c.release_id, RELEASE.c.counter, RELEASE.c.bundle_digest, ROLLOUT.c.state)
        .select_from(joined)
        .where(member.device_id == device_id, member.project == project, member.committed_at.is_not(None), member.removed_at.is_(None))
        .order_by(member.committed_at)
    )
    done = RolloutState.COMPLETED.value
    return [Stay(row.release_id, row.counter, row.bundle_digest, row.state == done) for row in connection.execute(query)]


def of_release(connection: sa.Connection, release_id: str | None) -> Stay | None:
    """A release as a place to go to, None when there is none of that id."""
    if release_id is None:
        return None
    columns = (RELEASE.c.release_id, RELEASE.c.counter, RELEASE.c.bundle_digest)
    row = connection.execute(sa.select(*columns).where(RELEASE.c.release_id == release_id)).first()
    return None if row is None else Stay(row.release_id, row.counter, row.bundle_digest, completed=False)


def quarantined(connection: sa.Connection, device_id: str) -> list[str]:
    """Bundle digests that failed on the device, by its own report, without those that it may try again."""
    text = connection.scalar(sa.select(DEVICE_FACT.c.quarantined).where(DEVICE_FACT.c.device_id == device_id))
    lifted = lifts.waiting(connection, device_id)
    return [] if text is None else [digest for digest in msgspec.json.decode(text, type=list[str]) if digest not in lifted]


def refusing(connection: sa.Connection, bundle_digest: str, device_ids: Sequence[str] | None = None) -> set[str]:
    """Devices, of the given ones or of all, on whose own list of failed bundles this one is, and nobody has lifted that."""
    lifted = lifts.unanswered(DEVICE_FACT.c.device_id, bundle_digest)
    query = sa.select(DEVICE_FACT.c.device_id).where(DEVICE_FACT.c.quarantined.contains(bundle_digest), ~lifted)
    if device_ids is None:
        return set(connection.scalars(query))
    pieces = (device_ids[start : start + _BATCH] for start in range(0, len(device_ids), _BATCH))
    return {device_id for piece in pieces for device_id in connection.scalars(query.where(DEVICE_FACT.c.device_id.in_(piece)))}
