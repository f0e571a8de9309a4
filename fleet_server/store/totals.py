"""Running totals per device and project, so that no page has to sum windows."""

from dataclasses import dataclass, field

import msgspec
import sqlalchemy as sa

from edgefleet import latency
from edgefleet.messages import WindowBody
from fleet_server.store.tables import TOTALS
from fleet_server.store.upsert import insert_or_update


@dataclass
class Added:
    """What some windows add, and the newest of them."""

    rows: int = 0
    rejected: int = 0
    windows: int = 0
    last_at: int = -1
    last_latency: list[int] = field(default_factory=list)
    last_bundle: str = ""

    def add(self, body: WindowBody, end_at: int) -> None:
        """Count one window."""
        self.rows += body.answered
        self.rejected += sum(body.rejected.values())
        self.windows += 1
        if end_at >= self.last_at:
            self.last_at, self.last_bundle = end_at, body.bundle_digest
            # A window in which nothing was scored has no latency; the one before still says how fast the device is.
            self.last_latency = _latencies(body) or self.last_latency


def _latencies(body: WindowBody) -> list[int]:
    """The window's latencies in eighths of octaves, empty without one."""
    if body.latency_eighths:
        return list(body.latency_eighths)
    return latency.to_wire(latency.spread(body.latency_us))


def add(connection: sa.Connection, device_id: str, project: str, added: Added) -> None:
    """Add to the totals; the newest window's latency and bundle are kept."""
    known = connection.execute(sa.select(TOTALS).where(TOTALS.c.device_id == device_id, TOTALS.c.project == project)).first()
    newer = known is None or added.last_at >= known.last_window_at
    # The key keeps them apart from the bare lists of power-of-two buckets that earlier versions stored in the same place.
    kept = msgspec.json.encode({"eighths": added.last_latency}).decode()
    row = {
        "device_id": device_id,
        "project": project,
        "rows": added.rows + (known.rows if known is not None else 0),
        "rejected": added.rejected + (known.rejected if known is not None else 0),
        "windows": added.windows + (known.windows if known is not None else 0),
        "last_window_at": added.last_at if newer or known is None else known.last_window_at,
        "last_latency": kept if known is None or (newer and added.last_latency) else known.last_latency,
        "last_bundle": added.last_bundle if newer or known is None else known.last_bundle,
    }
    insert_or_update(connection, TOTALS, [row])
