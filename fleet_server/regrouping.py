"""What a person wants changed about a group, in the words of the page: devices added, taken away, or said anew; looked at, then done.

A group stays a selection, so an addition is an `or`, and what is taken away an `and not`; lists of devices are kept short on the way.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy as sa

from edgefleet.digests import sha256_hex
from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from fleet_server.auth import Actor
from fleet_server.enlisting import OPEN
from fleet_server.errors import ConflictError
from fleet_server.grouping import GroupView, digest_of, refuse_unfit, set_group
from fleet_server.queries import NotFoundError
from fleet_server.selecting import remarks, resolved
from fleet_server.selection import MAX_CHARACTERS, Devices, Either, Selection, read_document, read_selection, written
from fleet_server.selection.terms import devices, either, every, negated
from fleet_server.services import Services
from fleet_server.store import Database, groups, selecting

How = Literal["make", "add", "take", "say"]
SHOWN: Final = 20  # devices that a preview names on each side
_SELECTION: Final = re.compile(r"[=()!]")
_BETWEEN: Final = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class GroupChange:
    """What a change of a group would do at this moment; nothing is changed.

    Attributes:
        before: Text of its selection; empty: there is no such group yet.
        after: Text of its selection then.
        digest: Of the change: of whose group it is, `before` and `after`; who does it names it, so that what is done is what was shown.
        devices: That it would select.
        came: The first devices of those that it would select and does not now; `comes` is how many there are.
        went: The first devices of those that it selects and would not then; `goes` is how many there are.
        told: What the person may not have meant, a sentence each.
        rollouts: That are not over and were planned with it: they keep what it meant.
    """

    project: str
    name: str
    before: str
    after: str
    digest: str
    devices: int
    came: list[str]
    comes: int
    went: list[str]
    goes: int
    told: list[str]
    rollouts: list[str]


def preview(db: Database, project: str, name: str, how: How, wanted: str) -> GroupChange:
    """Look at a change.

    Args:
        db: The database.
        project: Whose devices.
        name: Of the group.
        how: `make` it of these devices, `add` them, `take` them away, or `say` anew which devices it means.
        wanted: Names of devices, or a selection (`read_wanted`).

    Raises:
        InputError: What `grouping.set_group` refuses, a change that changes nothing, or a group without any device.
        ConfigError: A label, device or excluded value that the project does not have.
        NotFoundError: There is no such group; for `make`: the project has no device.
    """
    with db.read() as connection:
        if not selecting.has_devices(connection, check_id(project, "project")):
            raise NotFoundError("project with devices", project)
        before = groups.get(connection, project, check_id(name, "group"))
        text = "" if before is None else before.selection
        after = _changed(project, name, text, how, wanted)
        resolved(connection, project, after, f"group {name}")  # refuses what the project does not have
        was = None if before is None else read_document(text)
        came = selecting.select_ids(connection, project, after if was is None else every([after, negated(was)]))
        went = [] if was is None else selecting.select_ids(connection, project, every([was, negated(after)]))
        return GroupChange(
            project=project,
            name=name,
            before=text,
            after=written(after),
            digest=_digest(project, name, text, after),
            devices=selecting.count(connection, project, after),
            came=came[:SHOWN],
            comes=len(came),
            went=went[:SHOWN],
            goes=len(went),
            told=[*_idle(connection, project, how, was, read_wanted(wanted)), *remarks(connection, project, after)],
            rollouts=groups.planned_with(connection, project, OPEN).get(name, []),
        )


def change(services: Services, project: str, name: str, how: How, wanted: str, *, digest: str, reason: str, actor: Actor) -> GroupView:
    """Do a change that was looked at; the arguments are those of `preview`.

    Args:
        services: The server's parts.
        project: Whose devices.
        name: Of the group.
        how: As in `preview`.
        wanted: As in `preview`.
        digest: Of the change that the person saw.
        reason: For the log.
        actor: Who does it.

    Raises:
        InputError: As in `preview`, no reason, or nothing was looked at.
        ConfigError: As in `preview`.
        NotFoundError: As in `preview`.
        ConflictError: The group is another one by now, or the change is not the one that was shown.
    """
    if not digest:
        raise InputError("look at the change first: what is done is what was shown. Nothing was changed.")
    with services.db.read() as connection:
        before = groups.get(connection, check_id(project, "project"), check_id(name, "group"))
    text = "" if before is None else before.selection
    after = _changed(project, name, text, how, wanted)
    if digest != _digest(project, name, text, after):
        raise ConflictError(
            f"this is not the change of group {name} that was shown: it or the group is another one by now. Nothing was changed."
        )
    return set_group(services, project, name, selection=written(after), reason=reason, actor=actor, digest=digest_of(text))


def read_wanted(text: str) -> Selection:
    """The devices that a person wrote: a selection where there is an operator or a bracket, else names between spaces, lines or commas.

    >>> written(read_wanted("press-7, press-9")), written(read_wanted("site = hall-1"))
    ('device(press-7, press-9)', 'site = hall-1')

    Raises:
        InputError: Nothing, too much, or what is neither.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"the devices have {len(text)} characters, the limit is {MAX_CHARACTERS}; give them a label instead")
    names = [name for name in _BETWEEN.split(text) if name]
    if not names:
        raise InputError("no device is named; write names, or a selection, for example `site = hall-1`. Nothing was changed.")
    if _SELECTION.search(text):
        return read_selection(text)
    return devices(check_id(name, "device") for name in names)


def added(before: Selection, wanted: Selection) -> Selection:
    """Both together.

    >>> written(added(read_selection("device(a)"), read_selection("device(b)")))
    'device(a, b)'
    """
    return either([before, wanted])


def taken(before: Selection, wanted: Selection) -> Selection | None:
    """The first without the second; None when nothing of it is left. Devices that it lists are taken off the list.

    >>> written(taken(read_selection("site = s or device(a, b)"), read_selection("device(b)")))
    'device(a) or not device(b) and site = s'
    """
    if not isinstance(wanted, Devices):
        return every([before, negated(wanted)])
    parts = before.parts if isinstance(before, Either) else (before,)
    listed = {one for part in parts if isinstance(part, Devices) for one in part.device_ids}
    others = [part for part in parts if not isinstance(part, Devices)]
    kept = listed.difference(wanted.device_ids)
    left = [*([every([either(others), negated(wanted)])] if others else []), *([devices(kept)] if kept else [])]
    return either(left) if left else None


def _changed(project: str, name: str, text: str, how: How, wanted: str) -> Selection:
    """The group's selection after the change."""
    given = read_wanted(wanted)
    if how == "make" and text:
        raise InputError(f"project {project} has a group {name!r} already: {text[:200]}. Change that one, or choose another name.")
    if how != "make" and not text:
        raise NotFoundError(f"group of project {project[:64]}", name)
    refuse_unfit(given, name)
    if how in ("make", "say"):
        after: Selection | None = given
    else:
        before = read_document(text)
        after = added(before, given) if how == "add" else taken(before, given)
    if after is None:
        raise InputError(f"group {name!r} would be empty; remove it instead. Nothing was changed.")
    refuse_unfit(after, name)
    if written(after) == text:
        raise InputError(f"group {name!r} means exactly that already: {text[:200]}. Nothing was changed.")
    return after


def _idle(connection: sa.Connection, project: str, how: How, was: Selection | None, wanted: Selection) -> list[str]:
    """Which of the devices that were named are added to a group that has them, or taken from one that does not."""
    if was is None or how not in ("add", "take") or not isinstance(wanted, Devices):
        return []
    idle = selecting.select_ids(connection, project, every([wanted, was if how == "add" else negated(was)]), SHOWN + 1)
    listed = ", ".join(idle[:SHOWN]) + (" and more" if len(idle) > SHOWN else "")
    return [f"{'In it already' if how == 'add' else 'Not in it'}: {listed}."] if idle else []


def _digest(project: str, name: str, before: str, after: Selection) -> str:
    return sha256_hex("\n".join((project, name, before, written(after))).encode())
