"""How far the telemetry of each device is stored without a gap, per start of the device."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from edgefleet.messages import Acked
from fleet_server.store.tables import ACK_STATE, TELEMETRY
from fleet_server.store.upsert import insert_or_update

MAX_BOOTS: Final = 4
_STEP: Final = 5_000


def advance(connection: sa.Connection, oldest: Mapping[tuple[str, str], int], at: int) -> None:
    """Move each (device, boot) on to the highest s such that all of its oldest sequence..s are stored or set aside.

    Args:
        connection: The transaction that stored the batch.
        oldest: The highest `oldest_seq` that the batch's messages of each (device, boot) named: what is older was stored or was dropped
            and counted by the device, so it is no gap.
        at: Microseconds UTC.
    """
    for (device_id, boot), named in sorted(oldest.items()):
        key = (ACK_STATE.c.device_id == device_id, ACK_STATE.c.boot == boot)
        known = connection.execute(sa.select(ACK_STATE.c.seq, ACK_STATE.c.oldest_seq).where(*key)).first()
        oldest_seq = max(named, known.oldest_seq if known is not None else 1)
        seq = max(known.seq if known is not None else 0, oldest_seq - 1)
        row = {
            "device_id": device_id,
            "boot": boot,
            "seq": _extend(connection, device_id, boot, seq),
            "oldest_seq": oldest_seq,
            "updated_at": at,
        }
        insert_or_update(connection, ACK_STATE, [row])


def of_devices(connection: sa.Connection, device_ids: list[str], at: int = 0) -> dict[str, Acked]:
    """What `acked` should say to each device at a time: its newest boots, at most MAX_BOOTS."""
    query = sa.select(ACK_STATE).where(ACK_STATE.c.device_id.in_(device_ids)).order_by(ACK_STATE.c.updated_at.desc(), ACK_STATE.c.boot)
    stored: dict[str, list[tuple[int, int]]] = {}
    for row in connection.execute(query):
        boots = stored.setdefault(row.device_id, [])
        if len(boots) < MAX_BOOTS:
            boots.append((int(row.boot), row.seq))
    return {device_id: Acked(stored=boots, at=at) for device_id, boots in stored.items()}


def _extend(connection: sa.Connection, device_id: str, boot: str, seq: int) -> int:
    while True:
        query = sa.select(TELEMETRY.c.seq).where(TELEMETRY.c.device_id == device_id, TELEMETRY.c.boot == boot, TELEMETRY.c.seq > seq)
        start = seq
        for following in connection.scalars(query.distinct().order_by(TELEMETRY.c.seq).limit(_STEP)):
            if following != seq + 1:
                return seq
            seq = following
        if seq - start < _STEP:
            return seq
