"""Orders about rows that may leave a device, and the rows that came of them."""

from datetime import datetime

import sqlalchemy as sa

from edgefleet.errors import ArtifactError
from edgefleet.messages import PayloadBody, decode
from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.releases import versions
from fleet_server.read_observed import SampledRow, SamplingView
from fleet_server.store import Database, sampling_orders
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.sampling_orders import StoredOrder
from fleet_server.store.tables import DEVICE, TELEMETRY


def sampling(db: Database, now: datetime) -> list[SamplingView]:
    """All orders that are in force, by device."""
    with db.read() as connection:
        return [to_view(device_id, stored) for device_id, stored in sampling_orders.in_force(connection, to_micros(now)).items()]


def of_device(connection: sa.Connection, device_id: str, now: datetime) -> SamplingView | None:
    """The order of one device, None when none is in force."""
    stored = sampling_orders.in_force(connection, to_micros(now), [device_id]).get(device_id)
    return None if stored is None else to_view(device_id, stored)


def sampled_rows(db: Database, device_id: str, limit: int = 100) -> list[SampledRow]:
    """Rows that came from a device as they came in there, newest first.

    Raises:
        NotFoundError: There is no such device.
    """
    with db.read() as connection:
        if connection.execute(sa.select(DEVICE.c.device_id).where(DEVICE.c.device_id == device_id)).first() is None:
            raise NotFoundError("device", device_id)
        names = versions(connection)
        query = sa.select(TELEMETRY).where(TELEMETRY.c.device_id == device_id, TELEMETRY.c.kind == "payload")
        found: list[SampledRow] = []
        for record in connection.execute(query.order_by(TELEMETRY.c.received_at.desc(), TELEMETRY.c.seq.desc()).limit(limit)):
            try:
                body = decode(PayloadBody, record.body)
            except ArtifactError:
                continue  # stored by a version that wrote another form; ingest has checked what it stored itself
            found.append(
                SampledRow(
                    device_id=device_id,
                    release=names.get((record.project, body.bundle_digest), ""),
                    scored_at=from_micros(record.end_at),
                    received_at=from_micros(record.received_at),
                    row=body.row,
                    label=body.label,
                    score=body.score,
                )
            )
        return found


def to_view(device_id: str, stored: StoredOrder) -> SamplingView:
    """An order as people see it."""
    return SamplingView(
        device_id=device_id,
        rows_per_hour=stored.order.rows_per_hour,
        redact=list(stored.order.redact),
        bytes_per_day=stored.order.bytes_per_day,
        until_at=from_micros(stored.order.until),
        ordered_at=from_micros(stored.ordered_at),
        ordered_by=stored.ordered_by,
    )
