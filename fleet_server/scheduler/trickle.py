"""A week after a rollout was completed, the devices that were held back get the release as well, in batches."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.following import FOLLOW_AFTER, following
from fleet_server.scheduler.assigning import assign_new
from fleet_server.scheduler.changing import held_up
from fleet_server.scheduler.steering import ENGINE, note_action
from fleet_server.services import Services
from fleet_server.store import assignments, halts, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import RELEASE, ROLLOUT_MEMBER

AT_ONCE: Final = 200


def follow(services: Services, rollout_id: str) -> int:
    """Let the next of the hold-back have the release of a completed rollout, and plan the next look; how many."""
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        if stored is None or stored.rollout.course is None or stored.rollout.state is not RolloutState.COMPLETED:
            return 0
        value, completed_at = stored.rollout, stored.rollout.changed_at
        waiting = _waiting(connection, value)
        if completed_at is None or not waiting or halts.is_halted(connection, services.config.fleet):
            return 0
        exposed, followed = _counts(connection, rollout_id)
        room = following(completed_at, now, value.policy.pace, exposed) - followed
        free = _free(connection, value, waiting)
        held = held_up(connection, value, free, now)
        chosen = [device_id for device_id in free if device_id not in held][: max(min(room, AT_ONCE), 0)]
        for device_id in chosen:
            assign_new(connection, services, value, device_id, now)
        if chosen:
            note_action(connection, value, "follow", ENGINE, f"{len(chosen)} of {len(waiting)} held-back devices get the release", now)
        due = completed_at + FOLLOW_AFTER
        again = due if now < due else now + timedelta(seconds=value.policy.pace.every_s)
        if len(waiting) > len(chosen) and (now < due or free):
            rollouts.look_at(connection, rollout_id, to_micros(again))
    return len(chosen)


def _waiting(connection: sa.Connection, rollout: Rollout) -> list[str]:
    member = ROLLOUT_MEMBER.c
    where = (member.rollout_id == rollout.rollout_id, member.wave == 0, member.counter.is_(None), member.left_at.is_(None))
    return list(connection.scalars(sa.select(member.device_id).where(*where).order_by(member.place)))


def _counts(connection: sa.Connection, rollout_id: str) -> tuple[int, int]:
    """Devices of waves that were given the release, and of the hold-back."""
    member = ROLLOUT_MEMBER.c
    given = (member.rollout_id == rollout_id, member.counter.is_not(None))
    held = sa.func.sum(sa.case((member.wave == 0, 1), else_=0))
    total, followed = connection.execute(sa.select(sa.func.count(), held).where(*given)).one()
    return int(total) - int(followed or 0), int(followed or 0)


def _free(connection: sa.Connection, rollout: Rollout, device_ids: list[str]) -> list[str]:
    """Of these, the devices that no other rollout owns and that are not to run anything newer."""
    owned = rollouts.owners(connection, rollout.project, device_ids)
    newer_than = sa.select(RELEASE.c.release_id).where(RELEASE.c.project == rollout.project, RELEASE.c.counter > rollout.release_counter)
    newer = set(connection.scalars(newer_than))
    has = assignments.current(connection, rollout.project, device_ids)
    return [device_id for device_id in device_ids if device_id not in owned and has.get(device_id, ("", ""))[0] not in newer]
