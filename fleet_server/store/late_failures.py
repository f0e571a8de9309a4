"""Devices that failed on a release after its rollout was completed."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from edgefleet.messages import ProjectState
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store import latecomers, looks, members
from fleet_server.store.members import Member
from fleet_server.store.tables import RELEASE, ROLLOUT, ROLLOUT_MEMBER

FAILED = frozenset({"refused", "rolled-back", "quarantined"})


@dataclass(frozen=True)
class Late:
    """The late streams of a completed rollout.

    Attributes:
        devices: Those that ran the release at the completion.
        failed: Of these, the ones that failed since.
        latecomers: Those that took it on afterwards: hold-back that followed, and who slept until then.
        failed_latecomers: Of these, the ones that failed.
    """

    devices: int
    failed: tuple[str, ...]
    latecomers: int = 0
    failed_latecomers: tuple[str, ...] = ()


def note(
    connection: sa.Connection, device_id: str, project: str, counter: int, state: ProjectState, quarantined: Sequence[str], at: int
) -> None:
    """A device reports; if that is a failure of a release whose rollout it went through, or follows, that rollout is looked at again.

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
        sa.or_(member.committed_at.is_not(None), latecomers.given()),
        member.failed_at.is_(None),
        member.removed_at.is_(None),
        member.counter <= counter,
        ROLLOUT.c.state == RolloutState.COMPLETED.value,
        RELEASE.c.bundle_digest.in_(digests),
    )
    columns = (member.rollout_id, member.device_id, RELEASE.c.bundle_digest, member.counter, ROLLOUT.c.cell_us.is_not(None))
    query = sa.select(*columns, member.began_at).select_from(joined).where(*where)
    for *values, began_at in connection.execute(query).all():
        one = Member(*values)
        words = f"{state.state}: {state.reason or 'no reason given'}" if one.bundle_digest in failed else "quarantined"
        if began_at is not None:
            members.note_failed(connection, one, at, words)
        elif not latecomers.note_failed(connection, one.rollout_id, device_id, at, words):
            continue
        looks.look_at(connection, one.rollout_id, looks.at_once(at))


def of_rollout(connection: sa.Connection, rollout_id: str, completed_at: int) -> Late:
    """The late streams since the completion, microseconds UTC."""
    member = ROLLOUT_MEMBER.c
    ran = (member.rollout_id == rollout_id, member.committed_at.is_not(None), member.committed_at <= completed_at)
    was_well = sa.or_(member.failed_at.is_(None), member.failed_at > completed_at)
    query = sa.select(member.device_id, member.failed_at).where(*ran, was_well).order_by(member.device_id)
    rows = connection.execute(query).all()
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == member.rollout_id)
    on_its_way = sa.or_(member.committed_at.is_(None), member.committed_at > completed_at)
    afterwards = (member.rollout_id == rollout_id, latecomers.given(), member.began_at.is_not(None), on_its_way, was_well)
    query = sa.select(member.device_id, member.failed_at).select_from(joined).where(*afterwards)
    late = [(row.device_id, row.failed_at) for row in connection.execute(query)]
    late += [(device_id, failed_at) for device_id, _, failed_at in latecomers.of_rollout(connection, rollout_id)]
    failed_late = sorted(device_id for device_id, failed_at in late if failed_at is not None)
    return Late(len(rows), tuple(row.device_id for row in rows if row.failed_at is not None), len(late), tuple(failed_late))
