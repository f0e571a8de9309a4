"""Tells devices a release floor that was raised: each gets its desired state anew, piece by piece, so that no rollout waits for it."""

from typing import Final

from fleet_server.services import Services
from fleet_server.store import assignments, changes, floors

AT_ONCE: Final = 200


def tell_floors(services: Services) -> int:
    """Sign the desired state of the next devices that have not been told their floor; how many.

    Level-triggered: a floor counts as told once no device of its project is left, so that a process that dies goes on where it was.
    """
    with services.db.read() as connection:
        if not floors.being_told(connection):
            return 0
    told = 0
    director, at = assignments.Director(services.director, services.config.fleet), services.now_us()
    with services.db.write() as connection:
        for floor in floors.being_told(connection):
            waiting = floors.untold(connection, floor, AT_ONCE - told)
            for device_id in waiting:
                assignments.issue_again(connection, director, device_id, at)
            told += len(waiting)
            if told >= AT_ONCE:
                services.wake.set()
                break
            floors.all_told(connection, floor)
        changes.touch(connection, at, "devices", "releases")
    return told
