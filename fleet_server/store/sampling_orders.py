"""The operators' orders about rows that may leave a device, one per device; an order that is over counts as none."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from edgefleet.desired import PayloadOrder
from fleet_server.store.tables import SAMPLING_ORDER
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class StoredOrder:
    """An order as it goes to the device, when it was given (microseconds UTC), and by whom."""

    order: PayloadOrder
    ordered_at: int
    ordered_by: str


def put(connection: sa.Connection, device_id: str, stored: StoredOrder) -> None:
    """Keep a device's order in the place of the one before."""
    order = stored.order
    row = {
        "device_id": device_id,
        "rows_per_hour": order.rows_per_hour,
        "redact": msgspec.json.encode(order.redact).decode(),
        "bytes_per_day": order.bytes_per_day,
        "until": order.until,
        "ordered_at": stored.ordered_at,
        "ordered_by": stored.ordered_by[:120],
    }
    insert_or_update(connection, SAMPLING_ORDER, [row])


def remove(connection: sa.Connection, device_id: str) -> bool:
    """Forget a device's order; whether there was one."""
    return connection.execute(sa.delete(SAMPLING_ORDER).where(SAMPLING_ORDER.c.device_id == device_id)).rowcount > 0


def in_force(connection: sa.Connection, at: int, device_ids: Sequence[str] | None = None) -> dict[str, StoredOrder]:
    """Orders by device that are not over at `at`; of all devices when none are named."""
    query = sa.select(SAMPLING_ORDER).where(SAMPLING_ORDER.c.until > at).order_by(SAMPLING_ORDER.c.device_id)
    if device_ids is not None:
        query = query.where(SAMPLING_ORDER.c.device_id.in_(device_ids))
    return {row.device_id: _stored(row) for row in connection.execute(query)}


def over(connection: sa.Connection, at: int) -> list[str]:
    """Devices whose order has come to its end."""
    query = sa.select(SAMPLING_ORDER.c.device_id).where(SAMPLING_ORDER.c.until <= at)
    return list(connection.scalars(query.order_by(SAMPLING_ORDER.c.device_id)))


def _stored(row: sa.Row[tuple[object, ...]]) -> StoredOrder:
    values = row._mapping
    order = PayloadOrder(
        rows_per_hour=values["rows_per_hour"],
        redact=msgspec.json.decode(values["redact"], type=list[str]),
        bytes_per_day=values["bytes_per_day"],
        until=values["until"],
    )
    return StoredOrder(order, values["ordered_at"], values["ordered_by"])
