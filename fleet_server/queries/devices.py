"""Devices: what each should run, says it runs, attested, and whether it is well."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from edgefleet.errors import InputError
from fleet_server.queries.drift import of_device as drift_of_device
from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.events import of_device as events_of_device
from fleet_server.queries.explanations import newest as newest_explanations
from fleet_server.queries.latency import quantile_ms, stored
from fleet_server.queries.observed import PERIOD_HOURS, load_of, within
from fleet_server.queries.releases import versions
from fleet_server.queries.sampling import of_device as sampling_of_device
from fleet_server.read_models import DeviceRow, DeviceView
from fleet_server.selecting import resolved
from fleet_server.selection import Document, Label, read_document
from fleet_server.store import Database, lifts, selecting
from fleet_server.store import devices as device_rows
from fleet_server.store.drift_rows import Alarm, open_alarms
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import (
    ASSIGNMENT,
    ATTESTATION,
    DEVICE,
    DEVICE_FACT,
    DEVICE_SEEN,
    RELEASE_FLOOR,
    REPORTED,
    TOTALS,
)

NEVER_REPORTED = "idle"
_FEW = 500  # devices that are asked by id; the lifted quarantines of a whole fleet are few too
_EVENTS = 50
_HERE = DEVICE.c.removed_at.is_(None)


@dataclass(frozen=True)
class _Lookups:
    labels: Mapping[str, dict[str, str]]
    versions: Mapping[tuple[str, str], str]
    alarms: Mapping[str, Alarm]
    lifting: Mapping[str, set[str]]


def devices(
    db: Database,
    now: datetime,
    *,
    project: str | None = None,
    label: tuple[str, str] | None = None,
    selection: Document = "",
    limit: int = 500,
    after: str = "",
) -> list[DeviceRow]:
    """Devices of the fleet by id, without those that were removed.

    Args:
        db: The database.
        now: Aware UTC.
        project: Only of this project.
        label: Only with this (key, value).
        selection: Only these of the project; an expression, empty: all.
        limit: At most so many.
        after: Only ids behind this one: the next page.

    Raises:
        InputError: A selection that is none, or without a project.
        ConfigError: A selection that names what the project does not have.
    """
    del now  # ages are the reader's business; a row holds times
    with db.read() as connection:
        query = _query().where(_HERE, DEVICE.c.device_id > after).order_by(DEVICE.c.device_id).limit(limit)
        if project is not None:
            query = query.where(DEVICE.c.project == project)
        if label is not None:
            query = query.where(selecting.where(Label(label[0], (label[1],))))
        if selection:
            if project is None:
                raise InputError("a selection needs the project whose labels and groups it means; name it too")
            query = query.where(selecting.where(resolved(connection, project, read_document(selection))))
        return to_rows(connection, query)


def device(db: Database, device_id: str, now: datetime, hours: int = PERIOD_HOURS) -> DeviceView:
    """One device with its log, drift, newest explanation, load, and what it observed in the last hours.

    Raises:
        NotFoundError: There is none of that id.
    """
    with db.read() as connection:
        rows = to_rows(connection, _query().where(DEVICE.c.device_id == device_id))
        if not rows:
            raise NotFoundError("device", device_id)
        project: str = connection.execute(sa.select(DEVICE.c.project).where(DEVICE.c.device_id == device_id)).scalar_one()
        explained = newest_explanations(connection, device_id=device_id, limit=1)
        found = drift_of_device(connection, project, device_id)
        return DeviceView(
            device=rows[0],
            events=events_of_device(connection, device_id, _EVENTS),
            drift=found[0] if found is not None else None,
            histograms=found[1] if found is not None else [],
            explanation=explained[0] if explained else None,
            load=load_of(connection, device_id),
            observed=within(connection, now, project, device_id, hours),
            sampling=sampling_of_device(connection, device_id, now),
        )


def all_rows(connection: sa.Connection) -> list[DeviceRow]:
    """Every device of the fleet in the caller's snapshot."""
    return to_rows(connection, _query().where(_HERE).order_by(DEVICE.c.device_id))


def to_rows(connection: sa.Connection, query: sa.Select[Any]) -> list[DeviceRow]:
    """Run a query of `_query`'s form."""
    found = connection.execute(query).all()
    ids = [row.device_id for row in found]
    lookups = _Lookups(
        device_rows.labels_of(connection, ids),
        versions(connection),
        open_alarms(connection),
        lifts.by_device(connection, ids if len(ids) <= _FEW else None),
    )
    return [_row(row, lookups) for row in found]


def _query() -> sa.Select[Any]:
    joined: Any = DEVICE.outerjoin(DEVICE_SEEN, DEVICE_SEEN.c.device_id == DEVICE.c.device_id)
    joined = joined.outerjoin(DEVICE_FACT, DEVICE_FACT.c.device_id == DEVICE.c.device_id)
    joined = joined.outerjoin(RELEASE_FLOOR, RELEASE_FLOOR.c.project == DEVICE.c.project)
    for table in (ASSIGNMENT, REPORTED, ATTESTATION, TOTALS):
        joined = joined.outerjoin(table, sa.and_(table.c.device_id == DEVICE.c.device_id, table.c.project == DEVICE.c.project))
    return sa.select(
        DEVICE.c.device_id,
        DEVICE.c.project,
        DEVICE.c.removed_at,
        DEVICE_SEEN.c.seen_at,
        DEVICE_SEEN.c.connected,
        DEVICE_FACT.c.quarantined,
        DEVICE_FACT.c.runtimes,
        DEVICE_FACT.c.floor,
        ATTESTATION.c.floor.label("floor_attested"),
        RELEASE_FLOOR.c.counter.label("floor_in_force"),
        ASSIGNMENT.c.bundle_digest.label("desired"),
        REPORTED.c.bundle_digest.label("running"),
        REPORTED.c.state,
        REPORTED.c.reason,
        REPORTED.c.subject_digest.label("subject"),
        ATTESTATION.c.bundle_digest.label("attested"),
        TOTALS.c.rows.label("rows_total"),
        TOTALS.c.last_latency,
    ).select_from(joined)


def _row(row: sa.Row[Any], lookups: _Lookups) -> DeviceRow:
    return DeviceRow(
        device_id=row.device_id,
        project=row.project,
        labels=lookups.labels.get(row.device_id, {}),
        connected=bool(row.connected),
        last_seen_at=None if row.seen_at is None else from_micros(row.seen_at),
        desired_digest=row.desired or "",
        desired_release=lookups.versions.get((row.project, row.desired or ""), ""),
        running_digest=row.running or "",
        running_release=lookups.versions.get((row.project, row.running or ""), ""),
        attested_digest=row.attested or "",
        state=row.state or NEVER_REPORTED,
        quarantined=msgspec.json.decode(row.quarantined, type=list[str]) if row.quarantined else [],
        runtimes=msgspec.json.decode(row.runtimes, type=list[str]) if row.runtimes else [],
        rows_total=row.rows_total or 0,
        latency_p50_ms=quantile_ms(stored(row.last_latency or ""), 0.5),
        drifting=row.device_id in lookups.alarms,
        why=_why(row, lookups),
        lifting=sorted(lookups.lifting.get(row.device_id, ())),
        removed_at=None if row.removed_at is None else from_micros(row.removed_at),
        floor=row.floor or 0,
        floor_attested=row.floor_attested or 0,
        floor_in_force=row.floor_in_force or 0,
    )


def _why(row: sa.Row[Any], lookups: _Lookups) -> str:
    """One sentence: well, or why not; the gravest thing first."""
    if row.removed_at is not None:
        return f"Removed from the fleet on {from_micros(row.removed_at):%Y-%m-%d %H:%M} UTC; what is shown is its past."
    if row.seen_at is None:
        return "Enrolled; it has never reported."
    running = lookups.versions.get((row.project, row.running or ""), "")
    subject = lookups.versions.get((row.project, row.subject or ""), "") or (row.subject or "")[:12]
    reason = f": {row.reason}" if row.reason else ""
    if row.state in ("rolled-back", "quarantined", "refused"):
        return f"{_FAILED[row.state]} {subject}{reason}. It runs {running or 'nothing'}."
    if not row.connected:
        return f"Not connected. It last said that it runs {running or 'nothing'}."
    alarm = lookups.alarms.get(row.device_id)
    if alarm is not None:
        return f"Runs {running or 'nothing'}; its inputs differ from its peers: {', '.join(alarm.features[:3]) or 'no single input'}."
    if row.state in ("downloading", "verified", "self-test", "trial"):
        return f"Tries {subject}: {row.state}{reason}."
    if row.running and row.running == row.attested:
        return f"Runs {running} and is well."
    return f"Runs {running}; its attestation has not arrived." if row.running else "Connected; it runs no model yet."


_FAILED = {"rolled-back": "Rolled back from", "quarantined": "Quarantined", "refused": "Refused"}
