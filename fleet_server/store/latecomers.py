"""What devices tell that take a release on after its rollout was completed: the hold-back that follows, and who slept until then.

The rollout is over: it owns nobody, and the evidence that it was decided on stays as it was. Of devices that had begun before, their row in
the rollout keeps what follows; of all others a row of their own.
"""

from typing import Any

import sqlalchemy as sa

from edgefleet.messages import ProjectState
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store import members
from fleet_server.store.members import Member
from fleet_server.store.tables import LATECOMER, RELEASE, ROLLOUT, ROLLOUT_MEMBER
from fleet_server.store.upsert import insert_or_ignore

_MEMBER = ROLLOUT_MEMBER.c


def note(connection: sa.Connection, device_id: str, project: str, counter: int, state: ProjectState, at: int) -> None:
    """A device that no rollout owns reports; that it began with a release of one that is over, or committed it, is kept, each once.

    Args:
        connection: The transaction of the report.
        device_id: Who reports.
        project: About which model.
        counter: The desired state that it answers.
        state: What it says.
        at: Microseconds UTC.
    """
    digests = {state.bundle_digest, state.subject_digest} - {""}
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == _MEMBER.rollout_id)
    joined = joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id)
    columns = (_MEMBER.rollout_id, _MEMBER.device_id, RELEASE.c.bundle_digest, _MEMBER.counter, _MEMBER.began_at)
    mine = (_MEMBER.device_id == device_id, _MEMBER.project == project, _MEMBER.counter <= counter)
    query = sa.select(*columns).select_from(joined).where(*mine, RELEASE.c.bundle_digest.in_(digests), given())
    for row in connection.execute(query).all():
        runs = state.bundle_digest == row.bundle_digest and state.state in ("committed", "idle")
        if row.began_at is None:
            _note_once(connection, row.rollout_id, device_id, at, **({"committed_at": at} if runs else {}))
        elif runs:
            members.note_committed(connection, Member(row.rollout_id, device_id, row.bundle_digest, row.counter, by_evidence=True), at)


def note_failed(connection: sa.Connection, rollout_id: str, device_id: str, at: int, failure: str) -> bool:
    """One that had not begun at the completion fails; whether that is news."""
    return _note_once(connection, rollout_id, device_id, at, failed_at=at, failure=failure[:200])


def given() -> sa.ColumnElement[bool]:
    """A condition on a member and its rollout: the rollout was completed by evidence, and the device was given the release at any time."""
    over = sa.and_(ROLLOUT.c.cell_us.is_not(None), ROLLOUT.c.state == RolloutState.COMPLETED.value)
    return sa.and_(over, _MEMBER.counter.is_not(None), _MEMBER.removed_at.is_(None))


def of_rollout(connection: sa.Connection, rollout_id: str) -> list[tuple[str, int | None, int | None]]:
    """(device, committed at, failed at) of those that had not begun at the completion, without removed ones."""
    key = sa.and_(_MEMBER.rollout_id == LATECOMER.c.rollout_id, _MEMBER.device_id == LATECOMER.c.device_id)
    query = sa.select(LATECOMER.c.device_id, LATECOMER.c.committed_at, LATECOMER.c.failed_at).select_from(
        LATECOMER.join(ROLLOUT_MEMBER, key)
    )
    query = query.where(LATECOMER.c.rollout_id == rollout_id, _MEMBER.removed_at.is_(None)).order_by(LATECOMER.c.device_id)
    return [(row.device_id, row.committed_at, row.failed_at) for row in connection.execute(query)]


def _note_once(connection: sa.Connection, rollout_id: str, device_id: str, at: int, **values: Any) -> bool:
    """Keep that it began, and the first time of the named column; whether that was the first time."""
    insert_or_ignore(connection, LATECOMER, [{"rollout_id": rollout_id, "device_id": device_id, "began_at": at, "failure": ""}])
    if not values:
        return False
    column = LATECOMER.c[next(iter(values))]
    mine = (LATECOMER.c.rollout_id == rollout_id, LATECOMER.c.device_id == device_id, column.is_(None))
    return connection.execute(sa.update(LATECOMER).where(*mine).values(**values)).rowcount == 1
