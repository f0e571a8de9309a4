"""What a bundle did on a device in a period of the server's clock, from the window records that are kept."""

from typing import Final

import sqlalchemy as sa

from edgefleet import latency
from edgefleet.errors import ArtifactError
from edgefleet.messages import WindowBody, decode
from fleet_server.rollout.behaviour import Paired, Shown
from fleet_server.store import peaks
from fleet_server.store.tables import LABELLED, TELEMETRY

# The newest ones of a period: a device of one window a minute tells a day's worth; reading them takes some 10 ms.
MAX_WINDOWS: Final = 1_440


def of_device(connection: sa.Connection, device_id: str, project: str, since: int, until: int) -> Shown:
    """Sums of whatever ran on a device in a period; arguments as in `of_bundle`."""
    return _summed(connection, device_id, project, None, since, until)


def of_bundle(connection: sa.Connection, device_id: str, project: str, bundle_digest: str, since: int, until: int) -> Shown:
    """Sums of one bundle; a record that cannot be read (of a version that wrote another form) is passed over.

    Args:
        connection: A snapshot.
        device_id: Of the device.
        project: Of the bundle.
        bundle_digest: Of the bundle.
        since: First microsecond of arrival.
        until: First microsecond after the period.
    """
    return _summed(connection, device_id, project, bundle_digest, since, until)


def _summed(connection: sa.Connection, device_id: str, project: str, bundle_digest: str | None, since: int, until: int) -> Shown:
    shown = Shown(peak_bytes=peaks.within(connection, device_id, since, until))
    for body in _windows(connection, device_id, project, since, until):
        if bundle_digest not in (None, body.bundle_digest):
            continue
        shown.rows += body.answered
        shown.score_sum += body.score_sum
        shown.classes = _added(shown.classes, body.classes)
        shown.scores = _added(shown.scores, body.scores)
        told = latency.from_wire(body.latency_eighths) if body.latency_eighths else latency.spread(body.latency_us)
        shown.latencies = shown.latencies if told is None else shown.latencies + told
    return shown


def compared(connection: sa.Connection, device_id: str, project: str, running: str, shadow: str, since: int, until: int) -> Paired:
    """Rows of a trial that both models answered, and those to which they gave different answers."""
    rows = against = 0
    for body in _windows(connection, device_id, project, since, until):
        counts = body.shadow
        if counts is not None and (counts.running, counts.shadow) == (running, shadow):
            rows += counts.compared
            against += counts.compared - counts.agreed
    return Paired(rows, against)


def labelled(connection: sa.Connection, device_id: str, project: str, bundle_digest: str, baseline: str, since: int) -> Paired:
    """Rows of known truth that both models answered: how often only the number of right answers fell or rose."""
    table = LABELLED
    where = (
        table.c.device_id == device_id,
        table.c.project == project,
        table.c.bundle_digest == bundle_digest,
        table.c.baseline_digest == baseline,
        table.c.rows_at >= since,
    )
    sums = (sa.func.coalesce(sa.func.sum(column), 0) for column in (table.c.rows, table.c.baseline_right, table.c.right))
    rows, before, now = connection.execute(sa.select(*sums).where(*where)).one()
    return Paired(int(rows), int(before), int(now))


def accuracy(connection: sa.Connection, device_id: str, project: str, since: int, until: int) -> tuple[int, int]:
    """(rows of known truth, right answers) of whatever ran on a device in a period of the rows' own times."""
    where = (LABELLED.c.device_id == device_id, LABELLED.c.project == project, LABELLED.c.rows_at >= since, LABELLED.c.rows_at < until)
    sums = (sa.func.coalesce(sa.func.sum(column), 0) for column in (LABELLED.c.rows, LABELLED.c.right))
    rows, right = connection.execute(sa.select(*sums).where(*where)).one()
    return int(rows), int(right)


def _windows(connection: sa.Connection, device_id: str, project: str, since: int, until: int) -> list[WindowBody]:
    where = (
        TELEMETRY.c.device_id == device_id,
        TELEMETRY.c.kind == "window",
        TELEMETRY.c.project == project,
        TELEMETRY.c.received_at >= since,
        TELEMETRY.c.received_at < until,
    )
    query = sa.select(TELEMETRY.c.body).where(*where).order_by(TELEMETRY.c.received_at.desc()).limit(MAX_WINDOWS)
    found = []
    for content in connection.scalars(query):
        try:
            found.append(decode(WindowBody, content))
        except ArtifactError:
            continue
    return found


def _added(ours: list[int], theirs: list[int]) -> list[int]:
    if len(ours) < len(theirs):
        ours, theirs = theirs, ours
    return [count + (theirs[i] if i < len(theirs) else 0) for i, count in enumerate(ours)]
