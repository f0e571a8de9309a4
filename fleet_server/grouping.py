"""Groups of devices: a name for a selection of one project, for people who mean the same devices again and again.

A rollout keeps what a group meant when the rollout was planned: changing a group moves no device of a plan that somebody approved.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError, InputError
from edgefleet.identifiers import check_id
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.reasons import reason_of
from fleet_server.selecting import resolved
from fleet_server.selection import Document, Group, leaves, logged, read_document, written
from fleet_server.services import Services
from fleet_server.store import Database, changes, groups, selecting
from fleet_server.store.groups import StoredGroup
from fleet_server.store.moments import from_micros

MAX_GROUPS: Final = 500


@dataclass(frozen=True)
class GroupView:
    """A group of one project.

    Attributes:
        selection: Its text, in normal form.
        devices: How many it selects now; None: its selection means nothing any more, `trouble` says why.
    """

    project: str
    name: str
    selection: str
    devices: int | None
    trouble: str
    changed_at: datetime
    changed_by: str
    reason: str


def groups_of(db: Database, project: str | None = None) -> list[GroupView]:
    """The groups of a project, of all projects when none is named, with how many devices each selects now."""
    with db.read() as connection:
        return [_view(connection, group) for group in groups.of_project(connection, project)]


def texts_of(db: Database) -> dict[tuple[str, str], str]:
    """Text of the selection of each group, by (project, name)."""
    with db.read() as connection:
        return {(group.project, group.name): group.selection for group in groups.of_project(connection)}


def set_group(services: Services, project: str, name: str, *, selection: Document, reason: str, actor: Actor) -> GroupView:
    """Make a group, or change whom it means from now on.

    Args:
        services: The server's parts.
        project: Whose devices.
        name: Identifier.
        selection: Which devices; it names no other group.
        reason: The person's words.
        actor: Who does it.

    Raises:
        InputError: No selection, everybody, another group in it, or no reason.
        ConfigError: A label, device or excluded value that the project does not have.
        NotFoundError: The project has no device.
        ConflictError: The project has MAX_GROUPS groups.
    """
    words = reason_of(reason)
    wanted = read_document(selection)
    named = [leaf for leaf, _ in leaves(wanted)]
    if not named:
        raise InputError(f"group {name[:64]!r} would be every device; that needs no group. Nothing was changed.")
    inner = sorted({leaf.name for leaf in named if isinstance(leaf, Group)})
    if inner:
        raise InputError(f"group {name[:64]!r} names the group {inner[0]!r}; write out what that one selects. Nothing was changed.")
    at = services.now_us()
    with services.db.write() as connection:
        if not selecting.has_devices(connection, check_id(project, "project")):
            raise NotFoundError("project with devices", project)
        before, count = groups.get(connection, project, check_id(name, "group")), len(groups.names(connection, project))
        if before is None and count >= MAX_GROUPS:
            raise ConflictError(f"project {project} has {count} groups, the limit is {MAX_GROUPS}; remove one that is not needed")
        group = StoredGroup(project, name, written(resolved(connection, project, wanted, f"group {name}")), at, actor.name, words)
        groups.put(connection, group)
        was = f"{logged(before.selection)} became " if before is not None else ""
        _note(connection, at, actor, "set-group", project, f"{name}: {was}{logged(group.selection)}: {words}")
        return _view(connection, group)


def remove_group(services: Services, project: str, name: str, *, reason: str, actor: Actor) -> None:
    """Forget a group; rollouts that were planned with it go on as planned.

    Raises:
        InputError: No reason.
        NotFoundError: There is no such group.
    """
    words = reason_of(reason)
    at = services.now_us()
    with services.db.write() as connection:
        group = groups.get(connection, project, name)
        if group is None:
            raise NotFoundError(f"group of project {project[:64]}", name)
        groups.drop(connection, project, name)
        _note(connection, at, actor, "remove-group", project, f"{name}, that was {logged(group.selection)}: {words}")


def _view(connection: sa.Connection, group: StoredGroup) -> GroupView:
    devices: int | None = None
    trouble = ""
    try:
        devices = selecting.count(
            connection, group.project, resolved(connection, group.project, read_document(group.selection), f"group {group.name}")
        )
    except EdgefleetError as err:
        trouble = str(err)
    at = from_micros(group.changed_at)
    return GroupView(group.project, group.name, group.selection, devices, trouble, at, group.changed_by, group.reason)


def _note(connection: sa.Connection, at: int, actor: Actor, action: str, project: str, detail: str) -> None:
    audit.record(connection, at, actor=actor.name, action=action, subject=("project", project), detail=detail)
    changes.touch(connection, at, "devices")
