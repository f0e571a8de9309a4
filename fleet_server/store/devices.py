"""Devices, their labels, and their last sign of life."""

from collections.abc import Mapping, Sequence
from typing import Final

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


def set_labels(connection: sa.Connection, device_id: str, labels: Mapping[str, str]) -> None:
    """Replace the labels of a device."""
    connection.execute(sa.delete(DEVICE_LABEL).where(DEVICE_LABEL.c.device_id == device_id))
    if labels:
        connection.execute(sa.insert(DEVICE_LABEL), [{"key": key, "value": value, "device_id": device_id} for key, value in labels.items()])


def select_ids(connection: sa.Connection, project: str, selection: Mapping[str, str]) -> list[str]:
    """Ids of the project's devices that carry all labels of the selection, in order."""
    query = sa.select(DEVICE.c.device_id).where(DEVICE.c.project == project).order_by(DEVICE.c.device_id)
    for key, value in selection.items():
        carries = sa.select(DEVICE_LABEL.c.device_id).where(DEVICE_LABEL.c.key == key, DEVICE_LABEL.c.value == value)
        query = query.where(DEVICE.c.device_id.in_(carries))
    return list(connection.scalars(query))


def labels_of(connection: sa.Connection, device_ids: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """Labels by device; of all devices when none are named."""
    query = sa.select(DEVICE_LABEL).order_by(DEVICE_LABEL.c.key)
    if device_ids is not None:
        query = query.where(DEVICE_LABEL.c.device_id.in_(device_ids))
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(query):
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
    """(project, public key in hex) of every device."""
    rows = connection.execute(sa.select(DEVICE.c.device_id, DEVICE.c.project, DEVICE.c.public_key))
    return {row.device_id: (row.project, row.public_key) for row in rows}


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
        insert_or_update(connection, DEVICE_SEEN, [{"device_id": device_id, "seen_at": at, "connected": True}])
    else:
        connection.execute(sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.device_id == device_id).values(connected=False))


def connected(connection: sa.Connection, device_id: str, is_connected: bool) -> None:
    """What the broker remembers about a connection; it says nothing about when the device was last alive."""
    connection.execute(sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.device_id == device_id).values(connected=is_connected))
