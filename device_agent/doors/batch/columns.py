"""From named columns to a row in the manifest's order. Texts become numbers here and nowhere else: a CSV knows only texts."""

import difflib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from edgefleet.errors import ConfigError, InputError, RowRejected
from edgefleet.manifest import Input

_SHOWN: Final = 8
TIME_LIMIT: Final = "seconds since 1970, or a time like 2026-05-31T12:00:00+00:00"


class Columns:
    """Where the inputs stand among an input's columns; other columns are ignored, and named in `ignored`.

    Args:
        names: The columns' names.
        inputs: The manifest's inputs.
        group: Column that says what a row belongs to, None for none.
        time: Column that says when it was measured, None for none.
        missing: Texts that stand for a missing value, beside the empty one.

    Raises:
        InputError: A column is missing or there twice.
    """

    def __init__(self, names: Sequence[str], inputs: list[Input], group: str | None, time: str | None, missing: Sequence[str] = ()) -> None:
        self.names, self._inputs = list(names), inputs
        wanted = [*(column.name for column in inputs), *(name for name in (group, time) if name is not None)]
        if lost := [name for name in wanted if name not in self.names]:
            raise InputError(f"columns are missing: {_listed(lost)}{self._hint(lost[0])}; there are {_listed(self.names)}")
        if twice := sorted({name for name in wanted if self.names.count(name) > 1}):
            raise InputError(f"columns are there twice: {_listed(twice)}; name each once")
        self.ignored = [name for name in self.names if name not in wanted]
        self.used = [name for name in self.names if name in wanted]
        self._places = [self.names.index(column.name) for column in inputs]
        self._numeric = all(column.kind == "number" for column in inputs)
        self._group = None if group is None else self.names.index(group)
        self._time = None if time is None else self.names.index(time)
        self._missing = frozenset(["", *missing])

    def row(self, cells: Sequence[str]) -> list[object]:
        """The row of one line's cells: floats, None where missing, texts of categories.

        Raises:
            RowRejected: Another number of cells than names (`count`), or no number where one stands (`type`).
        """
        self.check_count(cells)
        if self._numeric:
            try:
                numbers: list[object] = [float(cells[place]) for place in self._places]
            except ValueError:
                pass
            else:
                # Python reads 1_000 as a number; nobody else does.
                if "_" not in "".join(cells) and self._missing.isdisjoint(cells):
                    return numbers
        return [self._value(column, cells[place]) for column, place in zip(self._inputs, self._places, strict=True)]

    def check_count(self, cells: Sequence[str]) -> None:
        """Raise RowRejected for another number of cells than names."""
        if len(cells) != len(self.names):
            raise RowRejected(None, f"{len(cells)} cells", f"{len(self.names)} cells, as many as the header has names", "count")

    def group(self, cells: Sequence[str]) -> str:
        """What the row belongs to."""
        return "" if self._group is None else cells[self._group]

    def time(self, cells: Sequence[str]) -> float:
        """When the row was measured; RowRejected when it does not say."""
        return 0.0 if self._time is None else seconds_of(cells[self._time], self.names[self._time])

    def _value(self, column: Input, cell: str) -> object:
        if cell in self._missing:
            return None
        if column.kind == "category":
            return cell
        unit = f" ({column.unit})" if column.unit else ""
        try:
            if "_" in cell:  # Python's own way of grouping digits
                raise ValueError
            return float(cell)
        except ValueError as err:
            raise RowRejected(column.name, repr(cell)[:80], f"a number{unit}", "type") from err

    def _hint(self, lost: str) -> str:
        if len(self.names) == 1 and (found := next((mark for mark in ";\t|" if mark in self.names[0]), None)):
            return f" (is the file separated by {found!r}? then say --delimiter)"
        near = difflib.get_close_matches(lost, self.names, n=1)
        return f" (did you mean {near[0]!r}?)" if near else ""


def seconds_of(value: object, name: str) -> float:
    """A time in seconds since 1970 from a number or an ISO 8601 text; without zone it is UTC.

    Raises:
        RowRejected: It is neither.
    """
    try:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, str) and not _is_number(value):
            moment = datetime.fromisoformat(value)
        else:
            number = float(value)  # type: ignore[arg-type]  # the error is caught
            if math.isfinite(number):
                return number
            raise ValueError
    except (TypeError, ValueError, OverflowError) as err:
        raise RowRejected(name, repr(value)[:80], TIME_LIMIT, "type") from err
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_header(names: Sequence[str], inputs: list[Input]) -> None:
    """Refuse a first line that is a row.

    Raises:
        InputError: All its cells are numbers or empty, and no input is called so.
    """
    known = {column.name for column in inputs}
    if names and all(name == "" or _is_number(name) for name in names) and known.isdisjoint(names):
        raise InputError(f"line 1 is no header but a row ({_listed(names)}); put the inputs' names there, or say --no-header")


def check_aside(group: str | None, time: str | None, inputs: list[Input]) -> None:
    """Refuse a group or time column that is an input: it would be learned from and taken away at once.

    Raises:
        ConfigError: So.
    """
    for name in (group, time):
        if name is not None and name in {column.name for column in inputs}:
            raise ConfigError(f"{name!r} is an input of the model and cannot also be its group or time; name another column")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
