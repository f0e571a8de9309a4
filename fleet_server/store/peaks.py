"""The largest memory of each device's agent by hour of the server's clock; a few days of it are kept."""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.tables import DEVICE_PEAK
from fleet_server.store.upsert import insert_or_larger

HOUR_US: Final = 3_600_000_000
KEPT_US: Final = 72 * HOUR_US
_LARGEST: Final = (1 << 63) - 1


def note(connection: sa.Connection, device_id: str, rss_bytes: int, at: int) -> None:
    """A device said how much memory its agent takes."""
    bounded = min(max(rss_bytes, 0), _LARGEST)
    insert_or_larger(connection, DEVICE_PEAK, {"device_id": device_id, "from_at": at - at % HOUR_US, "rss_bytes": bounded}, "rss_bytes")


def within(connection: sa.Connection, device_id: str, since: int, until: int) -> int | None:
    """Largest memory in the whole hours of a period, None when it has none or nothing was told."""
    where = (DEVICE_PEAK.c.device_id == device_id, DEVICE_PEAK.c.from_at >= since, DEVICE_PEAK.c.from_at <= until - HOUR_US)
    found: int | None = connection.scalar(sa.select(sa.func.max(DEVICE_PEAK.c.rss_bytes)).where(*where))
    return found


def forget_old(connection: sa.Connection, at: int) -> None:
    """Delete what no comparison asks for any more."""
    connection.execute(sa.delete(DEVICE_PEAK).where(DEVICE_PEAK.c.from_at < at - KEPT_US))
