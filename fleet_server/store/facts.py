"""The facts that a rollout is judged by, read in one snapshot."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server.rollout import DeviceFacts, Facts, Rollout, RolloutState
from fleet_server.rollout.evidence import FAILED_STATES, TRYING_STATES
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.store import evidence_tally, experiment_rows, hearing, lifts
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import ASSIGNMENT, ATTESTATION, DEVICE_FACT, DEVICE_LABEL, DEVICE_SEEN, REPORTED, ROLLOUT_MEMBER

_SITE: Final = "site"


def read(connection: sa.Connection, rollout: Rollout, now: datetime) -> Facts:
    """What a rollout is decided by: facts of all its devices, or their sums when it is by evidence.

    A device whose row cannot be read is named, never left out in silence.
    """
    if rollout.course is not None:
        backwards = rollout.state in (RolloutState.ROLLING_BACK, RolloutState.PAUSED_RB)
        away, stuck = (_away(connection, rollout), _stuck(connection, rollout)) if backwards else (None, ())
        return Facts(devices={}, tally=evidence_tally.read(connection, rollout, now), away=away, stuck=stuck)
    devices: dict[str, DeviceFacts] = {}
    lifted, deaf_until = lifts.by_device(connection), hearing.deaf_until(connection, now)
    unreadable: list[str] = []
    for row in connection.execute(_query(rollout.rollout_id, rollout.project)):
        try:
            devices[row.device_id] = _facts(row, rollout.bundle_digest, lifted.get(row.device_id, ()), deaf_until)
        except (msgspec.DecodeError, ValueError, TypeError):
            unreadable.append(row.device_id)
    return Facts(devices=devices, unreadable=tuple(sorted(unreadable)), arms=_arms(connection, rollout))


def _arms(connection: sa.Connection, rollout: Rollout) -> Sums | None:
    if rollout.experiment is None:
        return None
    try:
        return experiment_rows.sums(connection, rollout.rollout_id)
    except StorageError:
        return None  # the engine pauses an experiment whose sums are not there


def _away(connection: sa.Connection, rollout: Rollout) -> int:
    """Devices that were given the release and are not known to be without it again."""
    member, digest, project = ROLLOUT_MEMBER.c, rollout.bundle_digest, rollout.project
    reported = sa.and_(REPORTED.c.device_id == member.device_id, REPORTED.c.project == project)
    assigned = sa.and_(ASSIGNMENT.c.device_id == member.device_id, ASSIGNMENT.c.project == project)
    tries = sa.and_(REPORTED.c.subject_digest == digest, REPORTED.c.state.in_(sorted(TRYING_STATES)))
    holds = sa.and_(
        sa.or_(REPORTED.c.bundle_digest == digest, tries, ASSIGNMENT.c.release_id == rollout.release_id), member.removed_at.is_(None)
    )
    query = sa.select(sa.func.count()).select_from(ROLLOUT_MEMBER.outerjoin(REPORTED, reported).outerjoin(ASSIGNMENT, assigned))
    return connection.scalar(query.where(member.rollout_id == rollout.rollout_id, member.counter.is_not(None), holds)) or 0


def _stuck(connection: sa.Connection, rollout: Rollout) -> tuple[str, ...]:
    """Devices that run the release still and report that something else failed there: what they were to go back to."""
    member, digest = ROLLOUT_MEMBER.c, rollout.bundle_digest
    reported = sa.and_(REPORTED.c.device_id == member.device_id, REPORTED.c.project == rollout.project)
    failed = (
        REPORTED.c.state.in_(sorted(FAILED_STATES)),
        REPORTED.c.subject_digest.not_in(("", digest)),
        REPORTED.c.bundle_digest == digest,
    )
    query = sa.select(member.device_id).select_from(ROLLOUT_MEMBER.join(REPORTED, reported))
    mine = (member.rollout_id == rollout.rollout_id, member.counter.is_not(None), REPORTED.c.counter >= member.counter)
    return tuple(connection.scalars(query.where(*mine, *failed).order_by(member.device_id)))


def _query(rollout_id: str, project: str) -> sa.Select[Any]:
    member = ROLLOUT_MEMBER
    joined = (
        member.outerjoin(REPORTED, sa.and_(REPORTED.c.device_id == member.c.device_id, REPORTED.c.project == project))
        .outerjoin(ATTESTATION, sa.and_(ATTESTATION.c.device_id == member.c.device_id, ATTESTATION.c.project == project))
        .outerjoin(DEVICE_SEEN, DEVICE_SEEN.c.device_id == member.c.device_id)
        .outerjoin(DEVICE_FACT, DEVICE_FACT.c.device_id == member.c.device_id)
        .outerjoin(DEVICE_LABEL, sa.and_(DEVICE_LABEL.c.device_id == member.c.device_id, DEVICE_LABEL.c.key == _SITE))
    )
    columns: Sequence[sa.ColumnElement[Any]] = (
        member.c.device_id,
        member.c.counter,
        member.c.began_at,
        member.c.committed_at,
        member.c.failed_at,
        member.c.failure,
        member.c.rows,
        member.c.attested_at,
        member.c.removed_at,
        DEVICE_LABEL.c.value.label("site"),
        REPORTED.c.state,
        REPORTED.c.subject_digest,
        REPORTED.c.reason,
        REPORTED.c.counter.label("reported_counter"),
        REPORTED.c.bundle_digest.label("running"),
        ATTESTATION.c.bundle_digest.label("attested"),
        DEVICE_SEEN.c.seen_at,
        DEVICE_FACT.c.quarantined,
    )
    return sa.select(*columns).select_from(joined).where(member.c.rollout_id == rollout_id)


def _facts(row: sa.Row[Any], digest: str, lifted: Collection[str], deaf_until: datetime | None) -> DeviceFacts:
    if row.removed_at is not None:
        return _of_removed(row)
    quarantined = msgspec.json.decode(row.quarantined, type=list[str]) if row.quarantined is not None else []
    # A report that answers an older desired state than the assignment speaks of another time.
    current = row.counter is not None and row.reported_counter is not None and row.reported_counter >= row.counter
    return DeviceFacts(
        device_id=row.device_id,
        site=row.site or "",
        began_at=_moment(row.began_at),
        state=row.state if current and row.state is not None else "idle",
        subject_digest=(row.subject_digest or "") if current else "",
        reason=(row.reason or "") if current else "",
        running_digest=row.running or "",
        committed_at=_moment(row.committed_at),
        # The attestation must be of this rollout's assignment: an older one of the same bundle proves an older time.
        attested_digest=(row.attested or "") if row.attested_at is not None else "",
        attested_at=_moment(row.attested_at),
        rows_since_commit=row.rows,
        last_heard_at=_moment(row.seen_at),
        # The device's own list is of no assignment: whoever refuses the bundle refuses it in this rollout too.
        quarantined=digest in quarantined and digest not in lifted,
        failed_at=_moment(row.failed_at),
        failure=row.failure or "",
        deaf_until=deaf_until,
    )


def _of_removed(row: sa.Row[Any]) -> DeviceFacts:
    """What the rollout had seen; what a later device of the same id says is not about this one."""
    return DeviceFacts(
        device_id=row.device_id,
        site="",
        began_at=_moment(row.began_at),
        state="idle",
        subject_digest="",
        reason="",
        running_digest="",
        committed_at=_moment(row.committed_at),
        attested_digest="",
        attested_at=_moment(row.attested_at),
        rows_since_commit=row.rows,
        last_heard_at=None,
        quarantined=False,
        failed_at=_moment(row.failed_at),
        failure=row.failure or "",
        removed=True,
    )


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
