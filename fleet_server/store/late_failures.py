"""Devices that failed on a release after its rollout was completed."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from edgefleet.messages import ProjectState
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import RELEASE, ROLLOUT, ROLLOUT_MEMBER

FAILED = frozenset({"refused", "rolled-back", "quarantined"})


@dataclass(frozen=True)
class Late:
    """The late stream of a completed rollout: devices that ran the release at the completion, and those of them that failed since."""

    devices: int
    failed: tuple[str, ...]


def note(
    connection: sa.Connection, device_id: str, project: str, counter: int, state: ProjectState, quarantined: Sequence[str], at: int
) -> None:
    """A device reports; if that is a failure of a release whose rollout it went through, that rollout is looked at again.

    A failure that the server's own taking back explains is none, nor is one that was known before.
    """
    failed = {state.subject_digest} if state.state in FAILED and not state.reason.startswith("withdrawn") else set()
    digests = failed | set(quarantined)
    if not digests:
        return
    member = ROLLOUT_MEMBER.c
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == member.rollout_id)
    joined = joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id)
    where = (
        member.device_id == device_id,
        member.project == project,
        member.committed_at.is_not(None),
        member.failed_at.is_(None),
        member.removed_at.is_(None),
        member.counter <= counter,
        ROLLOUT.c.state == RolloutState.COMPLETED.value,
        RELEASE.c.bundle_digest.in_(digests),
    )
    for row in connection.execute(sa.select(member.rollout_id, RELEASE.c.bundle_digest).select_from(joined).where(*where)).all():
        words = f"{state.state}: {state.reason or 'no reason given'}" if row.bundle_digest in failed else "quarantined"
        key = (member.rollout_id == row.rollout_id, member.device_id == device_id)
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*key).values(failed_at=at, failure=words[:200]))
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == row.rollout_id).values(due_at=at))


def of_rollout(connection: sa.Connection, rollout_id: str, completed_at: int) -> Late:
    """The late stream since the completion, microseconds UTC."""
    member = ROLLOUT_MEMBER.c
    ran = (member.rollout_id == rollout_id, member.committed_at.is_not(None), member.committed_at <= completed_at)
    was_well = sa.or_(member.failed_at.is_(None), member.failed_at > completed_at)
    query = sa.select(member.device_id, member.failed_at).where(*ran, was_well).order_by(member.device_id)
    rows = connection.execute(query).all()
    return Late(len(rows), tuple(row.device_id for row in rows if row.failed_at is not None))
