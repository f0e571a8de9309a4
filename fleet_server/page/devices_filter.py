"""Which devices a question on the devices' screen selects, and in which order they stand: worst first.

A question is a selection as rollouts take it, for example `site = hall-2 and not group(pilots)`; if it cannot be read as one, it is words
that all must occur in the device's id, labels, state or release, for example `hall-2 trial`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from edgefleet.errors import InputError
from fleet_server.page.states import LEGEND, WORST_FIRST, device_shape, device_word
from fleet_server.read_models import DeviceRow, Progress
from fleet_server.rollout.limits import did_you_mean
from fleet_server.selection import Devices, Group, Has, Label, Leaf, Not, Selection, expanded, leaves, matches, read_selection, written

PAGE_ROWS: Final = 100
MAX_LOOKED_AT: Final = 10_000  # devices, by id; of a larger fleet the command line looks at all
MAX_QUESTION: Final = 1_000
Groups = Mapping[tuple[str, str], str]
_SYNTAX: Final = frozenset("=()")


@dataclass(frozen=True)
class Chosen:
    """What a question selects.

    Attributes:
        rows: At most PAGE_ROWS devices of the page asked for.
        matching: Devices that match in all.
        total: Devices of the fleet.
        counts: By state, over the devices that match the words (before the state is chosen).
        page: Number of this page, from 1; `pages` is the last.
        read_as: The selection that the question was read as, empty: words.
        trouble: Why it was not read as the selection that it seems to be, or what in it does not exist; empty: nothing to say.
        cut: Whether the fleet may have more devices than were looked at.
    """

    rows: list[DeviceRow]
    matching: int
    total: int
    counts: dict[Progress, int]
    question: str
    state: str
    page: int
    pages: int
    read_as: str
    trouble: str
    cut: bool


def select(devices: Sequence[DeviceRow], question: str, state: str, page: int, groups: Groups) -> Chosen:
    """Devices that the question means, in this state, worst first.

    Args:
        devices: Of the fleet.
        question: As it was typed; one of more than MAX_QUESTION characters selects nobody, for cut off it would mean something else.
        state: A word of the legend; anything else: all states.
        page: From 1.
        groups: Text of the selection by (project, name).
    """
    question = question.strip()
    matching, read_as, trouble = _meant(devices, question, groups)
    counts = Counter(device_shape(device) for device in matching)
    if state in LEGEND:
        matching = [device for device in matching if device_shape(device) == state]
    matching.sort(key=lambda device: (WORST_FIRST.index(device_shape(device)), not device.drifting, device.device_id))
    pages = max(1, -(-len(matching) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    return Chosen(
        rows=matching[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
        matching=len(matching),
        total=len(devices),
        counts={shape: counts[shape] for shape in LEGEND},
        question=question[:MAX_QUESTION],
        state=state if state in LEGEND else "",
        page=page,
        pages=pages,
        read_as=read_as,
        trouble=trouble,
        cut=len(devices) >= MAX_LOOKED_AT,
    )


def _meant(devices: Sequence[DeviceRow], question: str, groups: Groups) -> tuple[list[DeviceRow], str, str]:
    """The devices, what the question was read as, and what is wrong with it."""
    if len(question) > MAX_QUESTION:
        remedy = "give the devices a label or a group"
        return [], "", f"The question has {len(question)} characters, the limit here is {MAX_QUESTION}; {remedy}."
    try:
        selection = read_selection(question)
    except InputError as err:
        words = question.casefold().split()
        found = [device for device in devices if all(word in _haystack(device) for word in words)]
        said = f"Read as words, for as a selection it cannot be read: {str(err).rstrip('.')}."
        return found, "", said if _SYNTAX.intersection(question) else ""

    @cache
    def within(project: str) -> Selection | None:
        """The selection in one project; None where it lacks a group: nobody is meant there."""
        try:
            return expanded(selection, lambda name: read_selection(groups[project, name]))
        except KeyError:
            return None

    found = [device for device in devices if _selects(within(device.project), device)]
    return found, written(selection), " ".join(dict.fromkeys(_unknown(devices, selection, groups)))


def _unknown(devices: Sequence[DeviceRow], selection: Selection, groups: Groups) -> Iterator[str]:
    """What a rollout would refuse, because it selects nobody or, behind a `not`, everybody."""
    names = {name for _, name in groups}
    ids = {device.device_id for device in devices}
    values: dict[str, set[str]] = {}
    for device in devices:
        for key, value in device.labels.items():
            values.setdefault(key, set()).add(value)
    for leaf, positive in leaves(selection):
        # Of devices that were not looked at it is not known what they have.
        if isinstance(leaf, Group) or len(devices) < MAX_LOOKED_AT:
            yield from _unknown_in(leaf, positive, names, ids, values)


def _unknown_in(leaf: Leaf, positive: bool, groups: set[str], ids: set[str], values: Mapping[str, set[str]]) -> Iterator[str]:
    match leaf:
        case Group(name) if name not in groups:
            yield f"There is no group {name}{did_you_mean(name, groups)}."
        case Devices(device_ids) if missing := [one for one in device_ids if one not in ids]:
            yield f"There is no device {missing[0]}."
        case Label(key) | Has(key) if key not in values:
            yield f"No device has a label {key}{did_you_mean(key, values)}."
        case Label(key, some) if not positive and (missing := [value for value in some if value not in values[key]]):
            yield f"{written(Not(Label(key, (missing[0],))))} leaves out nobody{did_you_mean(missing[0], values[key])}."


def _selects(selection: Selection | None, device: DeviceRow) -> bool:
    return selection is not None and matches(selection, device.device_id, device.labels)


def _haystack(device: DeviceRow) -> str:
    labels = " ".join(f"{key}={value}" for key, value in device.labels.items())
    drifting = "drifting" if device.drifting else ""
    quarantined = "quarantined" if device.quarantined else ""
    parts = (device.device_id, labels, device_word(device), device.running_release, device.desired_release, drifting, quarantined)
    return " ".join(parts).casefold()
