"""How many devices each of many selections selects: the labels that they name are read once, the rest is arithmetic on bits.

Each device of the project is a bit of a whole number, so that `and`, `or` and `not` of a selection are those of numbers. A leaf costs one
number: 12.5 kB for 100,000 devices. What is read grows with the devices that have the labels, not with the number of selections.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Final, TypeAlias, TypeVarTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from fleet_server.selection import Devices, Either, Every, Group, Has, Label, Leaf, Not, Selection, leaves
from fleet_server.store import selecting
from fleet_server.store.tables import DEVICE, DEVICE_LABEL

_BATCH: Final = 500
_KEPT: Final = 512  # leaves, so 6 MB for 100,000 devices
_COMMA: Final = ","  # no identifier has one
_IDS: Final = sa.func.aggregate_strings(DEVICE_LABEL.c.device_id, _COMMA)
_Places: TypeAlias = npt.NDArray[np.int64]
_Columns = TypeVarTuple("_Columns")


class Census:
    """The devices of one project as bits, in one snapshot.

    Args:
        connection: A snapshot.
        project: Whose devices.
        selections: All that will be counted, without groups.

    Attributes:
        values: (label, value) -> whether a device has it, of the values that the selections name.
    """

    def __init__(self, connection: sa.Connection, project: str, selections: Iterable[Selection]) -> None:
        named = {leaf for selection in selections for leaf, _ in leaves(selection)}
        joined = sa.func.aggregate_strings(DEVICE.c.device_id, _COMMA)
        ids = connection.scalar(sa.select(joined).where(selecting.of_project(project))) or ""
        self._place = {device_id: place for place, device_id in enumerate(ids.split(_COMMA) if ids else ())}
        self._everybody = (1 << len(self._place)) - 1
        wanted = _values(named)
        self._having = {pair: self._places(found) for pair, found in _with_values(connection, project, wanted)}
        self._labelled = {leaf.key: self._places(_with_label(connection, project, leaf.key)) for leaf in named if isinstance(leaf, Has)}
        self.values = {(key, value): (key, value) in self._having for key, some in wanted.items() for value in some}
        self._leaf = lru_cache(_KEPT)(self._read)

    def count(self, selection: Selection) -> int:
        """How many devices one of the selections selects."""
        return self._bits(selection).bit_count()

    def _bits(self, selection: Selection) -> int:
        match selection:
            case Not(part):
                return self._everybody ^ self._bits(part)
            case Every(parts):
                return reduce(and_, map(self._bits, parts), self._everybody)
            case Either(parts):
                return reduce(or_, map(self._bits, parts), 0)
            case _:
                return self._leaf(selection)

    def _read(self, leaf: Leaf) -> int:
        match leaf:
            case Label(key, values):
                found = [self._having[key, value] for value in values if (key, value) in self._having]
            case Has(key):
                found = [self._labelled[key]]
            case Devices(device_ids):
                found = [self._places(device_ids)]
            case Group(name):
                raise ValueError(f"group {name!r} is not expanded: who is in it is not known here")
        marks = np.zeros(len(self._place), dtype=np.bool_)
        for places in found:
            marks[places] = True
        return int.from_bytes(np.packbits(marks, bitorder="little").tobytes(), "little")

    def _places(self, device_ids: Iterable[str]) -> _Places:
        # Not every database shows all questions the same devices: one that came or went between two of them is left out.
        place = self._place
        return np.array([place[one] for one in device_ids if one in place], dtype=np.int64)


def _values(named: Iterable[Leaf]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for leaf in named:
        if isinstance(leaf, Label):
            found.setdefault(leaf.key, set()).update(leaf.values)
    return {key: sorted(some) for key, some in found.items()}


def _with_values(connection: sa.Connection, project: str, wanted: dict[str, list[str]]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """The devices of each (label, value) that any device has."""
    for key, some in wanted.items():
        for start in range(0, len(some), _BATCH):
            query = _of_label(sa.select(DEVICE_LABEL.c.value, _IDS), project, key)
            query = query.where(DEVICE_LABEL.c.value.in_(some[start : start + _BATCH])).group_by(DEVICE_LABEL.c.value)
            yield from (((key, value), ids.split(_COMMA)) for value, ids in connection.execute(query))


def _with_label(connection: sa.Connection, project: str, key: str) -> list[str]:
    ids: str | None = connection.scalar(_of_label(sa.select(_IDS), project, key))
    return ids.split(_COMMA) if ids else []


def _of_label(query: sa.Select[*_Columns], project: str, key: str) -> sa.Select[*_Columns]:
    return query.select_from(DEVICE_LABEL).join(DEVICE).where(selecting.of_project(project), DEVICE_LABEL.c.key == key)
