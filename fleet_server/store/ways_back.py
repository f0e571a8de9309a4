"""Devices on their way back to an earlier release: a site's budget counts them as it counts those on their way forward."""

from collections import Counter
from collections.abc import Sequence

import sqlalchemy as sa

from fleet_server.rollout import ActionKind
from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import ASSIGNMENT, EVENT, RELEASE, REPORTED, ROLLOUT, ROLLOUT_MEMBER

_BACK = (RolloutState.ROLLING_BACK.value, RolloutState.PAUSED_RB.value)


def within_budget(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], budget: int) -> list[str]:
    """Of the devices, in their order, those that may go back now.

    A device that never committed the release changes nothing that it runs, so it always may.

    Args:
        connection: The transaction.
        rollout_id: A rollout that goes back.
        device_ids: Its members that have the release still.
        budget: Most devices of a site that change at once, over all rollouts.
    """
    member = ROLLOUT_MEMBER.c
    query = sa.select(member.device_id, member.site, member.committed_at).where(member.rollout_id == rollout_id)
    known = {row.device_id: row for row in connection.execute(query.where(member.device_id.in_(device_ids)))}
    busy = _under_way(connection, sorted({row.site for row in known.values()})) + _in_activation(connection, rollout_id)
    chosen = []
    for device_id in device_ids:
        row = known[device_id]
        if row.committed_at is not None:
            if busy[row.site] >= budget:
                continue
            busy[row.site] += 1
        chosen.append(device_id)
    return chosen


def told(connection: sa.Connection, rollout_id: str, release_id: str, since: int | None = None) -> int:
    """Devices of a rollout that were given its release and have something else assigned, or nothing, by now.

    Args:
        connection: The transaction.
        rollout_id: Which.
        release_id: Its release.
        since: Only what was assigned after that, microseconds UTC; who was assigned nothing is not among these.
    """
    member = ROLLOUT_MEMBER.c
    assigned = sa.and_(ASSIGNMENT.c.device_id == member.device_id, ASSIGNMENT.c.project == member.project)
    other = sa.or_(ASSIGNMENT.c.release_id.is_(None), ASSIGNMENT.c.release_id != release_id)
    query = sa.select(sa.func.count()).select_from(ROLLOUT_MEMBER.outerjoin(ASSIGNMENT, assigned))
    # Who gave his place back was not sent back by that.
    mine = (member.rollout_id == rollout_id, member.counter.is_not(None), member.parked_at.is_(None))
    late = () if since is None else (ASSIGNMENT.c.assigned_at > since,)
    return connection.scalar(query.where(*mine, other, *late)) or 0


def began_at(connection: sa.Connection, rollout_id: str) -> int | None:
    """When a rollout turned round, by the log, microseconds UTC; None in the transaction in which it does."""
    mine = (EVENT.c.subject_kind == "rollout", EVENT.c.subject == rollout_id, EVENT.c.action == ActionKind.ROLL_BACK.value)
    found: int | None = connection.scalar(sa.select(sa.func.min(EVENT.c.at)).where(*mine))
    return found


def _under_way(connection: sa.Connection, sites: Sequence[str]) -> Counter[str]:
    """Site -> devices that were told to go back and say that they still run what they leave."""
    member = ROLLOUT_MEMBER.c
    joined = ROLLOUT_MEMBER.join(ROLLOUT, ROLLOUT.c.rollout_id == member.rollout_id)
    joined = joined.join(RELEASE, RELEASE.c.release_id == ROLLOUT.c.release_id)
    joined = joined.join(ASSIGNMENT, sa.and_(ASSIGNMENT.c.device_id == member.device_id, ASSIGNMENT.c.project == member.project))
    joined = joined.join(REPORTED, sa.and_(REPORTED.c.device_id == member.device_id, REPORTED.c.project == member.project))
    told = (ROLLOUT.c.state.in_(_BACK), member.active == sa.true(), ASSIGNMENT.c.release_id != ROLLOUT.c.release_id)
    still = (REPORTED.c.bundle_digest == RELEASE.c.bundle_digest, member.committed_at.is_not(None), member.site.in_(sites))
    query = sa.select(member.site, sa.func.count()).select_from(joined).where(*told, *still).group_by(member.site)
    return Counter({site: int(count) for site, count in connection.execute(query)})


def _in_activation(connection: sa.Connection, rollout_id: str) -> Counter[str]:
    """Site -> devices that another rollout asks and that have no outcome there."""
    member = ROLLOUT_MEMBER.c
    asked = (member.active == sa.true(), member.counter.is_not(None), member.parked_at.is_(None))
    no_outcome = (member.committed_at.is_(None), member.failed_at.is_(None))
    query = sa.select(member.site, sa.func.count()).where(*asked, *no_outcome, member.rollout_id != rollout_id).group_by(member.site)
    return Counter({site: int(count) for site, count in connection.execute(query)})
