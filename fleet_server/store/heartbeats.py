"""The last heartbeat of each device: its counters, what it says it runs, and what it watches about itself."""

import math
from typing import Final

import msgspec
import sqlalchemy as sa

from edgefleet.messages import DeviceLoad, Heartbeat
from fleet_server.store.tables import DEVICE_LOAD, DEVICE_SEEN
from fleet_server.store.upsert import insert_or_update

MAX_PROJECTS: Final = 16
_LARGEST: Final = (1 << 63) - 1


def store(connection: sa.Connection, device_id: str, beat: Heartbeat, at: int, *, alive_at: int) -> None:
    """Keep the newest heartbeat, stored at `at`, as a sign of life of `alive_at`; its counters are bounded as a database's integers are."""
    running = dict(list(beat.running.items())[:MAX_PROJECTS])
    row = {
        "device_id": device_id,
        "seen_at": alive_at,
        "connected": True,
        "rows": _bounded(beat.rows),
        "spooled": _bounded(beat.spooled),
        "dropped": _bounded(beat.dropped),
        "rejected": _bounded(beat.rejected),
        "running": msgspec.json.encode({key[:64]: value[:64] for key, value in running.items()}).decode(),
    }
    insert_or_update(connection, DEVICE_SEEN, [row], growing="seen_at")
    if beat.load is not None:
        insert_or_update(connection, DEVICE_LOAD, [{"device_id": device_id, "heard_at": at, **_load(beat.load)}])


def _load(load: DeviceLoad) -> dict[str, int | float | None]:
    warmth, offset = load.temperature_c, load.clock_offset_ms
    return {
        "cpu_permille": _bounded(load.cpu_permille),
        "rss_bytes": _bounded(load.rss_bytes),
        "disk_free_bytes": None if load.disk_free_bytes is None else _bounded(load.disk_free_bytes),
        "temperature_c": warmth if warmth is not None and math.isfinite(warmth) else None,
        "clock_offset_ms": None if offset is None else min(max(offset, -_LARGEST), _LARGEST),
        "clock_jumps": _bounded(load.clock_jumps),
    }


def _bounded(count: int) -> int:
    return min(max(count, 0), _LARGEST)
