"""What devices tell for people to read: events and explained predictions, the newest of each device only."""

from typing import Final

import sqlalchemy as sa

from edgefleet.messages import EventBody
from fleet_server.store.tables import DEVICE_EVENT, EXPLANATION

KEPT_EVENTS: Final = 200
KEPT_EXPLANATIONS: Final = 20


def device_event(connection: sa.Connection, device_id: str, at: int, body: EventBody) -> None:
    """Keep an event of a device."""
    values = {"at": at, "name": body.name[:64], "detail": body.detail[:500], "bundle_digest": body.bundle_digest[:64]}
    connection.execute(sa.insert(DEVICE_EVENT).values(device_id=device_id, **values))
    _keep_newest(connection, DEVICE_EVENT, device_id, KEPT_EVENTS)


def explanation(connection: sa.Connection, device_id: str, project: str, bundle_digest: str, at: int, body: bytes) -> None:
    """Keep an explained prediction."""
    values = {"project": project, "bundle_digest": bundle_digest, "at": at, "body": body}
    connection.execute(sa.insert(EXPLANATION).values(device_id=device_id, **values))
    _keep_newest(connection, EXPLANATION, device_id, KEPT_EXPLANATIONS)


def _keep_newest(connection: sa.Connection, table: sa.Table, device_id: str, kept: int) -> None:
    newest = sa.select(table.c.seq).where(table.c.device_id == device_id).order_by(table.c.seq.desc()).limit(1).offset(kept)
    oldest = connection.scalar(newest)
    if oldest is not None:
        connection.execute(sa.delete(table).where(table.c.device_id == device_id, table.c.seq <= oldest))
