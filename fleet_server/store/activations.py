"""What devices were told to run instead of what, and when: for the limits per day, and to see a device go to and fro."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout.flipflop import Change
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import ACTIVATION, ROLLOUT_MEMBER

KEPT_US: Final = 30 * 86_400_000_000
_BATCH: Final = 500
_DELETED_AT_ONCE: Final = 5_000


def note(
    connection: sa.Connection,
    device_id: str,
    project: str,
    *,
    before: str | None,
    after: str | None,
    rollout_id: str,
    forward: bool,
    at: int,
) -> None:
    """A device's desired release changes; the same release again is no change."""
    if before != after:
        row = {"device_id": device_id, "project": project, "at": at, "rollout_id": rollout_id, "forward": forward}
        connection.execute(sa.insert(ACTIVATION).values(from_release=before or "", to_release=after or "", **row))


def forget(connection: sa.Connection, device_id: str, project: str, rollout_id: str) -> None:
    """A device was never heard after a rollout asked it, and is asked no longer: nothing was changed there."""
    mine = (ACTIVATION.c.device_id == device_id, ACTIVATION.c.project == project, ACTIVATION.c.rollout_id == rollout_id)
    connection.execute(sa.delete(ACTIVATION).where(*mine, ACTIVATION.c.forward))


def of_devices(connection: sa.Connection, project: str, device_ids: Sequence[str], since: int) -> dict[str, list[Change]]:
    """Changes of the devices since a moment (microseconds UTC), oldest first; devices without one are left out."""
    found: dict[str, list[Change]] = {}
    for start in range(0, len(device_ids), _BATCH):
        piece = device_ids[start : start + _BATCH]
        where = (ACTIVATION.c.device_id.in_(piece), ACTIVATION.c.project == project, ACTIVATION.c.at >= since)
        for row in connection.execute(sa.select(ACTIVATION).where(*where).order_by(ACTIVATION.c.seq)):
            found.setdefault(row.device_id, []).append(Change(from_micros(row.at), row.from_release, row.to_release, row.forward))
    return found


def to_and_fro(connection: sa.Connection, rollout_id: str, wave: int, release_id: str, since: int, limit: int) -> list[str]:
    """Unasked devices of a rollout's open waves that were changed to or from its release twice or more since a moment, microseconds UTC."""
    member, change = ROLLOUT_MEMBER.c, ACTIVATION.c
    mine = (member.rollout_id == rollout_id, member.wave.between(1, wave), member.counter.is_(None), member.active == sa.true())
    same = sa.and_(change.device_id == member.device_id, change.project == member.project)
    about = (change.at >= since, sa.or_(change.from_release == release_id, change.to_release == release_id))
    query = sa.select(member.device_id).select_from(ROLLOUT_MEMBER.join(ACTIVATION, same)).where(*mine, *about)
    grouped = query.group_by(member.device_id).having(sa.func.count() >= 2).order_by(member.device_id).limit(limit)
    return list(connection.scalars(grouped))


def prune(connection: sa.Connection, at: int) -> None:
    """Forget what is older than any limit asks for."""
    old = sa.select(ACTIVATION.c.seq).where(ACTIVATION.c.at < at - KEPT_US).limit(_DELETED_AT_ONCE)
    connection.execute(sa.delete(ACTIVATION).where(ACTIVATION.c.seq.in_(old)))
