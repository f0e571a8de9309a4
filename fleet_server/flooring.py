"""The release floor: what lies below it is given to no device any more, neither by a rollout nor on a way back.

It is for the day on which an older release turns out to be dangerous. It only rises. What is under way below it stops at once, for a
person to end; devices that run such a release keep it until a rollout replaces it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from edgefleet.identifiers import check_id
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.reasons import MAX_REASON, reason_of
from fleet_server.rollout import RolloutState, apply_person
from fleet_server.scheduler.steering import note_action
from fleet_server.services import Services
from fleet_server.store import changes, floors, rollouts
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import ASSIGNMENT, DEVICE, RELEASE, ROLLOUT

_FORWARD: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING})


@dataclass(frozen=True)
class FloorView:
    """The floor of one project.

    Attributes:
        counter: Of the oldest release that may be given; 0: nobody raised it.
        release_id: The release that it was raised to.
        devices_below: Devices that are to run a release below it.
        devices: Devices of the project.
        devices_keeping: Those that keep it by their own word: they take nothing below it, whoever asks.
        paused: Rollouts that the raise has just paused.
    """

    project: str
    counter: int
    release_id: str | None
    raised_at: datetime | None
    raised_by: str
    reason: str
    devices_below: int
    sentence: str
    devices: int = 0
    devices_keeping: int = 0
    paused: tuple[str, ...] = ()


def floor_of(services: Services, project: str) -> FloorView:
    """The floor of a project.

    Raises:
        NotFoundError: The project has neither a release nor a device.
    """
    check_id(project, "project")
    with services.db.read() as connection:
        _refuse_unknown(connection, project)
        return _view(connection, project)


def raise_floor(services: Services, project: str, *, release_id: str, reason: str, actor: Actor) -> FloorView:
    """Raise the floor to a release: no older one is given to a device again. Rollouts of older ones are paused.

    Args:
        services: The server's parts.
        project: Which.
        release_id: The oldest release of the project that may be given.
        reason: The person's words, 1 to MAX_REASON characters.
        actor: Who raises it.

    Raises:
        InputError: No reason, or one that is too long.
        NotFoundError: The project has no such release.
        ConflictError: The floor is there already, or above.
    """
    words = reason_of(reason, f"say why in 1 to {MAX_REASON}: a floor is never lowered again")
    now = services.clock()
    at = to_micros(now)
    with services.db.write() as connection:
        query = sa.select(RELEASE).where(RELEASE.c.release_id == release_id, RELEASE.c.project == project)
        release = connection.execute(query).first()
        if release is None:
            raise NotFoundError(f"release of project {project[:64]}", release_id)
        before = floors.counter_of(connection, project)
        if release.counter <= before:
            where = f"the floor of {project} is {before}, release {release_id} has counter {release.counter}"
            raise ConflictError(f"{where}: a floor is never lowered; name a release above it. Nothing was changed.")
        floors.keep(connection, floors.Floor(project, release.counter, release_id, at, actor.name, words))
        detail = f"from {before} to {release.counter} ({release.version}): {words}"
        audit.record(connection, at, actor=actor.name, action="raise-floor", subject=("project", project), detail=detail)
        paused = _pause_below(connection, project, release.counter, actor, now)
        changes.touch(connection, at, "overview", "rollouts", "releases")
        shown = replace(_view(connection, project), paused=tuple(paused))
    services.wake.set()
    return shown


def _pause_below(connection: sa.Connection, project: str, counter: int, actor: Actor, now: datetime) -> list[str]:
    query = sa.select(ROLLOUT.c.rollout_id).where(ROLLOUT.c.project == project, ROLLOUT.c.state.in_(sorted(_FORWARD)))
    found = []
    for rollout_id in connection.scalars(query.order_by(ROLLOUT.c.rollout_id)).all():
        # One that cannot be read is stopped when its turn comes; it must not keep the floor where it is.
        stored = rollouts.load_readable(connection, rollout_id, lock=True)
        if stored is None or stored.rollout.release_counter >= counter:
            continue
        words = f"the release floor was raised to {counter}, above this release's {stored.rollout.release_counter}; abort or roll back"
        after = apply_person(stored.rollout, "pause", words, now)
        rollouts.save_and_look(connection, stored, after, now)
        note_action(connection, after, "pause", actor.name, words, now)
        found.append(rollout_id)
    return found


def _refuse_unknown(connection: sa.Connection, project: str) -> None:
    for column in (RELEASE.c.project, DEVICE.c.project):
        if connection.execute(sa.select(column).where(column == project).limit(1)).first() is not None:
            return
    raise NotFoundError("project", project)


def _view(connection: sa.Connection, project: str) -> FloorView:
    floor = floors.current(connection, project)
    if floor is None:
        return FloorView(project, 0, None, None, "", "", 0, f"{project} has no release floor: every release may be given.")
    below = _devices_below(connection, project, floor.counter)
    devices = "1 device is" if below == 1 else f"{below} devices are"
    sentence = f"No release of {project} below {floor.counter} ({floor.release_id}) is given to a device; {devices} to run one."
    total, keeping = floors.keepers(connection, project, floor.counter)
    without = total - keeping
    if without:
        sentence += f" {without} of {total} {'does' if without == 1 else 'do'} not keep it yet."
    return FloorView(
        project,
        floor.counter,
        floor.release_id,
        from_micros(floor.raised_at),
        floor.raised_by,
        floor.reason,
        below,
        sentence,
        devices=total,
        devices_keeping=keeping,
    )


def _devices_below(connection: sa.Connection, project: str, counter: int) -> int:
    joined: Any = ASSIGNMENT.join(RELEASE, RELEASE.c.release_id == ASSIGNMENT.c.release_id)
    query = sa.select(sa.func.count()).select_from(joined).where(ASSIGNMENT.c.project == project, RELEASE.c.counter < counter)
    return connection.scalar(query) or 0
