"""Checks of whole tables, compiled once from the schema, without pandas: trainer and tools judge rows as the device does.

The device's own `device_agent.checks` refuses single rows by the same rules, in the same float32; a test holds the two together. What a row
must not have is refused: a missing value where none is allowed, an infinity, an index that no category has, a value out of a range whose
policy is `reject`. What is only counted: other values out of range, and categories that nobody knew.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.manifest import Input

OK, TYPE, MISSING, INFINITE, RANGE, CATEGORY, OUTSIDE, UNSEEN = range(8)
REASONS: Final = ("ok", "type", "missing", "infinite", "range", "category", "outside", "unseen")
# Reasons from OUTSIDE on are counted; those before refuse the row. The names up to `category` are those of `RowRejected.reason`.
_COUNTED: Final = OUTSIDE
_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Judgement:
    """What is wrong with each value.

    Attributes:
        codes: [n, F] uint8, an index of REASONS.
    """

    codes: NDArray[np.uint8]

    @property
    def refused(self) -> NDArray[np.bool_]:
        """[n] whether the row must not reach a model."""
        refused = np.zeros(len(self.codes), np.bool_)
        for column in self.codes.T:  # column by column: no second matrix
            refused |= (column != OK) & (column < _COUNTED)
        return refused

    def refusals(self) -> int:
        """Number of values that refuse their row."""
        return int(sum(((column != OK) & (column < _COUNTED)).sum() for column in self.codes.T))

    def counted(self, column: int) -> dict[str, int]:
        """Values of one column that are counted only, by reason."""
        return {REASONS[code]: n for code in (OUTSIDE, UNSEEN) if (n := int((self.codes[:, column] == code).sum()))}

    def first(self, most: int) -> list[tuple[int, int]]:
        """Row and column of the first refusals, in the order of rows, at most `most`."""
        rows = np.flatnonzero(self.refused)[:most]
        places = [(int(row), int(at)) for row in rows for at in np.flatnonzero((self.codes[row] != OK) & (self.codes[row] < _COUNTED))]
        return places[:most]


class Checks:
    """The checks of one schema.

    Args:
        inputs: In column order.
    """

    def __init__(self, inputs: list[Input]) -> None:
        self.inputs = inputs
        # Rounded like the values, so that 0.1 is inside a limit of 0.1.
        low = [-_LARGEST if column.low is None else column.low for column in inputs]
        high = [_LARGEST if column.high is None else column.high for column in inputs]
        self._low, self._high = (np.clip(np.array(limit, np.float64), -_LARGEST, _LARGEST).astype(np.float32) for limit in (low, high))

    def judge(self, x: NDArray[np.float32]) -> Judgement:
        """Judge rows [n, F]; NaN is missing.

        Memory: one byte a value, and one column's booleans at a time.

        Raises:
            InputError: The number of columns is not the schema's.
        """
        if x.ndim != 2 or x.shape[1] != len(self.inputs):
            raise InputError(f"rows of shape {x.shape} do not fit {len(self.inputs)} inputs; give one column per input")
        codes = np.zeros(x.shape, np.uint8)
        for at in range(len(self.inputs)):
            codes[:, at] = self.judge_column(x[:, at], at)
        return Judgement(codes)

    def judge_column(self, values: NDArray[np.float32], at: int) -> NDArray[np.uint8]:
        """Reason codes [n] of one input's values [n]."""
        if self.inputs[at].kind == "category":
            return self._judge_category(values, at)
        column = self.inputs[at]
        codes = np.zeros(len(values), np.uint8)
        beyond = RANGE if column.range_policy == "reject" else OUTSIDE
        codes[(values < self._low[at]) | (values > self._high[at])] = beyond
        codes[np.isinf(values)] = INFINITE
        if not column.missing:
            codes[np.isnan(values)] = MISSING
        return codes

    def clip(self, x: NDArray[np.float32]) -> None:
        """Clip rows [n, F] in place where the policy says so; NaN stays."""
        for at, column in enumerate(self.inputs):
            if column.range_policy == "clip" and (column.low is not None or column.high is not None):
                np.clip(x[:, at], self._low[at], self._high[at], out=x[:, at])

    def expected(self, at: int) -> str:
        """What one input accepts, in words."""
        column = self.inputs[at]
        if column.kind == "category":
            kind = f"one of {len(column.categories)} categories"
        else:
            low = "" if column.low is None else f" from {column.low:g}"
            high = "" if column.high is None else f" to {column.high:g}"
            kind = f"a finite number{f'{low}{high}' if column.range_policy == 'reject' else ''}"
        unit = f" ({column.unit})" if column.unit else ""
        return f"{kind}{unit}" + (" or nothing" if column.missing else "")

    def _judge_category(self, values: NDArray[np.float32], at: int) -> NDArray[np.uint8]:
        column = self.inputs[at]
        codes = np.zeros(len(values), np.uint8)
        with np.errstate(invalid="ignore"):
            known = (values >= -1) & (values < len(column.categories)) & (values == np.floor(values))
        codes[~known] = CATEGORY
        codes[values == -1] = UNSEEN
        absent = np.isnan(values)
        codes[absent] = OK if column.missing else MISSING
        return codes
