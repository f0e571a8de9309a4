"""What was seen of a device in the rollout that owns it. An outcome seen once stays seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.rollout.on_abort import OnAbort
from fleet_server.rollout.transitions import FINAL
from fleet_server.store import evidence_sums
from fleet_server.store.tables import ASSIGNMENT, RELEASE, ROLLOUT, ROLLOUT_MEMBER

_BATCH: Final = 500
# Devices of the fleet that were given the release and had none before.
_FIRST_EVER: Final = (
    ROLLOUT_MEMBER.c.counter.is_not(None),
    ROLLOUT_MEMBER.c.previous_release.is_(None),
    ROLLOUT_MEMBER.c.removed_at.is_(None),
)


@dataclass(frozen=True)
class Member:
    """A device in a rollout.

    Attributes:
        counter: Desired counter of its assignment, None before it.
        by_evidence: Whether sums are kept of the rollout's devices.
    """

    rollout_id: str
    device_id: str
    bundle_digest: str
    counter: int | None
    by_evidence: bool = False


def of_device(connection: sa.Connection, device_id: str, project: str) -> list[Member]:
    """The rollout that owns the device, as a list of one or none."""
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == ROLLOUT_MEMBER.c.rollout_id)
    member = ROLLOUT_MEMBER.c
    query = (
        sa.select(member.rollout_id, member.device_id, RELEASE.c.bundle_digest, member.counter, ROLLOUT.c.cell_us.is_not(None))
        .select_from(joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id))
        .where(ROLLOUT_MEMBER.c.device_id == device_id, ROLLOUT_MEMBER.c.project == project, ROLLOUT_MEMBER.c.active == sa.true())
    )
    return [Member(*row) for row in connection.execute(query)]


def open_rollouts(connection: sa.Connection, device_id: str) -> list[str]:
    """Rollouts that are not over and name the device or count it, whether they own it or will take it at their start."""
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == ROLLOUT_MEMBER.c.rollout_id)
    query = sa.select(ROLLOUT.c.rollout_id).select_from(joined).where(ROLLOUT_MEMBER.c.device_id == device_id)
    here = (ROLLOUT_MEMBER.c.removed_at.is_(None), ROLLOUT.c.state.not_in([state.value for state in FINAL]))
    return list(connection.scalars(query.where(*here).order_by(ROLLOUT.c.rollout_id)))


def removed(connection: sa.Connection, rollout_id: str) -> frozenset[str]:
    """Members that were taken out of the fleet."""
    gone = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.removed_at.is_not(None))
    return frozenset(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*gone)))


def place(connection: sa.Connection, rollout_id: str, device_id: str) -> tuple[int, bool]:
    """(wave, whether it was asked) of a member."""
    query = sa.select(ROLLOUT_MEMBER.c.wave, ROLLOUT_MEMBER.c.counter).where(*_key(rollout_id, device_id))
    row = connection.execute(query).one()
    return int(row.wave), row.counter is not None


def keep_failure(connection: sa.Connection, rollout_id: str, device_id: str, at: int, failure: str) -> None:
    """A failure that only the device's last report says stays known when the report goes."""
    unseen = (*_key(rollout_id, device_id), ROLLOUT_MEMBER.c.failed_at.is_(None))
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*unseen).values(failed_at=at, failure=failure[:200]))


def note_assigned(connection: sa.Connection, rollout_id: str, device_id: str, previous_release: str | None, counter: int, at: int) -> None:
    """The rollout's release became the device's desired state; a device that runs it already keeps what was known of it before."""
    values: dict[str, Any] = {"counter": counter, "assigned_at": at, "parked_at": None}
    if previous_release is not None:
        values["previous_release"] = previous_release
    first = sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id), ROLLOUT_MEMBER.c.counter.is_(None))
    if connection.execute(first.values(**values)).rowcount == 1:
        evidence_sums.assigned(connection, rollout_id, device_id)
    else:
        # Who gave his place back and is asked anew was counted by pace and rate when he was asked first.
        values["assigned_at"] = sa.case((ROLLOUT_MEMBER.c.parked_at.is_not(None), ROLLOUT_MEMBER.c.assigned_at), else_=at)
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(**values))


def note_previous(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], previous_release: str) -> None:
    """What devices go back to that run the rollout's release before it has begun."""
    for start in range(0, len(device_ids), _BATCH):
        where = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.device_id.in_(device_ids[start : start + _BATCH]))
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*where).values(previous_release=previous_release))


def note_began(connection: sa.Connection, member: Member, at: int) -> None:
    """It said that it works on the release."""
    if _note_once(connection, member, "began_at", at) and member.by_evidence:
        evidence_sums.began(connection, member.rollout_id, member.device_id, at)


def note_committed(connection: sa.Connection, member: Member, at: int) -> None:
    """It said that it runs the release."""
    if _note_once(connection, member, "committed_at", at) and member.by_evidence:
        evidence_sums.prove(connection, member.rollout_id, [member.device_id], at)


def note_attested(connection: sa.Connection, member: Member, at: int) -> None:
    """It signed that it runs the release."""
    if _note_once(connection, member, "attested_at", at) and member.by_evidence:
        evidence_sums.prove(connection, member.rollout_id, [member.device_id], at)


def note_failed(connection: sa.Connection, member: Member, at: int, failure: str) -> None:
    """It said that the release failed there."""
    if member.by_evidence:
        # Who fails has begun, whatever he left out; a failure that is not of an exposed device would be more than all.
        note_began(connection, member, at)
    if _note_once(connection, member, "failed_at", at, failure=failure[:200]) and member.by_evidence:
        evidence_sums.failed(connection, member.rollout_id, member.device_id)


def note_rows(connection: sa.Connection, device_id: str, project: str, bundle_digest: str, rows: int, at: int) -> None:
    """It scored rows with a bundle; they count for the rollout of that bundle."""
    for member in of_device(connection, device_id, project):
        if member.bundle_digest == bundle_digest and member.counter is not None:
            added = {"rows": ROLLOUT_MEMBER.c.rows + rows}
            connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(member.rollout_id, device_id)).values(**added))
            if member.by_evidence:
                evidence_sums.prove(connection, member.rollout_id, [device_id], at)


def _note_once(connection: sa.Connection, member: Member, column: str, at: int, **values: str) -> bool:
    """Keep what is seen for the first time; whether it was."""
    unseen = ROLLOUT_MEMBER.c[column].is_(None)
    statement = sa.update(ROLLOUT_MEMBER).where(*_key(member.rollout_id, member.device_id), unseen)
    return connection.execute(statement.values(**{column: at}, **values)).rowcount == 1


def _key(rollout_id: str, device_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.device_id == device_id


def previous_releases(connection: sa.Connection, rollout_id: str) -> dict[str, str | None]:
    """What each member ran before the rollout."""
    query = sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.previous_release).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
    return {row.device_id: row.previous_release for row in connection.execute(query)}


def holding(
    connection: sa.Connection, rollout_id: str, release_id: str, *, limit: int, but: sa.ColumnElement[bool] | None = None
) -> list[tuple[str, str | None]]:
    """Members to which the release is assigned still, with what they ran before, in the order of the rollout.

    Args:
        connection: The transaction.
        rollout_id: A rollout by evidence.
        release_id: Its release.
        limit: At most so many.
        but: Without these.
    """
    member = ROLLOUT_MEMBER.c
    assigned = sa.and_(ASSIGNMENT.c.device_id == member.device_id, ASSIGNMENT.c.project == member.project)
    where = [member.rollout_id == rollout_id, member.active == sa.true(), member.counter.is_not(None)]
    where += [] if but is None else [sa.not_(but)]
    query = sa.select(member.device_id, member.previous_release).select_from(ROLLOUT_MEMBER.join(ASSIGNMENT, assigned))
    query = query.where(*where, ASSIGNMENT.c.release_id == release_id)
    return [(row.device_id, row.previous_release) for row in connection.execute(query.order_by(member.wave, member.place).limit(limit))]


def keeping(on_abort: OnAbort, wave: int) -> sa.ColumnElement[bool]:
    """Members that keep the release of an aborted rollout by evidence; see `rollout.on_abort.keeps`.

    Args:
        on_abort: Of its policy.
        wave: The one that was open.
    """
    member = ROLLOUT_MEMBER.c
    if on_abort == "keep":
        return member.began_at.is_not(None)
    proven = member.proven_at.is_not(None)
    return sa.and_(proven, member.wave < wave) if on_abort == "wave" else proven


def count_without_previous(connection: sa.Connection, rollout_id: str) -> int:
    """How many there are of `without_previous`."""
    query = sa.select(sa.func.count()).select_from(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id, *_FIRST_EVER)
    return connection.scalar(query) or 0


def most_had(connection: sa.Connection, rollout_id: str) -> str | None:
    """The release that most members ran before the rollout, None where none did."""
    column, many = ROLLOUT_MEMBER.c.previous_release, sa.func.count().label("many")
    query = sa.select(column, many).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id, column.is_not(None)).group_by(column)
    found = connection.execute(query.order_by(many.desc(), column).limit(1)).first()
    return None if found is None else str(found.previous_release)


def without_previous(connection: sa.Connection, rollout_id: str) -> list[str]:
    """Members that were given the rollout's release and had none before: there is nothing that they could go back to."""
    query = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id, *_FIRST_EVER)
    return sorted(connection.scalars(query))


def how_many(connection: sa.Connection, rollout_id: str) -> tuple[int, int]:
    """(members, those of them that were taken out of the fleet since)."""
    query = sa.select(sa.func.count(), sa.func.count(ROLLOUT_MEMBER.c.removed_at)).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
    members, gone = connection.execute(query).one()
    return int(members), int(gone)
