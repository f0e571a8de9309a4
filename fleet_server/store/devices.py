"""Devices, their labels, and their last sign of life."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.store.tables import DEVICE, DEVICE_LABEL, DEVICE_SEEN
from fleet_server.store.upsert import insert_or_ignore, insert_or_update

_BATCH: Final = 500


def insert(
    connection: sa.Connection, *, device_id: str, project: str, public_key: str, labels: Mapping[str, str], at: int, actor: str
) -> None:
    """Keep a device that is not there yet."""
    connection.execute(
        sa.insert(DEVICE).values(device_id=device_id, project=project, public_key=public_key, enrolled_at=at, enrolled_by=actor)
    )
    set_labels(connection, device_id, labels)


def lock(connection: sa.Connection, device_id: str) -> sa.Row[Any] | None:
    """(project, public_key, removed_at) of a device, None when there never was one; nobody else changes it until the transaction ends.

    Who gives a device something and who takes it out of the fleet lock the same row, so that one of them sees what the other did. Rows that
    only name the device may be added meanwhile.
    """
    columns: sa.Select[Any] = sa.select(DEVICE.c.project, DEVICE.c.public_key, DEVICE.c.removed_at)
    return connection.execute(columns.where(DEVICE.c.device_id == device_id).with_for_update(key_share=True)).first()


def is_removed(connection: sa.Connection, device_id: str) -> bool:
    """Whether the device was taken out of the fleet; the answer stays true until the transaction ends."""
    row = lock(connection, device_id)
    return row is None or row.removed_at is not None


def set_labels(connection: sa.Connection, device_id: str, labels: Mapping[str, str]) -> None:
    """Replace the labels of a device."""
    connection.execute(sa.delete(DEVICE_LABEL).where(DEVICE_LABEL.c.device_id == device_id))
    if labels:
        connection.execute(sa.insert(DEVICE_LABEL), [{"key": key, "value": value, "device_id": device_id} for key, value in labels.items()])


def labels_of(connection: sa.Connection, device_ids: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """Labels by device; of all devices when none are named."""
    query = sa.select(DEVICE_LABEL).order_by(DEVICE_LABEL.c.key)
    queries = [query]
    if device_ids is not None:
        pieces = [device_ids[start : start + _BATCH] for start in range(0, len(device_ids), _BATCH)]
        queries = [query.where(DEVICE_LABEL.c.device_id.in_(piece)) for piece in pieces]
    found: dict[str, dict[str, str]] = {}
    for one in queries:
        for row in connection.execute(one):
            found.setdefault(row.device_id, {})[row.key] = row.value
    return found


def label(connection: sa.Connection, key: str, device_ids: Sequence[str]) -> dict[str, str]:
    """One label by device, of those that have it."""
    found: dict[str, str] = {}
    for start in range(0, len(device_ids), _BATCH):
        where = (DEVICE_LABEL.c.key == key, DEVICE_LABEL.c.device_id.in_(device_ids[start : start + _BATCH]))
        query = sa.select(DEVICE_LABEL.c.device_id, DEVICE_LABEL.c.value).where(*where)
        found |= {row.device_id: row.value for row in connection.execute(query)}
    return found


def public_keys(connection: sa.Connection) -> dict[str, tuple[str, str]]:
    """(project, public key in hex) of every device of the fleet."""
    query = sa.select(DEVICE.c.device_id, DEVICE.c.project, DEVICE.c.public_key).where(DEVICE.c.removed_at.is_(None))
    return {row.device_id: (row.project, row.public_key) for row in connection.execute(query)}


def removed_ids(connection: sa.Connection) -> frozenset[str]:
    """Devices that were taken out of the fleet."""
    return frozenset(connection.scalars(sa.select(DEVICE.c.device_id).where(DEVICE.c.removed_at.is_not(None))))


def seen(connection: sa.Connection, moments: Mapping[str, int]) -> None:
    """A sign of life of each device; a connected flag that presence said otherwise is set again."""
    insert_or_ignore(connection, DEVICE_SEEN, [{"device_id": d, "seen_at": at, "connected": True} for d, at in sorted(moments.items())])
    if moments:
        later = (DEVICE_SEEN.c.device_id == sa.bindparam("who"), DEVICE_SEEN.c.seen_at < sa.bindparam("moment"))
        statement = sa.update(DEVICE_SEEN).where(*later).values(seen_at=sa.bindparam("moment"))
        connection.execute(statement, [{"who": device_id, "moment": at} for device_id, at in sorted(moments.items())])


def presence(connection: sa.Connection, device_id: str, connected: bool, at: int) -> None:
    """What the broker says about the connection; being lost is no sign of life."""
    if connected:
        insert_or_update(connection, DEVICE_SEEN, [{"device_id": device_id, "seen_at": at, "connected": True}], growing="seen_at")
    else:
        connection.execute(sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.device_id == device_id).values(connected=False))


def clock_was_set_back(connection: sa.Connection, at: int, by_us: int) -> None:
    """Signs of life that are of the future now: otherwise who dies today would look alive until the clock is there again."""
    moment = DEVICE_SEEN.c.seen_at - by_us
    statement = sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.seen_at > at)
    connection.execute(statement.values(seen_at=sa.case((moment < at, moment), else_=at)))


def connected(connection: sa.Connection, device_id: str, is_connected: bool) -> None:
    """What the broker remembers about a connection; it says nothing about when the device was last alive."""
    connection.execute(sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.device_id == device_id).values(connected=is_connected))
