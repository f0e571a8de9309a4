"""The last heartbeat of each device: its load and what it says it runs."""

from typing import Final

import msgspec
import sqlalchemy as sa

from edgefleet.messages import Heartbeat
from fleet_server.store.tables import DEVICE_SEEN
from fleet_server.store.upsert import insert_or_update

MAX_PROJECTS: Final = 16
_LARGEST: Final = (1 << 63) - 1


def store(connection: sa.Connection, device_id: str, beat: Heartbeat, at: int) -> None:
    """Keep the newest heartbeat; its counters are bounded because a database's integers are."""
    running = dict(list(beat.running.items())[:MAX_PROJECTS])
    row = {
        "device_id": device_id,
        "seen_at": at,
        "connected": True,
        "rows": _bounded(beat.rows),
        "spooled": _bounded(beat.spooled),
        "dropped": _bounded(beat.dropped),
        "rejected": _bounded(beat.rejected),
        "running": msgspec.json.encode({key[:64]: value[:64] for key, value in running.items()}).decode(),
    }
    insert_or_update(connection, DEVICE_SEEN, [row])


def _bounded(count: int) -> int:
    return min(max(count, 0), _LARGEST)
