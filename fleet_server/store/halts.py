"""The newest signed document about a halt of the fleet."""

from dataclasses import dataclass

import sqlalchemy as sa

from edgefleet.halt import HaltPayload, sign_halt
from edgefleet.messages import encode
from edgefleet.topics import HALT
from fleet_server.store import outbox
from fleet_server.store.assignments import EPOCH, Director
from fleet_server.store.tables import DEVICE_FACT, FLEET_HALT
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class StoredHalt:
    """A document as it was signed.

    Attributes:
        since: Microseconds UTC: since when it is halted without a break; of a lift, when the halt that it ended had begun.
    """

    counter: int
    halted: bool
    since: int
    reason: str
    ordered_by: str
    issued_at: int
    message: bytes


def current(connection: sa.Connection, fleet: str) -> StoredHalt | None:
    """The newest document, None when there never was one."""
    columns = [FLEET_HALT.c[name] for name in StoredHalt.__dataclass_fields__]
    row = connection.execute(sa.select(*columns).where(FLEET_HALT.c.fleet == fleet)).first()
    return None if row is None else StoredHalt(*row)


def is_halted(connection: sa.Connection, fleet: str) -> bool:
    """Whether nothing may be decided and nothing assigned."""
    return bool(connection.scalar(sa.select(FLEET_HALT.c.halted).where(FLEET_HALT.c.fleet == fleet)))


def in_force(connection: sa.Connection) -> list[StoredHalt]:
    """Halts that are not lifted; one server has one fleet."""
    columns = [FLEET_HALT.c[name] for name in StoredHalt.__dataclass_fields__]
    return [StoredHalt(*row) for row in connection.execute(sa.select(*columns).where(FLEET_HALT.c.halted == sa.true()))]


def put(connection: sa.Connection, director: Director, *, halted: bool, reason: str, ordered_by: str, at: int) -> StoredHalt:
    """Sign, keep and queue the next document.

    Its counter is the time, but always above the last one: a server that was restored from an old copy can still lift a halt.
    """
    before = current(connection, director.fleet)
    counter = max(at, before.counter + 1 if before is not None else 1)
    payload = HaltPayload(
        format_version=1,
        fleet=director.fleet,
        epoch=EPOCH,
        counter=counter,
        issued_at=at,
        halted=halted,
        reason=reason,
        ordered_by=ordered_by,
    )
    message = encode(sign_halt(payload, director.key))
    since = before.since if before is not None and before.halted else at
    stored = StoredHalt(counter, halted, since, reason, ordered_by, at, message)
    insert_or_update(connection, FLEET_HALT, [{"fleet": director.fleet, "epoch": EPOCH, **vars(stored)}])
    outbox.put(connection, HALT, message, at)
    return stored


def heard(connection: sa.Connection, stored: StoredHalt) -> tuple[int, int]:
    """Devices that have said that they know this document, and documents that devices have refused since their starts."""
    knows = sa.func.sum(sa.case((DEVICE_FACT.c.halt_counter >= stored.counter, 1), else_=0))
    row = connection.execute(sa.select(knows, sa.func.sum(DEVICE_FACT.c.halts_refused))).one()
    return int(row[0] or 0), int(row[1] or 0)
