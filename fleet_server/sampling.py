"""What people do about rows that may leave devices: order, stop; and the end that every order has.

This is one of two keys. The order travels in the device's signed desired state; a device whose own configuration does not allow it sends
nothing. Each order is checked, kept, signed, queued and logged in one transaction.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from edgefleet.desired import PayloadOrder
from edgefleet.errors import InputError
from edgefleet.manifest import parse_manifest
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.queries import NotFoundError
from fleet_server.queries.sampling import to_view
from fleet_server.read_observed import SamplingView
from fleet_server.selecting import resolved
from fleet_server.selection import Document, read_document, written
from fleet_server.services import Services
from fleet_server.store import assignments, changes, sampling_orders, selecting
from fleet_server.store.assignments import Director
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.sampling_orders import StoredOrder
from fleet_server.store.tables import DEVICE, RELEASE

MAX_DEVICES: Final = 1_000
MAX_ROWS_PER_HOUR: Final = 3_600.0
MAX_BYTES_PER_DAY: Final = 1 << 30
LONGEST: Final = timedelta(days=31)
# All names travel in one desired state, which has 64 KiB.
MAX_REDACT_CHARS: Final = 16_384
_RELEASES_LOOKED_AT: Final = 50


@dataclass(frozen=True)
class Whom:
    """Devices by id, or the selected ones of a project; never both, never all devices by leaving both out."""

    device_ids: Sequence[str] = ()
    project: str = ""
    selection: Document = ""


def order_sampling(
    services: Services, whom: Whom, *, rows_per_hour: float, redact: Sequence[str], bytes_per_day: int, until: datetime, actor: Actor
) -> list[SamplingView]:
    """Allow devices to send rows as they came in; the order before is replaced.

    Args:
        services: The server's parts.
        whom: Which devices.
        rows_per_hour: Rows of each device, above 0 and at most MAX_ROWS_PER_HOUR.
        redact: Inputs that must not leave, by name.
        bytes_per_day: Bytes of rows of each device.
        until: When the order ends by itself, aware, at most LONGEST from now.
        actor: Who orders it.

    Raises:
        InputError: A number is out of range, nobody is named, or an input to redact is in no release of the project.
        NotFoundError: There is no such device.
    """
    now = services.clock()
    order = PayloadOrder(
        rows_per_hour=_rate(rows_per_hour),
        redact=sorted(set(redact)),
        bytes_per_day=_bytes(bytes_per_day),
        until=_until(until, now),
    )
    at = to_micros(now)
    stored = StoredOrder(order, at, actor.name)
    detail = f"at most {order.rows_per_hour:g} rows an hour until {from_micros(order.until):%Y-%m-%d %H:%M} UTC, without "
    detail += ", ".join(order.redact) or "holding any input back"
    with services.db.write() as connection:
        chosen = _devices(connection, whom)
        for project in sorted(set(chosen.values())):
            _check_redacted(connection, project, order.redact)
        for device_id in chosen:
            sampling_orders.put(connection, device_id, stored)
            _issue(connection, services, device_id, at, actor.name, "sample-rows", detail)
    services.wake.set()
    return [to_view(device_id, stored) for device_id in chosen]


def stop_sampling(services: Services, whom: Whom, *, actor: Actor) -> list[str]:
    """Take the orders of devices back; a device without one is left alone.

    Returns:
        Devices whose order was taken back.

    Raises:
        InputError: Nobody is named.
        NotFoundError: There is no such device.
    """
    at = services.now_us()
    with services.db.write() as connection:
        stopped = [device_id for device_id in _devices(connection, whom) if sampling_orders.remove(connection, device_id)]
        for device_id in stopped:
            _issue(connection, services, device_id, at, actor.name, "stop-rows", "no row may leave it")
    services.wake.set()
    return stopped


def end_orders(services: Services) -> list[str]:
    """Take back the orders whose time is over; the devices concerned. Devices that are away end them by their own clock."""
    at = services.now_us()
    with services.db.read() as connection:
        if not sampling_orders.over(connection, at):
            return []
    with services.db.write() as connection:
        ended = [device_id for device_id in sampling_orders.over(connection, at) if sampling_orders.remove(connection, device_id)]
        for device_id in ended:
            _issue(connection, services, device_id, at, "scheduler", "stop-rows", "the time of the order is over")
    return ended


def _issue(connection: sa.Connection, services: Services, device_id: str, at: int, actor: str, action: str, detail: str) -> None:
    assignments.issue_again(connection, Director(services.director, services.config.fleet), device_id, at)
    audit.record(connection, at, actor=actor, action=action, subject=("device", device_id), detail=detail)
    changes.touch(connection, at, f"device:{device_id}")


def _devices(connection: sa.Connection, whom: Whom) -> dict[str, str]:
    """Device -> project, in order of the ids."""
    if bool(whom.device_ids) == bool(whom.selection):
        raise InputError("name devices, or a project and a selection; rows of a whole fleet are asked for by nobody in passing")
    if whom.selection:
        selection = resolved(connection, whom.project, read_document(whom.selection))
        ids = selecting.select_ids(connection, whom.project, selection)
        if not ids:
            raise InputError(f"no device of project {whom.project[:64]!r} is selected by {written(selection)}; nothing was changed")
    else:
        ids = sorted(set(whom.device_ids))
    if len(ids) > MAX_DEVICES:
        raise InputError(f"{len(ids)} devices exceed the limit of {MAX_DEVICES} for one order; choose fewer, by a narrower selection")
    here = (DEVICE.c.device_id.in_(ids), DEVICE.c.removed_at.is_(None))
    rows = connection.execute(sa.select(DEVICE.c.device_id, DEVICE.c.project).where(*here))
    found = {row.device_id: row.project for row in rows}
    for device_id in ids:
        if device_id not in found:
            raise NotFoundError("device", device_id)
    return {device_id: found[device_id] for device_id in ids}


def _check_redacted(connection: sa.Connection, project: str, redact: Sequence[str]) -> None:
    """A misspelt name would let the very input leave that somebody wanted to hold back."""
    if not redact:
        return
    query = sa.select(RELEASE.c.manifest).where(RELEASE.c.project == project).order_by(RELEASE.c.counter.desc())
    manifests = [parse_manifest(content) for content in connection.scalars(query.limit(_RELEASES_LOOKED_AT))]
    known = {column.name for manifest in manifests for column in manifest.inputs}
    for name in redact:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else "look at the manifest's inputs."
            raise InputError(
                f"input {name[:80]!r} is in none of the {len(manifests)} releases of project {project!r}: {hint} Nothing was changed."
            )
    if sum(map(len, redact)) > MAX_REDACT_CHARS:
        raise InputError(f"the names of {len(redact)} inputs have more than {MAX_REDACT_CHARS} characters; they must travel to the device")


def _rate(rows_per_hour: float) -> float:
    if not (math.isfinite(rows_per_hour) and 0 < rows_per_hour <= MAX_ROWS_PER_HOUR):
        raise InputError(f"{rows_per_hour} rows an hour are out of range, expected above 0 and at most {MAX_ROWS_PER_HOUR:g}")
    return rows_per_hour


def _bytes(bytes_per_day: int) -> int:
    if not 0 < bytes_per_day <= MAX_BYTES_PER_DAY:
        raise InputError(f"{bytes_per_day} bytes a day are out of range, expected 1 to {MAX_BYTES_PER_DAY}")
    return bytes_per_day


def _until(until: datetime, now: datetime) -> int:
    if until.tzinfo is None:
        raise InputError(f"until {until.isoformat()} has no time zone; write it as 2026-03-01T12:00:00Z")
    if not now < until <= now + LONGEST:
        raise InputError(f"until {until.isoformat()} is out of range: it must lie ahead, by at most {LONGEST.days} days")
    return to_micros(until)
