"""What devices observed about their models in a period: window records, as they are kept, added up.

Records are kept for `telemetry_days`, so that is the longest period that says something. A period is of arrival, by the server's clock.
At most MAX_WINDOWS are read at once, the newest ones (about 60 ms of processor time); an answer says when there were more.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import parse_manifest
from edgefleet.messages import WindowBody, decode
from fleet_server.queries.adding_up import Added, ReleaseNames
from fleet_server.queries.errors import NotFoundError
from fleet_server.read_observed import LoadView, Observed
from fleet_server.store import Database
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import DEVICE, DEVICE_LOAD, RELEASE, TELEMETRY

MAX_WINDOWS: Final = 2_000
PERIOD_HOURS: Final = 24


def observed(
    db: Database,
    now: datetime,
    *,
    project: str | None = None,
    device_id: str | None = None,
    hours: int = PERIOD_HOURS,
    most: int = MAX_WINDOWS,
) -> Observed:
    """Observations of one device, or of all devices of a project together.

    Args:
        db: The database.
        now: Aware UTC, the end of the period.
        project: Of which project; not needed beside a device.
        device_id: Of which device, None for all of the project.
        hours: Length of the period.
        most: Windows that are read at most, the newest.

    Raises:
        NotFoundError: There is no such device, in this project where one is named.
        InputError: Neither a project nor a device is named.
    """
    with db.read() as connection:
        if device_id is not None:
            own = connection.scalar(sa.select(DEVICE.c.project).where(DEVICE.c.device_id == device_id))
            if own is None or project not in (None, own):
                raise NotFoundError("device", device_id)
            project = own
        if project is None:
            raise InputError("name a project or a device: ?project= or ?device=")
        return within(connection, now, project, device_id, hours, most)


def within(
    connection: sa.Connection, now: datetime, project: str, device_id: str | None, hours: int = PERIOD_HOURS, most: int = MAX_WINDOWS
) -> Observed:
    """The same in the caller's snapshot."""
    since = now - timedelta(hours=hours)
    where = [TELEMETRY.c.received_at >= to_micros(since), TELEMETRY.c.project == project]
    if device_id is not None:
        where.append(TELEMETRY.c.device_id == device_id)
    query = sa.select(TELEMETRY.c.device_id, TELEMETRY.c.received_at, TELEMETRY.c.body).where(*where, TELEMETRY.c.kind == "window")
    found = connection.execute(query.order_by(TELEMETRY.c.received_at.desc()).limit(most + 1)).all()
    added = Added()
    for row in found[:most]:
        try:
            body = decode(WindowBody, row.body)
        except ArtifactError:
            continue  # stored by a version that wrote another form; ingest has checked what it stored itself
        added.add(row.device_id, from_micros(row.received_at), body)
    names = _names(connection, project, added.digests())
    rows = sa.select(sa.func.count()).select_from(TELEMETRY).where(*where, TELEMETRY.c.kind == "payload")
    return Observed(
        project=project,
        device_id=device_id,
        since_at=since,
        until_at=now,
        windows=added.windows,
        complete=len(found) <= most,
        shadow=added.shadow(names),
        shares=added.shares(names),
        attribution=added.attribution(names),
        sampled_rows=int(connection.scalar(rows) or 0),
    )


def load_of(connection: sa.Connection, device_id: str) -> LoadView | None:
    """What a device said last about itself; None when it never did."""
    row = connection.execute(sa.select(DEVICE_LOAD).where(DEVICE_LOAD.c.device_id == device_id)).first()
    if row is None:
        return None
    return LoadView(
        cpu_percent=row.cpu_permille / 10,
        rss_bytes=row.rss_bytes,
        disk_free_bytes=row.disk_free_bytes,
        temperature_c=row.temperature_c,
        clock_offset_ms=row.clock_offset_ms,
        clock_jumps=row.clock_jumps,
        heard_at=from_micros(row.heard_at),
    )


def _names(connection: sa.Connection, project: str, digests: Iterable[str]) -> dict[str, ReleaseNames]:
    query = sa.select(RELEASE.c.bundle_digest, RELEASE.c.version, RELEASE.c.manifest).where(RELEASE.c.project == project)
    found: dict[str, ReleaseNames] = {}
    for row in connection.execute(query.where(RELEASE.c.bundle_digest.in_(sorted(digests)))):
        manifest = parse_manifest(row.manifest)
        found[row.bundle_digest] = ReleaseNames(row.version, [column.name for column in manifest.inputs], list(manifest.classes))
    return found
