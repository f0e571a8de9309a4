"""What a device committed before, and whether the rollout that brought it was completed: where it can go back to."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from fleet_server.rollout.rollback_targets import Stay
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store import lifts
from fleet_server.store.tables import DEVICE_FACT, RELEASE, ROLLOUT, ROLLOUT_MEMBER

_BATCH: Final = 500


def of_devices(connection: sa.Connection, device_ids: Sequence[str], project: str) -> dict[str, list[Stay]]:
    """Device -> releases that it committed, oldest first; without devices that committed none."""
    member = ROLLOUT_MEMBER.c
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == member.rollout_id)
    joined = joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id)
    query = (
        sa.select(member.device_id, RELEASE.c.release_id, RELEASE.c.counter, RELEASE.c.bundle_digest, ROLLOUT.c.state)
        .select_from(joined)
        .where(member.project == project, member.committed_at.is_not(None), member.removed_at.is_(None))
        .order_by(member.committed_at)
    )
    done = RolloutState.COMPLETED.value
    found: dict[str, list[Stay]] = {}
    for piece in _pieces(device_ids):
        for row in connection.execute(query.where(member.device_id.in_(piece))):
            stay = Stay(row.release_id, row.counter, row.bundle_digest, row.state == done)
            found.setdefault(row.device_id, []).append(stay)
    return found


def of_releases(connection: sa.Connection, release_ids: Iterable[str | None]) -> dict[str | None, Stay]:
    """Releases as places to go to, by id, without those that do not exist."""
    columns = (RELEASE.c.release_id, RELEASE.c.counter, RELEASE.c.bundle_digest)
    found: dict[str | None, Stay] = {}
    for piece in _pieces(sorted({one for one in release_ids if one is not None})):
        for row in connection.execute(sa.select(*columns).where(RELEASE.c.release_id.in_(piece))):
            found[row.release_id] = Stay(row.release_id, row.counter, row.bundle_digest, completed=False)
    return found


def quarantined(connection: sa.Connection, device_id: str) -> list[str]:
    """Bundle digests that failed on the device, by its own report, without those that it may try again."""
    return quarantined_by_device(connection, [device_id]).get(device_id, [])


def quarantined_by_device(connection: sa.Connection, device_ids: Sequence[str]) -> dict[str, list[str]]:
    """Device -> what `quarantined` says of it; without devices that never reported."""
    found = {}
    for piece in _pieces(device_ids):
        lifted = lifts.by_device(connection, piece)
        query = sa.select(DEVICE_FACT.c.device_id, DEVICE_FACT.c.quarantined).where(DEVICE_FACT.c.device_id.in_(piece))
        for row in connection.execute(query):
            again = lifted.get(row.device_id, set())
            found[row.device_id] = [digest for digest in msgspec.json.decode(row.quarantined, type=list[str]) if digest not in again]
    return found


def refusing(connection: sa.Connection, bundle_digest: str, device_ids: Sequence[str] | None = None) -> set[str]:
    """Devices, of the given ones or of all, on whose own list of failed bundles this one is, and nobody has lifted that."""
    lifted = lifts.unanswered(DEVICE_FACT.c.device_id, bundle_digest)
    query = sa.select(DEVICE_FACT.c.device_id).where(DEVICE_FACT.c.quarantined.contains(bundle_digest), ~lifted)
    if device_ids is None:
        return set(connection.scalars(query))
    return {device_id for piece in _pieces(device_ids) for device_id in connection.scalars(query.where(DEVICE_FACT.c.device_id.in_(piece)))}


def _pieces(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _BATCH] for start in range(0, len(names), _BATCH))
