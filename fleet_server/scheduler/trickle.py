"""A week after a rollout was completed, the devices that were held back get the release as well, in batches."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.following import FOLLOW_AFTER, following
from fleet_server.rollout.pacing import Wait
from fleet_server.scheduler.assigning import assign_new
from fleet_server.scheduler.by_evidence import busy_devices, let_begin
from fleet_server.scheduler.late import may_be_discarded, nobody_follows
from fleet_server.scheduler.steering import ENGINE, note_action
from fleet_server.services import Services
from fleet_server.store import assignments, halts, looks, parked, rollouts
from fleet_server.store.evidence_members import Unasked
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import ASSIGNMENT, RELEASE, REPORTED, ROLLOUT_MEMBER

AT_ONCE: Final = 200
LOOK_AGAIN_S: Final = 60.0


def follow(services: Services, rollout_id: str) -> int:
    """Let the next of the hold-back have the release of a completed rollout, and plan the next look; how many."""
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        if stored is None or stored.rollout.course is None or stored.rollout.state is not RolloutState.COMPLETED:
            return 0
        value, completed_at = stored.rollout, stored.rollout.changed_at
        if completed_at is None or halts.is_halted(connection, services.config.fleet):
            return 0
        waiting, asleep = _waiting(connection, value), parked.all_of(connection, rollout_id, AT_ONCE)
        if not waiting and not asleep:
            return 0
        if nobody_follows(connection, value):
            if not may_be_discarded(connection, rollout_id):
                return 0
            # Nothing wakes this rollout when a person does it.
            since = now if asleep else max(now, completed_at + FOLLOW_AFTER)
            looks.look_at(connection, rollout_id, to_micros(since + timedelta(seconds=LOOK_AGAIN_S)))
            return 0
        asked, moments = _ask_sleepers(connection, services, value, asleep, now) if asleep else (0, [])
        exposed, followed = _counts(connection, rollout_id)
        room = following(completed_at, now, value.policy.pace, exposed) - followed
        free = _free(connection, value, waiting)
        chosen, waits = _chosen(connection, value, free, max(min(room, AT_ONCE - asked), 0), now)
        for device_id in chosen:
            assign_new(connection, services, value, device_id, now)
        if chosen:
            note_action(connection, value, "follow", ENGINE, f"{len(chosen)} of {len(waiting)} held-back devices get the release", now)
        due = completed_at + FOLLOW_AFTER
        # A window or a full site is over sooner than the next batch.
        again_s = LOOK_AGAIN_S if waits.keys() - {"pace"} else value.policy.pace.every_s
        again = due if now < due else now + timedelta(seconds=again_s)
        if len(waiting) > len(chosen) and (now < due or free):
            moments = [*moments, again]
        if moments:
            looks.look_at(connection, rollout_id, to_micros(min(moments)))
    return len(chosen)


def _ask_sleepers(
    connection: sa.Connection, services: Services, rollout: Rollout, asleep: list[Unasked], now: datetime
) -> tuple[int, list[datetime]]:
    """Ask those that gave the place of their site back, as all others that slept were asked; (how many, when to look for the rest)."""
    free = {one.device_id for one in _free(connection, rollout, asleep)}
    busy = busy_devices(connection, rollout, sorted(free), now)
    parked.park(connection, rollout.rollout_id, [one.device_id for one in asleep if one.device_id not in free], None)
    chosen = [one.device_id for one in asleep if one.device_id in free - busy]
    for device_id in chosen:
        assign_new(connection, services, rollout, device_id, now)
    # One that stays busy, because the bundle failed there before, keeps the release from nobody else.
    left = busy or len(asleep) == AT_ONCE
    return len(chosen), [now + timedelta(seconds=LOOK_AGAIN_S)] if left else []


def _chosen(
    connection: sa.Connection, rollout: Rollout, free: list[Unasked], room: int, now: datetime
) -> tuple[tuple[str, ...], Counter[Wait]]:
    """Who begins now: one change at a time, in the policy's windows and within its budget for a site, like any device of a wave."""
    if not room:
        return (), Counter({"pace": len(free)})
    busy = busy_devices(connection, rollout, [one.device_id for one in free], now)
    under_way = _under_way(connection, rollout) if rollout.policy.site_budget is not None else Counter()
    return let_begin(connection, rollout, free, busy, {"pace": room}, now, under_way)


def _waiting(connection: sa.Connection, rollout: Rollout) -> list[Unasked]:
    member = ROLLOUT_MEMBER.c
    where = (member.rollout_id == rollout.rollout_id, member.wave == 0, member.counter.is_(None), member.left_at.is_(None))
    query = sa.select(member.device_id, member.site).where(*where, member.removed_at.is_(None)).order_by(member.place)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query)]


def _under_way(connection: sa.Connection, rollout: Rollout) -> Counter[str]:
    """Site -> devices that follow and do not run the release yet by their word; nobody owns them any more, so nobody else counts them."""
    member, digest = ROLLOUT_MEMBER.c, rollout.bundle_digest
    assigned = sa.and_(ASSIGNMENT.c.device_id == member.device_id, ASSIGNMENT.c.project == member.project)
    reported = sa.and_(REPORTED.c.device_id == member.device_id, REPORTED.c.project == member.project)
    follows = (member.rollout_id == rollout.rollout_id, member.wave == 0, member.counter.is_not(None))
    under_way = (
        ASSIGNMENT.c.rollout_id == rollout.rollout_id,
        sa.or_(REPORTED.c.bundle_digest.is_(None), REPORTED.c.bundle_digest != digest),
    )
    joined = ROLLOUT_MEMBER.join(ASSIGNMENT, assigned).outerjoin(REPORTED, reported)
    query = sa.select(member.site, sa.func.count()).select_from(joined).where(*follows, *under_way).group_by(member.site)
    return Counter({site: int(count) for site, count in connection.execute(query)})


def _counts(connection: sa.Connection, rollout_id: str) -> tuple[int, int]:
    """Devices of waves that were given the release, and of the hold-back."""
    member = ROLLOUT_MEMBER.c
    given = (member.rollout_id == rollout_id, member.counter.is_not(None))
    held = sa.func.sum(sa.case((member.wave == 0, 1), else_=0))
    total, followed = connection.execute(sa.select(sa.func.count(), held).where(*given)).one()
    return int(total) - int(followed or 0), int(followed or 0)


def _free(connection: sa.Connection, rollout: Rollout, waiting: list[Unasked]) -> list[Unasked]:
    """Of these, the devices that no other rollout owns and that are not to run anything newer."""
    device_ids = [one.device_id for one in waiting]
    owned = rollouts.owners(connection, rollout.project, device_ids)
    newer_than = sa.select(RELEASE.c.release_id).where(RELEASE.c.project == rollout.project, RELEASE.c.counter > rollout.release_counter)
    newer = set(connection.scalars(newer_than))
    has = assignments.current(connection, rollout.project, device_ids)
    return [one for one in waiting if one.device_id not in owned and has.get(one.device_id, ("", ""))[0] not in newer]
