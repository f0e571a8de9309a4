"""A site's budget is not used up by devices that sleep: who was asked and not heard for long gives his place back, and is asked anew.

A place may only be given away if its device cannot take it any more, so its signed document asks nothing from then on, until the device is
heard: what sleeps wakes to that. A device that had the old document before it fell silent may begin all the same, unheard; so many at most
can be in activation beside the budget, each until it hears the newer one.
"""

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from fleet_server import audit
from fleet_server.rollout import Rollout, places, trial_for
from fleet_server.services import Services
from fleet_server.store import assignments, changes, floors, hearing, parked, stays
from fleet_server.store.moments import to_micros

AT_ONCE: Final = 200


def set_aside(connection: sa.Connection, services: Services, rollout: Rollout, now: datetime) -> int:
    """Take the release from devices that were not heard for the policy's deadline since they were asked; how many.

    Only under a `site_budget`, only where others wait, and not for a silence that the server caused. In the evidence they stay asked and
    not begun.
    """
    if rollout.policy.site_budget is None or not places.silence_tells(rollout.policy, now, hearing.deaf_until(connection, now)):
        return 0
    at = to_micros(now)
    asked_before = to_micros(now - timedelta(seconds=rollout.policy.deadline_s))
    sleeping = parked.sleepers(connection, rollout.rollout_id, asked_before, AT_ONCE)
    director = assignments.Director(services.director, services.config.fleet)
    for device_id, previous in sleeping:
        wish = _wish(connection, rollout, device_id, previous)
        assignments.withdraw(connection, director, device_id, rollout.project, wish, at, rollout_id=rollout.rollout_id)
    if sleeping:
        parked.park(connection, rollout.rollout_id, [device_id for device_id, _ in sleeping], at)
        words = "1 device that was not heard since it was asked gives the place of its site back until it is heard"
        if len(sleeping) > 1:
            words = (
                f"{len(sleeping)} devices that were not heard since they were asked give the place of their site back until they are heard"
            )
        audit.record(connection, at, actor="engine", action="set-aside", subject=("rollout", rollout.rollout_id), detail=words)
        changes.touch(connection, at, "devices", f"rollout:{rollout.rollout_id}")
    return len(sleeping)


def _wish(connection: sa.Connection, rollout: Rollout, device_id: str, previous: str | None) -> assignments.Wish | None:
    """What it ran before, unless nobody may be given that any more: then nothing is asked of it, and it keeps what it runs."""
    stay = stays.of_releases(connection, [previous]).get(previous)
    if stay is None or stay.counter < floors.counter_of(connection, rollout.project):
        return None
    if stay.bundle_digest in stays.quarantined(connection, device_id):
        return None
    return assignments.Wish(stay.release_id, rollout.rollout_id, trial_for(rollout.policy, drifting=True))
