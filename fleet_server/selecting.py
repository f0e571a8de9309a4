"""A selection in one project: its groups by what they mean now, and nothing in it that is unknown there.

A misspelt word selects nobody, or, behind a `not`, everybody: so a label, device or group that the project does not have is refused, and so
is a value that is excluded and that no device has. A value that is asked for and that no device has yet is remarked upon.
"""

from collections.abc import Iterable
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server.rollout.limits import did_you_mean
from fleet_server.selection import Devices, Has, Label, Not, Selection, expanded, leaves, read_selection, written
from fleet_server.selection.terms import every, negated
from fleet_server.store import groups, selecting

_NAMED: Final = 10


def resolved(connection: sa.Connection, project: str, selection: Selection, where: str = "selection") -> Selection:
    """The selection without groups; what it means is fixed from here on.

    Args:
        connection: A snapshot.
        project: Whose devices are meant.
        selection: As it was written.
        where: What it belongs to, for the message.

    Raises:
        ConfigError: A group, label, excluded value or device that the project does not have; with what there is.
    """
    found = expanded(selection, _groups(connection, project, where))
    named = list(leaves(found))
    refuse_unknown_labels(connection, project, (leaf.key for leaf, _ in named if isinstance(leaf, Label | Has)), where)
    _refuse_unknown_devices(connection, project, [one for leaf, _ in named if isinstance(leaf, Devices) for one in leaf.device_ids], where)
    for leaf, positive in named:
        if isinstance(leaf, Label) and not positive:
            _refuse_unknown_value(connection, project, leaf, where)
    return found


def remarks(connection: sa.Connection, project: str, selection: Selection) -> list[str]:
    """What a person may not have meant, a sentence each, of a resolved selection."""
    found = []
    for leaf, positive in dict.fromkeys(leaves(selection)):
        if not isinstance(leaf, Label):
            continue
        if positive:
            known = selecting.values(connection, project, leaf.key, leaf.values)
            missing = [value for value in leaf.values if value not in known]
            if missing and known:
                found.append(f"No device of {project} has {leaf.key} = {', '.join(missing[:_NAMED])} yet.")
            continue
        without = every([selection, negated(Has(leaf.key))])
        if devices := selecting.count(connection, project, without):
            counted = "1 device that has" if devices == 1 else f"{devices} devices that have"
            found.append(f"`{written(Not(leaf))}` also takes {counted} no label {leaf.key}; add `has({leaf.key})` to leave such out.")
    return found


def refuse_unknown_labels(connection: sa.Connection, project: str, wanted: Iterable[str], where: str) -> None:
    """Refuse labels that no device of the project has: most are typing errors, and select nobody or everybody.

    Raises:
        ConfigError: With the labels that there are.
    """
    keys = sorted(set(wanted))
    if not keys:
        return
    known = selecting.keys(connection, project)
    for key in keys:
        if key not in known:
            listed = ", ".join(known[:_NAMED]) or "none: no device of this project has a label"
            raise ConfigError(f"{where}: no device of {project} has a label {key!r}{did_you_mean(key, known)}; known labels: {listed}")


def _groups(connection: sa.Connection, project: str, where: str) -> "_Groups":
    return _Groups({group.name: group.selection for group in groups.of_project(connection, project)}, project, where)


class _Groups:
    def __init__(self, texts: dict[str, str], project: str, where: str) -> None:
        self._texts, self._project, self._where = texts, project, where

    def __call__(self, name: str) -> Selection:
        if name not in self._texts:
            listed = ", ".join(sorted(self._texts)[:_NAMED]) or "none; `edgefleet devices group set` makes one"
            near = did_you_mean(name, self._texts)
            raise ConfigError(f"{self._where}: project {self._project} has no group {name!r}{near}; its groups: {listed}")
        return read_selection(self._texts[name])


def _refuse_unknown_devices(connection: sa.Connection, project: str, device_ids: list[str], where: str) -> None:
    known = selecting.known_ids(connection, project, device_ids)
    missing = [device_id for device_id in device_ids if device_id not in known]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ConfigError(f"{where}: not in project {project}: device {', '.join(missing[:_NAMED])}{more}; enroll it, or take it out")


def _refuse_unknown_value(connection: sa.Connection, project: str, leaf: Label, where: str) -> None:
    known = selecting.values(connection, project, leaf.key, leaf.values)
    for value in leaf.values:
        if value not in known:
            others = selecting.values(connection, project, leaf.key)
            raise ConfigError(
                f"{where}: `{written(Not(Label(leaf.key, (value,))))}` leaves out nobody, no device of {project} has that value"
                f"{did_you_mean(value, others)}; values of {leaf.key}: {', '.join(others[:_NAMED])}"
            )
