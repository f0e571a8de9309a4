"""One row on its way to the model: texts, lists and mappings become float32, and what is refused is said in words.

The rules themselves (limits, infinities, missing values, categories, clipping) are those of `edgefleet.checks`, which the trainer uses too.
Two steps, because statistics count every row that parses, before the range policy. `parse` writes a row into the ring and refuses what is
no row (wrong count, text where a number stands, an index that no category has). `admit` refuses what the model must not see (infinite,
missing, out of range) and clips where the policy says so. Texts never become numbers: "3.5" is refused, although numpy would parse it.
"""

import struct
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.checks import CATEGORY, INFINITE, MISSING, OUTSIDE, RANGE, REASONS, Checks
from edgefleet.errors import RowRejected
from edgefleet.manifest import Input

Matrix = NDArray[np.float32]
_FLOAT32: Final = np.dtype(np.float32)
_at_least, _at_most = np.greater_equal, np.less_equal
# Of a value and NaN these give the limit, so that a missing value is among those that come out changed.
_raised, _lowered = np.fmax, np.fmin
_NUMBER: Final = "a number"
_NAN: Final = float("nan")
# The order in which a row with several faults is refused.
_REFUSED: Final = (CATEGORY, INFINITE, MISSING, RANGE)


class RowChecks:
    """The checks of one bundle over one ring.

    Args:
        inputs: The manifest's inputs, in column order.
        ring: [slots + 1, F] float32; the last row is scratch for clipped rows.
        no_missing: Name of the variant when it takes no missing value (integer arithmetic would answer one with confidence): NaN is then
            refused whatever the schema allows. None otherwise.
        row_width: Inputs of one row where `inputs` are those of a window, one row after the other; 0 = all of them.
    """

    def __init__(self, inputs: list[Input], ring: Matrix, no_missing: str | None = None, row_width: int = 0) -> None:
        self.inputs, self.features = inputs, len(inputs)
        self._names = [column.name for column in inputs]
        self._known = frozenset(self._names)
        self._rows, self._shape = list(ring), (len(inputs),)
        self._pack = struct.Struct(f"{self.features}f").pack_into  # refuses text, and costs half of a numpy assignment
        self._bytes, self._row_bytes = ring.data.cast("B"), 4 * self.features
        self._scratch, self._scratch_slot = ring[-1:], len(ring) - 1
        self._texts = {i: {t: j for j, t in enumerate(c.categories)} for i, c in enumerate(inputs) if c.kind == "category"}
        self._no_missing, self._row_width = no_missing, row_width
        self._rules = Checks(inputs, None if no_missing is None else [True] * self.features)
        self._low, self._high = self._rules.admit_low, self._rules.admit_high
        inside = np.zeros(2 * self.features, bool)
        self._above_low, self._below_high, self._inside = inside[: self.features], inside[self.features :], inside
        self._all_inside = b"\x01" * (2 * self.features)
        self._limited = np.zeros(self.features, np.float32)
        self._by_name: Callable[[Any], Any] | None = itemgetter(*self._names) if self.features > 1 else None

    def fits(self, row: object, slot: int) -> bool:
        """Write a row into ring row `slot` if it is of the usual kind and nothing in it is refused, missing or clipped.

        False says nothing about the row, and leaves the ring row undefined: `parse` and `admit` judge it. A row that keeps its bytes when
        it is pressed between the limits is inside them; that costs less than half of comparing and collecting what came out.
        """
        kind, own = type(row), self._rows[slot]
        try:
            if kind is np.ndarray and row.dtype is _FLOAT32:  # type: ignore[attr-defined]
                # Of F values in another shape than [F] the result would not fit into the ring row, which is a ValueError.
                if self._texts or len(row) != self.features:  # type: ignore[arg-type]
                    return False
                _lowered(_raised(row, self._low, own), self._high, own)  # type: ignore[call-overload]
                return own.tobytes() == row.tobytes()  # type: ignore[attr-defined,no-any-return]
            if self._texts:
                return False
            if kind is dict:
                if self._by_name is None or len(row) != self.features:  # type: ignore[arg-type]
                    return False
                self._pack(self._bytes, slot * self._row_bytes, *self._by_name(row))
            elif kind is list or kind is tuple:
                self._pack(self._bytes, slot * self._row_bytes, *row)  # type: ignore[misc]
            elif kind is np.ndarray and row.dtype.kind in "fiub" and row.shape == self._shape:  # type: ignore[attr-defined]
                self._pack(self._bytes, slot * self._row_bytes, *row.tolist())  # type: ignore[attr-defined]
            else:
                return False
        except (struct.error, KeyError, TypeError, ValueError, OverflowError):
            return False
        _lowered(_raised(own, self._low, self._limited), self._high, self._limited)
        return bool(self._limited.tobytes() == own.tobytes())

    def parse(self, row: object, slot: int) -> None:
        """Write one row into ring row `slot`.

        Args:
            row: Sequence of F numbers (None = missing; texts for categories), mapping by input name, or array [F].
            slot: Ring row; its content is undefined after a refusal.

        Raises:
            RowRejected: For `count`, `type` or `category`.
        """
        kind = type(row)
        if kind is np.ndarray and row.dtype is _FLOAT32 and row.shape == self._shape:  # type: ignore[attr-defined]
            self._rows[slot][:] = row
        elif not self._texts and (kind is list or kind is tuple):
            try:
                self._pack(self._bytes, slot * self._row_bytes, *row)  # type: ignore[misc]
            except (struct.error, TypeError, ValueError, OverflowError):
                self._pack(self._bytes, slot * self._row_bytes, *self._numbers(self._values(row)))
        else:
            self._pack(self._bytes, slot * self._row_bytes, *self._numbers(self._values(row)))
        if self._texts:
            self._check_categories(self._rows[slot])

    def admit(self, slot: int) -> int:
        """Judge a parsed row.

        Returns:
            The ring row that the model may be given: `slot`, or the scratch row when values were clipped.

        Raises:
            RowRejected: For `infinite`, `missing` or `range`.
        """
        row = self._rows[slot]
        # Two comparisons see a value out of range, an infinity and NaN; comparing bytes costs a third of `.all()`.
        _at_least(row, self._low, self._above_low)
        _at_most(row, self._high, self._below_high)
        if self._inside.tobytes() == self._all_inside:
            return slot
        codes = self._rules.judge(row[np.newaxis]).codes.tobytes()
        if (refusal := self._refusal(row, codes)) is not None:
            raise refusal
        if OUTSIDE not in codes or not self._rules.clips:  # values are missing, which is allowed
            return slot
        self._scratch[:] = row
        self._rules.clip(self._scratch)
        return self._scratch_slot

    def parse_rows(self, rows: Matrix | Sequence[object]) -> tuple[Matrix, dict[int, RowRejected]]:
        """Rows as one matrix [n, F]; refused rows are NaN there and have their reason in the dictionary."""
        rejected: dict[int, RowRejected] = {}
        if isinstance(rows, np.ndarray):
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which `admit` refuses by name
                matrix = np.array(rows, np.float32, order="C")
            if self._texts:
                wrong = self._rules.no_category(matrix)
                for i in np.flatnonzero(wrong.any(axis=1)).tolist():
                    rejected[i] = self._wrong_category(matrix[i], wrong[i])
        else:
            matrix = np.empty((len(rows), self.features), np.float32)
            for i, row in enumerate(rows):
                try:
                    self.parse(row, self._scratch_slot)
                    matrix[i] = self._scratch[0]
                except RowRejected as err:
                    rejected[i] = err.kept()
        if rejected:
            matrix[list(rejected)] = np.nan
        return matrix, rejected

    def admit_rows(self, matrix: Matrix) -> tuple[Matrix, dict[int, RowRejected]]:
        """What the model may be given of parsed rows (a clipped copy where limits say so), and why others may not."""
        rejected: dict[int, RowRejected] = {}
        if ((matrix >= self._low) & (matrix <= self._high)).all():  # nearly always; neither missing nor clipped then
            return matrix, rejected
        judgement = self._rules.judge(matrix)
        for i in np.flatnonzero(judgement.refused).tolist():
            if (refusal := self._refusal(matrix[i], judgement.codes[i].tobytes())) is not None:
                rejected[i] = refusal
        if not self._rules.clips:
            return matrix, rejected
        clipped = matrix.copy()
        self._rules.clip(clipped)
        return clipped, rejected

    def _values(self, row: object) -> list[Any]:
        if isinstance(row, Mapping):
            if unknown := [name for name in row if name not in self._known]:
                raise RowRejected(str(unknown[0])[:80], row[unknown[0]], f"one of the model's {self.features} inputs", "count")
            return [row.get(name) for name in self._names]
        if isinstance(row, str | bytes) or not isinstance(row, Sequence | np.ndarray) or getattr(row, "ndim", 1) != 1:
            shape = getattr(row, "shape", None)
            what = type(row).__name__ if shape is None else f"array of shape {shape}"
            raise RowRejected(None, what, f"{self.features} values, or a mapping by name", "type" if shape is None else "count")
        if len(row) != self.features:
            raise RowRejected(None, f"{len(row)} values", f"{self.features} values", "count")
        return list(row.tolist() if isinstance(row, np.ndarray) else row)

    def _numbers(self, values: list[Any]) -> list[float]:
        for i, value in enumerate(values):
            if value is None:
                values[i] = _NAN
            elif isinstance(value, str) and i in self._texts:
                values[i] = self._index(i, value)
            else:
                values[i] = self._number(i, value)
        return values

    def _number(self, column: int, value: Any) -> float:
        if not isinstance(value, str | bytes):
            try:
                return float(value)
            except OverflowError:  # an integer beyond float64
                return float("inf") if value > 0 else float("-inf")
            except (TypeError, ValueError):
                pass
        expected = _NUMBER if column not in self._texts else "a text or the index of a category"
        raise RowRejected(self._names[column], repr(value)[:80], f"{expected}{self._unit(column)}", "type")

    def _index(self, column: int, text: str) -> int:
        table = self._texts[column]
        found = table.get(text)
        return table.get(unicodedata.normalize("NFC", text), -1) if found is None else found

    def _check_categories(self, row: Matrix) -> None:
        wrong = self._rules.no_category(row)
        if wrong.any():
            raise self._wrong_category(row, wrong)

    def _wrong_category(self, row: Matrix, wrong: NDArray[np.bool_]) -> RowRejected:
        """The refusal of a row [F] by its wrong categories [K], of which there is at least one."""
        return self._reject(row, int(self._rules.categories[wrong.argmax()]), CATEGORY)

    def _refusal(self, row: Matrix, codes: bytes) -> RowRejected | None:
        """The refusal of a row [F] by its codes [F], or None when nothing in it is refused."""
        for code in _REFUSED:
            if (column := codes.find(code)) >= 0:
                return self._reject(row, column, code)
        return None

    def _reject(self, row: Matrix, column: int, code: int) -> RowRejected:
        value = "a missing value" if code == MISSING else float(row[column])
        return RowRejected(self._names[column], value, self._accepted(column, code) + self._place(column), REASONS[code])

    def _accepted(self, column: int, code: int) -> str:
        """What would have been accepted in place of a value with this code."""
        if code == CATEGORY:
            return f"a category's index, -1 (unseen) to {len(self.inputs[column].categories) - 1}"
        if code == INFINITE:
            return f"a finite float32{self._unit(column)}"
        if code == RANGE:
            return f"{self._rules.low[column]:g} to {self._rules.high[column]:g}{self._unit(column)}"
        if self._no_missing is not None and self.inputs[column].missing:
            return f"a value: variant {self._no_missing} cannot represent a missing one"
        return f"{_NUMBER}{self._unit(column)}"

    def _place(self, column: int) -> str:
        width = self._row_width
        return f" (row {column // width + 1} of {self.features // width})" if width else ""

    def _unit(self, column: int) -> str:
        unit = self.inputs[column].unit
        return f" ({unit})" if unit else ""
