"""Groups of devices: a name for a selection of one project, for people who mean the same devices again and again.

A rollout keeps what a group meant when the rollout was planned: changing a group moves no device of a plan that somebody approved.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final

import sqlalchemy as sa

from edgefleet.digests import sha256_hex
from edgefleet.errors import EdgefleetError, InputError
from edgefleet.identifiers import check_id
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.enlisting import OPEN
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.reasons import reason_of
from fleet_server.selecting import resolved
from fleet_server.selection import Devices, Document, Selection, groups_in, leaves, logged, read_document, written
from fleet_server.services import Services
from fleet_server.store import Database, changes, groups, selecting
from fleet_server.store.census import Census
from fleet_server.store.groups import StoredGroup
from fleet_server.store.known import Known
from fleet_server.store.moments import from_micros

MAX_GROUPS: Final = 500
_FEW: Final = 3  # groups that are counted one by one: a census reads the whole project


@dataclass(frozen=True)
class GroupView:
    """A group of one project.

    Attributes:
        selection: Its text, in normal form.
        digest: Of that text; whoever changes the group may name it, so that it is the group that he saw.
        devices: How many it selects now; None: its selection means nothing any more, `trouble` says why.
        rollouts: That are not over and were planned with it, the oldest first: they keep what it meant then.
    """

    project: str
    name: str
    selection: str
    digest: str
    devices: int | None
    trouble: str
    rollouts: list[str]
    changed_at: datetime
    changed_by: str
    reason: str


def groups_of(db: Database, project: str | None = None, *, after: tuple[str, str] = ("", ""), limit: int | None = None) -> list[GroupView]:
    """The groups by project and name, with how many devices each selects now.

    Args:
        db: The database.
        project: Only of this one.
        after: Only groups behind this (project, name): the next page.
        limit: At most so many.
    """
    with db.read() as connection:
        found = groups.in_order(connection, project, after=after, limit=limit)
        return [view for its, own in groupby(found, lambda one: one.project) for view in _views(connection, its, list(own))]


def group_of(db: Database, project: str, name: str) -> GroupView:
    """One group.

    Raises:
        NotFoundError: There is no such group.
    """
    with db.read() as connection:
        return _views(connection, project, [_existing(connection, project, name)])[0]


def devices_of(db: Database, project: str, name: str, limit: int) -> list[str]:
    """The first devices, by id, that a group selects now; none where its selection means nothing any more.

    Raises:
        NotFoundError: There is no such group.
    """
    with db.read() as connection:
        group = _existing(connection, project, name)
        try:
            selection = resolved(connection, project, read_document(group.selection), f"group {name}")
        except EdgefleetError:  # the group's own view says what is the matter
            return []
        return selecting.select_ids(connection, project, selection, limit)


def texts_of(db: Database) -> dict[tuple[str, str], str]:
    """Text of the selection of each group, by (project, name), in order."""
    with db.read() as connection:
        return {(group.project, group.name): group.selection for group in groups.in_order(connection)}


def digest_of(selection: str) -> str:
    """Digest of a group's text; of the empty text where there is no group yet."""
    return sha256_hex(selection.encode())


def set_group(
    services: Services, project: str, name: str, *, selection: Document, reason: str, actor: Actor, digest: str = ""
) -> GroupView:
    """Make a group, or change whom it means from now on.

    Args:
        services: The server's parts.
        project: Whose devices.
        name: Identifier.
        selection: Which devices; it names no other group.
        reason: The person's words.
        actor: Who does it.
        digest: Of the group that the person saw (`digest_of`); empty: whatever it is now.

    Raises:
        InputError: No selection, everybody, another group in it, or no reason.
        ConfigError: A label, device or excluded value that the project does not have.
        NotFoundError: The project has no device.
        ConflictError: The project has MAX_GROUPS groups, or the group is another one than that of `digest`.
    """
    words = reason_of(reason)
    wanted = read_document(selection)
    refuse_unfit(wanted, name)
    at = services.now_us()
    with services.db.write() as connection:
        if not selecting.has_devices(connection, check_id(project, "project")):
            raise NotFoundError("project with devices", project)
        before, count = groups.get(connection, project, check_id(name, "group"), lock=True), len(groups.names(connection, project))
        _refuse_changed(before, name, digest)
        if before is None and count >= MAX_GROUPS:
            raise ConflictError(f"project {project} has {count} groups, the limit is {MAX_GROUPS}; remove one that is not needed")
        group = StoredGroup(project, name, written(resolved(connection, project, wanted, f"group {name}")), at, actor.name, words)
        if before is not None:
            groups.put(connection, group)
        elif not groups.add(connection, group):
            raise ConflictError(f"somebody else made a group {name} at this moment. Nothing was changed; look again.")
        was = f"{logged(before.selection)} became " if before is not None else ""
        _note(connection, at, actor, "set-group", project, f"{name}: {was}{logged(group.selection)}: {words}")
        return _views(connection, project, [group])[0]


def remove_group(services: Services, project: str, name: str, *, reason: str, actor: Actor, digest: str = "") -> list[str]:
    """Forget a group; rollouts that were planned with it go on as planned.

    Args:
        services: The server's parts.
        project: Whose group.
        name: Its name.
        reason: The person's words.
        actor: Who does it.
        digest: Of the group that the person saw; empty: whatever it is now.

    Returns:
        Those of these rollouts that are not over.

    Raises:
        InputError: No reason.
        NotFoundError: There is no such group.
        ConflictError: The group is another one than that of `digest`.
    """
    words = reason_of(reason)
    at = services.now_us()
    with services.db.write() as connection:
        group = _existing(connection, project, name, lock=True)
        _refuse_changed(group, name, digest)
        groups.drop(connection, project, name)
        _note(connection, at, actor, "remove-group", project, f"{name}, that was {logged(group.selection)}: {words}")
        return groups.planned_with(connection, project, OPEN).get(name, [])


def refuse_unfit(wanted: Selection, name: str) -> None:
    """Refuse what is no group.

    Raises:
        InputError: It is everybody, or another group stands in it.
    """
    if not any(leaves(wanted)):
        raise InputError(f"group {name[:64]!r} would be every device; that needs no group. Nothing was changed.")
    inner = groups_in(wanted)
    if inner:
        raise InputError(f"group {name[:64]!r} names the group {inner[0]!r}; write out what that one selects. Nothing was changed.")


def _existing(connection: sa.Connection, project: str, name: str, *, lock: bool = False) -> StoredGroup:
    group = groups.get(connection, project, name, lock=lock)
    if group is None:
        raise NotFoundError(f"group of project {project[:64]}", name)
    return group


def _refuse_changed(before: StoredGroup | None, name: str, digest: str) -> None:
    if digest and digest != digest_of("" if before is None else before.selection):
        is_now = "is not there any more" if before is None else f"means {logged(before.selection)} by now, says {before.changed_by}"
        raise ConflictError(f"group {name} {is_now}. Nothing was changed; look again.")


def _views(connection: sa.Connection, project: str, found: Sequence[StoredGroup]) -> list[GroupView]:
    read: dict[str, Selection] = {}
    trouble: dict[str, str] = {}
    for group in found:
        try:
            read[group.name] = read_document(group.selection)
        except EdgefleetError as err:
            trouble[group.name] = str(err)
    known = Known(connection, project)
    count = _counter(known, read.values())
    devices: dict[str, int] = {}
    for name, selection in read.items():
        try:
            devices[name] = count(resolved(connection, project, selection, f"group {name}", known))
        except EdgefleetError as err:
            trouble[name] = str(err)
    plans = groups.planned_with(connection, project, OPEN)
    return [
        GroupView(
            project=project,
            name=one.name,
            selection=one.selection,
            digest=digest_of(one.selection),
            devices=devices.get(one.name),
            trouble=trouble.get(one.name, ""),
            rollouts=plans.get(one.name, []),
            changed_at=from_micros(one.changed_at),
            changed_by=one.changed_by,
            reason=one.reason,
        )
        for one in found
    ]


def _counter(known: Known, selections: Iterable[Selection]) -> Callable[[Selection], int]:
    """How the devices of these selections are counted; what it reads of the project for that is known afterwards."""
    every = list(selections)
    if len(every) <= _FEW:
        return partial(selecting.count, known.connection, known.project)
    census = Census(known.connection, known.project, every)
    known.learn(census.values)
    known.ids(device_id for one in every for leaf, _ in leaves(one) if isinstance(leaf, Devices) for device_id in leaf.device_ids)
    return census.count


def _note(connection: sa.Connection, at: int, actor: Actor, action: str, project: str, detail: str) -> None:
    audit.record(connection, at, actor=actor.name, action=action, subject=("project", project), detail=detail)
    changes.touch(connection, at, "devices")
