"""A selection in one project: its groups by what they mean now, and nothing in it that is unknown there.

A misspelt word selects nobody, or, behind a `not`, everybody: so a label, device or group that the project does not have is refused, and so
is a value that is excluded and that no device has. A value that is asked for and that no device has yet is remarked upon, and so is a
device that was removed: it selects nobody, and must not stop all plans over a group that names it.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import ConfigError, InputError
from edgefleet.identifiers import check_id
from fleet_server.rollout.limits import did_you_mean
from fleet_server.selection import (
    EVERYBODY,
    MAX_CHARACTERS,
    Devices,
    Group,
    Has,
    Label,
    Leaf,
    Not,
    Selection,
    document_of,
    expanded,
    leaves,
    read_document,
    read_selection,
    written,
)
from fleet_server.selection.terms import every, negated, requiring
from fleet_server.store import groups, selecting
from fleet_server.store.known import Known

_NAMED: Final = 10
_SHOWN: Final = 120


def resolved(
    connection: sa.Connection, project: str, selection: Selection, where: str = "selection", known: Known | None = None
) -> Selection:
    """The selection without groups; what it means is fixed from here on, and can be kept: it is no larger than what can be read again.

    Args:
        connection: A snapshot.
        project: Whose devices are meant.
        selection: As it was written.
        where: What it belongs to, for the message.
        known: What was asked of the project before, where many selections are looked at in one snapshot.

    Raises:
        InputError: No project is named.
        ConfigError: A group, label, excluded value or device that the project does not have, with what there is; or it is too large with
            its groups written out.
    """
    known = known or Known(connection, check_id(project, "project"))
    if not known.has_devices():
        if selection == EVERYBODY:
            return selection
        raise ConfigError(f"{where}: project {project} has no device that could be selected; enroll one, or name another project")
    means = _groups(connection, project, selection, where)
    found = expanded(selection, means.__getitem__)
    _refuse_too_large(found, where)
    named = list(_named(selection, means, where))
    for origin in dict.fromkeys(origin for _, _, origin in named):
        own = [(leaf, positive) for leaf, positive, its in named if its == origin]
        _refuse_unknown_labels(known, (leaf.key for leaf, _ in own if isinstance(leaf, Label | Has)), origin)
        _refuse_unknown_devices(known, [one for leaf, _ in own if isinstance(leaf, Devices) for one in leaf.device_ids], origin)
        for leaf, positive in own:
            if isinstance(leaf, Label) and not positive:
                _refuse_unknown_value(known, leaf, origin)
    return found


def remarks(connection: sa.Connection, project: str, selection: Selection) -> list[str]:
    """What a person may not have meant, a sentence each, of a resolved selection: of at most so many leaves that one still reads them."""
    labels = [(leaf, positive) for leaf, positive in dict.fromkeys(leaves(selection)) if isinstance(leaf, Label)]
    asked = islice((_nobody_has(connection, project, leaf) for leaf, positive in labels if positive), _NAMED)
    # Whoever lacks a label is taken by each exclusion of it alike: one sentence for each label, not for each value.
    excluded = {leaf.key: leaf for leaf, positive in reversed(labels) if not positive}
    without = (_without(connection, project, selection, excluded[key]) for key in islice(sorted(excluded), _NAMED))
    return [sentence for sentence in (*asked, _removed(connection, project, selection), *without) if sentence]


def _removed(connection: sa.Connection, project: str, selection: Selection) -> str:
    known = selecting.known_ids(
        connection, project, [one for leaf, _ in leaves(selection) if isinstance(leaf, Devices) for one in leaf.device_ids]
    )
    gone = [device_id for device_id, is_here in sorted(known.items()) if not is_here]
    return f"Removed from the fleet, so not selected: {_listed(gone)}." if gone else ""


def _nobody_has(connection: sa.Connection, project: str, leaf: Label) -> str:
    known = selecting.known_values(connection, project, leaf.key, leaf.values)
    missing = [value for value in leaf.values if value not in known]
    if not missing:
        return ""
    near = did_you_mean(missing[0], selecting.values(connection, project, leaf.key)) if len(missing) == 1 else ""
    return f"No device of {project} has {leaf.key} = {_listed(missing)} yet{near}."


def _without(connection: sa.Connection, project: str, selection: Selection, leaf: Label) -> str:
    devices = selecting.count(connection, project, every([selection, negated(requiring(selection, leaf.key))]))
    if not devices:
        return ""
    counted = "1 device that has" if devices == 1 else f"{devices} devices that have"
    return f"`{_short(written(Not(leaf)))}` also takes {counted} no label {leaf.key}; add `has({leaf.key})` to leave such out."


def refuse_unknown_labels(connection: sa.Connection, project: str, wanted: Iterable[str], where: str) -> None:
    """Refuse labels that no device of the project has: most are typing errors, and select nobody or everybody.

    Raises:
        ConfigError: With the labels that there are.
    """
    _refuse_unknown_labels(Known(connection, project), wanted, where)


def _refuse_unknown_labels(known: Known, wanted: Iterable[str], where: str) -> None:
    for key in sorted(set(wanted)):
        if not known.has_label(key):
            keys = known.keys()
            listed = ", ".join(keys[:_NAMED]) or "none: no device of this project has a label"
            raise ConfigError(f"{where}: no device of {known.project} has a label {key!r}{did_you_mean(key, keys)}; known labels: {listed}")


def _groups(connection: sa.Connection, project: str, selection: Selection, where: str) -> dict[str, Selection]:
    """What the groups mean that are named; where they are named so often that the whole were too large, it is not even written out."""
    texts: dict[str, str] = {}
    characters = 0
    for leaf, _ in leaves(selection):
        if isinstance(leaf, Group):
            if leaf.name not in texts:
                texts[leaf.name] = _text_of(connection, project, leaf.name, where)
            characters += len(texts[leaf.name])
    if characters > MAX_CHARACTERS:
        raise ConfigError(
            f"{where}: its groups have {characters} characters written out, the limit is {MAX_CHARACTERS}; give the devices a label"
        )
    return {name: read_selection(text) for name, text in texts.items()}


def _text_of(connection: sa.Connection, project: str, name: str, where: str) -> str:
    group = groups.get(connection, project, name)
    if group is None:
        known = groups.names(connection, project)
        listed = ", ".join(known[:_NAMED]) or "none; `edgefleet devices group set` makes one"
        raise ConfigError(f"{where}: project {project} has no group {name!r}{did_you_mean(name, known)}; its groups: {listed}")
    return group.selection


def _named(selection: Selection, means: Mapping[str, Selection], where: str) -> Iterator[tuple[Leaf, bool, str]]:
    """Each leaf, whether it speaks for a device, and where a person finds it: in what was written, or in which group."""
    for leaf, positive in leaves(selection):
        if isinstance(leaf, Group):
            yield from ((inner, speaks, f"{where}: group {leaf.name}") for inner, speaks in leaves(means[leaf.name], positive=positive))
        else:
            yield leaf, positive, where


def _refuse_too_large(selection: Selection, where: str) -> None:
    """A plan whose selection could not be read again would be lost, and with it every question about rollouts."""
    try:
        read_document(document_of(selection))
    except InputError as err:
        raise ConfigError(f"{where}: written out in full it is too large: {err}") from err


def _refuse_unknown_devices(known: Known, device_ids: list[str], where: str) -> None:
    found = known.ids(device_ids)
    missing = [device_id for device_id in device_ids if device_id not in found]
    if missing:
        raise ConfigError(f"{where}: not in project {known.project}: device {_listed(missing)}; enroll it, or take it out")


def _refuse_unknown_value(known: Known, leaf: Label, where: str) -> None:
    found = known.values_among(leaf.key, leaf.values)
    for value in leaf.values:
        if value not in found:
            others = known.values(leaf.key)
            raise ConfigError(
                f"{where}: `{written(Not(Label(leaf.key, (value,))))}` leaves out nobody, no device of {known.project} has that value"
                f"{did_you_mean(value, others)}; values of {leaf.key}: {', '.join(others[:_NAMED])}"
            )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
