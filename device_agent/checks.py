"""Input checks, compiled once from the manifest: what a row must be before the model may see it.

Two steps, because statistics count every row that parses, before the range policy. `parse` writes a row into the ring and refuses what is
no row (wrong count, text where a number stands, an index that no category has). `admit` refuses what the model must not see (infinite,
missing, out of range) and clips where the policy says so. Texts never become numbers: "3.5" is refused, although numpy would parse it.
"""

import struct
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import RowRejected
from edgefleet.manifest import Input

Matrix = NDArray[np.float32]
_FLOAT32: Final = np.dtype(np.float32)
_at_least, _at_most = np.greater_equal, np.less_equal
_NUMBER: Final = "a number"
_NAN: Final = float("nan")


class RowChecks:
    """The checks of one bundle over one ring.

    Args:
        inputs: The manifest's inputs, in column order.
        ring: [slots + 1, F] float32; the last row is scratch for clipped rows.
        integer_variant: Name of the variant when its arithmetic is integer: such a graph answers a missing value with confidence, so that
            NaN is refused whatever the schema allows. None otherwise.
    """

    def __init__(self, inputs: list[Input], ring: Matrix, integer_variant: str | None = None) -> None:
        self.inputs, self.features = inputs, len(inputs)
        self._names = [column.name for column in inputs]
        self._known = frozenset(self._names)
        self._ring, self._rows, self._shape = ring, list(ring), (len(inputs),)
        self._pack = struct.Struct(f"{self.features}f").pack_into  # refuses text, and costs half of a numpy assignment
        self._bytes, self._row_bytes = ring.data.cast("B"), 4 * self.features
        self._scratch, self._scratch_slot = ring[-1], len(ring) - 1
        self._texts = {i: {t: j for j, t in enumerate(c.categories)} for i, c in enumerate(inputs) if c.kind == "category"}
        self._category_columns = np.array(list(self._texts), np.intp)
        self._category_ends = np.array([len(t) for t in self._texts.values()], np.float32)
        self._integer_variant = integer_variant
        self._must_be_present = np.array([integer_variant is not None or not c.missing for c in inputs])
        low, high = np.full(self.features, -np.inf), np.full(self.features, np.inf)
        for i, column in enumerate(inputs):
            if column.range_policy != "count":
                low[i] = -np.inf if column.low is None else column.low
                high[i] = np.inf if column.high is None else column.high
        # Rounded like the values, so that 0.1 is inside a limit of 0.1; without a limit the largest float32, which an infinity exceeds.
        largest = float(np.finfo(np.float32).max)
        self._low, self._high = (np.clip(limit, -largest, largest).astype(np.float32) for limit in (low, high))
        self._limited = bool((self._low > -largest).any() or (self._high < largest).any())
        inside = np.zeros(2 * self.features, bool)
        self._above_low, self._below_high, self._inside = inside[: self.features], inside[self.features :], inside
        self._all_inside = b"\x01" * (2 * self.features)
        self._refuse_range = np.array([c.range_policy == "reject" for c in inputs])

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
        self._refuse_not_finite(row)
        np.clip(row, self._low, self._high, out=self._scratch)
        moved = ~np.isnan(row) & (self._scratch != row)
        if not moved.any():
            return slot
        if (beyond := moved & self._refuse_range).any():
            raise self.out_of_range(row, int(beyond.argmax()))
        return self._scratch_slot

    def parse_rows(self, rows: Matrix | Sequence[object]) -> tuple[Matrix, dict[int, RowRejected]]:
        """Rows as one matrix [n, F]; refused rows are NaN there and have their reason in the dictionary."""
        rejected: dict[int, RowRejected] = {}
        if isinstance(rows, np.ndarray):
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which `admit` refuses by name
                matrix = np.array(rows, np.float32, order="C")
            for i in np.flatnonzero(self._no_category(matrix[:, self._category_columns]).any(axis=1)).tolist():
                try:
                    self._check_categories(matrix[i])
                except RowRejected as err:
                    rejected[i] = err
        else:
            matrix = np.empty((len(rows), self.features), np.float32)
            for i, row in enumerate(rows):
                try:
                    self.parse(row, self._scratch_slot)
                    matrix[i] = self._scratch
                except RowRejected as err:
                    rejected[i] = err
        matrix[list(rejected)] = np.nan
        return matrix, rejected

    def admit_rows(self, matrix: Matrix) -> tuple[Matrix, dict[int, RowRejected]]:
        """What the model may be given of parsed rows (a clipped copy where limits say so), and why others may not."""
        rejected: dict[int, RowRejected] = {}
        finite = np.isfinite(matrix)
        for i in np.flatnonzero(~finite.all(axis=1)).tolist():
            try:
                self._refuse_not_finite(matrix[i])
            except RowRejected as err:
                rejected[i] = err
        if not self._limited:
            return matrix, rejected
        clipped = np.clip(matrix, self._low, self._high)
        beyond = self._refuse_range & ~np.isnan(matrix) & (clipped != matrix)
        for i in np.flatnonzero(beyond.any(axis=1)).tolist():
            rejected.setdefault(i, self.out_of_range(matrix[i], int(beyond[i].argmax())))
        return clipped, rejected

    def out_of_range(self, row: Matrix, column: int) -> RowRejected:
        """The refusal of one value."""
        return RowRejected(
            self._names[column], float(row[column]), f"{self._low[column]:g} to {self._high[column]:g}{self._unit(column)}", "range"
        )

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

    def _no_category(self, values: Matrix) -> NDArray[np.bool_]:
        known = (values >= -1) & (values < self._category_ends) & (values == np.floor(values))
        return np.asarray(~known & ~np.isnan(values))

    def _check_categories(self, row: Matrix) -> None:
        wrong = self._no_category(row[self._category_columns])
        if wrong.any():
            at = int(wrong.argmax())
            column = int(self._category_columns[at])
            limit = f"a category's index, -1 (unseen) to {int(self._category_ends[at]) - 1}"
            raise RowRejected(self._names[column], float(row[column]), limit, "category")

    def _refuse_not_finite(self, row: Matrix) -> None:
        infinite = np.isinf(row)
        if infinite.any():
            column = int(infinite.argmax())
            raise RowRejected(self._names[column], float(row[column]), f"a finite float32{self._unit(column)}", "infinite")
        absent = self._must_be_present & np.isnan(row)
        if absent.any():
            column = int(absent.argmax())
            allowed = self._integer_variant if self.inputs[column].missing else None
            why = (
                f"{_NUMBER}{self._unit(column)}"
                if allowed is None
                else f"a value: the integer variant {allowed} cannot represent a missing one"
            )
            raise RowRejected(self._names[column], "a missing value", why, "missing")

    def _unit(self, column: int) -> str:
        unit = self.inputs[column].unit
        return f" ({unit})" if unit else ""
