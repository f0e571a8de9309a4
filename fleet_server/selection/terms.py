"""The parts of a selection and what they mean for one device.

The functions below make them in normal form (no `and` within `and`, no part twice, no double `not`, values in order, `a = 1 or a = 2` as
`a in (1, 2)`), so that texts that differ only so are the same selection. Which selections mean the same beyond that is not looked into.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True)
class Label:
    """The device has the label, with one of these values."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Has:
    """The device has the label, with any value."""

    key: str


@dataclass(frozen=True)
class Devices:
    """The device is one of these."""

    device_ids: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The device is in a group of its project, whose selection is kept elsewhere."""

    name: str


@dataclass(frozen=True)
class Not:
    """The device is not selected by this: of a label also each device that does not have it."""

    part: "Selection"


@dataclass(frozen=True)
class Every:
    """All parts select the device; without a part everybody."""

    parts: tuple["Selection", ...]


@dataclass(frozen=True)
class Either:
    """At least one part selects the device."""

    parts: tuple["Selection", ...]


Leaf: TypeAlias = Label | Has | Devices | Group
Selection: TypeAlias = Label | Has | Devices | Group | Not | Every | Either

EVERYBODY: Final = Every(())


def label(key: str, values: Iterable[str]) -> Label:
    """The label has one of the values, at least one."""
    return Label(key, tuple(sorted(set(values))))


def devices(device_ids: Iterable[str]) -> Devices:
    """One of these devices, at least one."""
    return Devices(tuple(sorted(set(device_ids))))


def negated(part: Selection) -> Selection:
    """Everybody else."""
    return part.part if isinstance(part, Not) else Not(part)


def every(parts: Iterable[Selection]) -> Selection:
    """All of them."""
    found = _merged(parts, lambda part: part.parts if isinstance(part, Every) else (part,))
    excluded = _united(part.part for part in found if isinstance(part, Not))
    found = _merged([*(part for part in found if not isinstance(part, Not)), *map(negated, excluded)])
    return found[0] if len(found) == 1 else Every(found)


def either(parts: Iterable[Selection]) -> Selection:
    """At least one of at least one."""
    found = _merged(_united(_merged(parts, lambda part: part.parts if isinstance(part, Either) else (part,))))
    if not found:
        raise ValueError("a choice between nothing selects nobody; give at least one part")
    if EVERYBODY in found:
        return EVERYBODY
    return found[0] if len(found) == 1 else Either(found)


def _merged(
    parts: Iterable[Selection], opened: Callable[[Selection], tuple[Selection, ...]] = lambda part: (part,)
) -> tuple[Selection, ...]:
    return tuple(sorted({inner for part in parts for inner in opened(part)}, key=repr))


def _united(parts: Iterable[Selection]) -> list[Selection]:
    """What selects the same as all of them by `or`: one label with the values of all, one list of devices."""
    values: dict[str, list[str]] = {}
    device_ids: list[str] = []
    others: list[Selection] = []
    for part in parts:
        match part:
            case Label(key, some):
                values.setdefault(key, []).extend(some)
            case Devices(some):
                device_ids += some
            case _:
                others.append(part)
    return [*(label(key, some) for key, some in values.items()), *([devices(device_ids)] if device_ids else []), *others]


def matches(selection: Selection, device_id: str, labels: Mapping[str, str]) -> bool:
    """Whether a device is selected.

    Args:
        selection: Without groups (`expanded`).
        device_id: Of the device.
        labels: All that it has.
    """
    match selection:
        case Label(key, values):
            return labels.get(key) in values
        case Has(key):
            return key in labels
        case Devices(device_ids):
            return device_id in device_ids
        case Not(part):
            return not matches(part, device_id, labels)
        case Every(parts):
            return all(matches(part, device_id, labels) for part in parts)
        case Either(parts):
            return any(matches(part, device_id, labels) for part in parts)
        case Group(name):
            raise ValueError(f"group {name!r} is not expanded: who is in it is not known here")


def expanded(selection: Selection, group: Callable[[str], Selection]) -> Selection:
    """The selection with what `group` gives in the place of each group's name."""
    match selection:
        case Group(name):
            return group(name)
        case Not(part):
            return negated(expanded(part, group))
        case Every(parts):
            return every(expanded(part, group) for part in parts)
        case Either(parts):
            return either(expanded(part, group) for part in parts)
        case _:
            return selection


def requiring(selection: Selection, key: str, *, positive: bool = True) -> Selection:
    """The selection if each exclusion of a value of the label asked for the label too: whoever lacks it is then taken by none of them."""
    match selection:
        case Label(excluded, _) if excluded == key and not positive:
            return either([selection, negated(Has(key))])
        case Not(part):
            return negated(requiring(part, key, positive=not positive))
        case Every(parts):
            return every(requiring(part, key, positive=positive) for part in parts)
        case Either(parts):
            return either(requiring(part, key, positive=positive) for part in parts)
        case _:
            return selection


def leaves(selection: Selection, *, positive: bool = True) -> Iterator[tuple[Leaf, bool]]:
    """Each leaf, and whether being selected by it speaks for the device (else against it), in the order of the normal form."""
    match selection:
        case Not(part):
            yield from leaves(part, positive=not positive)
        case Every(parts) | Either(parts):
            for inner in parts:
                yield from leaves(inner, positive=positive)
        case _:
            yield selection, positive


def groups_in(selection: Selection) -> list[str]:
    """Names of the groups that it names, in order."""
    return sorted({leaf.name for leaf, _ in leaves(selection) if isinstance(leaf, Group)})
