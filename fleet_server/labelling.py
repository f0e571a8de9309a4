"""Rows whose truth became known, counted by whoever knows it: no row and no label enters this server, only how many were right."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_digest
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.queries import NotFoundError
from fleet_server.scheduler import comparing
from fleet_server.services import Services
from fleet_server.store import comparison_rows, looks, members, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE, LABELLED, RELEASE
from fleet_server.store.upsert import insert_or_update

MAX_ROWS: Final = 100_000_000


def report_labelled(
    services: Services,
    device_id: str,
    *,
    bundle_digest: str,
    rows: int,
    right: int,
    rows_at: datetime,
    baseline_digest: str,
    baseline_right: int,
    actor: Actor,
) -> None:
    """Keep how many answers of a device were right; the same period of the same bundle reported again replaces what was said before.

    Args:
        services: The server's parts.
        device_id: An enrolled device.
        bundle_digest: Bundle whose answers were judged.
        rows: Rows of known truth.
        right: Of them, answered rightly.
        rows_at: When the first of these rows was scored, aware; the period's name.
        baseline_digest: The other model that was asked the same rows (the one before, in a trial or afterwards), "" when none was.
        baseline_right: Of the same rows, answered rightly by it.
        actor: Who counted.

    Raises:
        NotFoundError: No such device.
        InputError: Counts that contradict each other, a bundle that is no release of the device's project, a time without zone or to come.
    """
    if not (0 < rows <= MAX_ROWS and 0 <= right <= rows and 0 <= baseline_right <= rows):
        raise InputError(f"{right} and {baseline_right} right answers of {rows} rows cannot be; expected 1 to {MAX_ROWS} rows")
    if rows_at.tzinfo is None or rows_at > services.clock():
        raise InputError(f"rows_at = {rows_at.isoformat()} has no time zone, or is still to come; say when the first row was scored")
    if not baseline_digest and baseline_right:
        raise InputError("baseline_right without baseline_digest: say which bundle was right")
    for digest in filter(None, (bundle_digest, baseline_digest)):
        check_digest(digest, "bundle digest")
    at = services.now_us()
    with services.db.write() as connection:
        here = (DEVICE.c.device_id == device_id, DEVICE.c.removed_at.is_(None))
        project = connection.scalar(sa.select(DEVICE.c.project).where(*here))
        if project is None:
            raise NotFoundError("device", device_id)
        for digest in filter(None, (bundle_digest, baseline_digest)):
            where = (RELEASE.c.project == project, RELEASE.c.bundle_digest == digest)
            if connection.scalar(sa.select(RELEASE.c.release_id).where(*where)) is None:
                raise InputError(f"bundle {digest[:12]} is no release of project {project!r} here")
        row = {"device_id": device_id, "project": project, "bundle_digest": bundle_digest, "rows_at": to_micros(rows_at)}
        counts = {"rows": rows, "right": right, "baseline_digest": baseline_digest, "baseline_right": baseline_right}
        insert_or_update(connection, LABELLED, [row | counts | {"received_at": at}])
        for member in members.of_device(connection, device_id, project):
            stored = rollouts.load(connection, member.rollout_id)
            if stored is not None and member.counter is not None:
                comparing.enlist(connection, stored.rollout, device_id)
        comparison_rows.look_again(connection, [device_id], at)
        rollouts.mark_due(connection, [(device_id, project)], looks.at_once(at))
        detail = f"{right} of {rows} right by {bundle_digest[:12]}"
        audit.record(connection, at, actor=actor.name, action="labelled", subject=("device", device_id), detail=detail)
    services.wake.set()
