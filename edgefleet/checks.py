"""The rules for rows, compiled once from the schema, without pandas: trainer, tools and device judge by these and by no others.

What a row must not have is refused: a missing value where none is allowed, an infinity, an index that no category has, a value out of a
range whose policy is `reject`. What is only counted: other values out of range, and categories that nobody knew. All of it is decided in
float32, the model's own type. `device_agent.checks` turns one row into float32, asks here, and words the refusal.
"""

from collections.abc import Iterator, Sequence
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
_UNSEEN_INDEX: Final = -1
_OK, _CATEGORY, _UNSEEN = (np.uint8(code) for code in (OK, CATEGORY, UNSEEN))  # a Python number would make int64 of a whole block
_LARGEST: Final = float(np.finfo(np.float32).max)
_BLOCK_VALUES: Final = 1 << 16


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
        for rows in _blocks(*self.codes.shape):
            values = _refuses(self.codes[rows])
            if np.count_nonzero(values):
                refused[rows] = values.any(axis=1)
        return refused

    def refusals(self) -> int:
        """Number of values that refuse their row."""
        return sum(int(np.count_nonzero(_refuses(self.codes[rows]))) for rows in _blocks(*self.codes.shape))

    def counted(self, column: int) -> dict[str, int]:
        """Values of one column that are counted only, by reason."""
        return {REASONS[code]: n for code in (OUTSIDE, UNSEEN) if (n := int((self.codes[:, column] == code).sum()))}

    def first(self, most: int) -> list[tuple[int, int]]:
        """Row and column of the first refusals, in the order of rows, at most `most`."""
        rows = np.flatnonzero(self.refused)[:most]
        places = [(int(row), int(at)) for row in rows for at in np.flatnonzero(_refuses(self.codes[row]))]
        return places[:most]


class Checks:
    """The checks of one schema.

    Args:
        inputs: In column order.
        present: Per input whether a value must be there; None asks the schema (`Input.missing`).

    Attributes:
        low: [F] float32, least value that is inside; of a category the index of an unseen one.
        high: [F] float32, largest value that is inside; of a category its last index.
        admit_low: [F] float32; a number in [admit_low, admit_high] is neither refused nor clipped, and NaN and infinities are never in it.
        admit_high: [F] float32.
        clips: Whether any input's policy is to clip.
        categories: [K] columns that are categories.
    """

    def __init__(self, inputs: list[Input], present: Sequence[bool] | None = None) -> None:
        self.inputs = inputs
        self._present = [not column.missing for column in inputs] if present is None else list(present)
        number = np.array([column.kind == "number" for column in inputs], np.bool_)
        self.categories = np.flatnonzero(~number)
        self.low, self.high = _limits(inputs)
        reject = number & [column.range_policy == "reject" for column in inputs]
        clip = number & [column.range_policy == "clip" for column in inputs]
        acts = reject | clip | ~number
        self.admit_low = np.where(acts, self.low, np.float32(-_LARGEST))
        self.admit_high = np.where(acts, self.high, np.float32(_LARGEST))
        self.clips = bool(clip.any())
        # Infinite where nothing is clipped: an infinity stays what it is, to be refused by name.
        self._clip_low = np.where(clip, self.low, np.float32(-np.inf))
        self._clip_high = np.where(clip, self.high, np.float32(np.inf))
        self._first_index, self._last_index = self.low[self.categories], self.high[self.categories]
        self._beyond = np.where(reject, RANGE, OUTSIDE).astype(np.uint8)
        self._infinite = np.full(len(inputs), INFINITE, np.uint8)
        self._absent = np.where(self._present, MISSING, OK).astype(np.uint8)

    def judge(self, x: NDArray[np.float32]) -> Judgement:
        """Judge rows [n, F]; NaN is missing.

        Memory: one byte a value, and the booleans of one block of rows (65,536 values, or one row where that is more).

        Raises:
            InputError: The number of columns is not the schema's.
        """
        if x.ndim != 2 or x.shape[1] != len(self.inputs):
            raise InputError(f"rows of shape {x.shape} do not fit {len(self.inputs)} inputs; give one column per input")
        codes = np.zeros(x.shape, np.uint8)
        if len(x) == 1:  # the device's case: a row alone needs no broadcasting, which is half of its price
            self._judge_block(x[0], codes[0])
        else:
            for rows in _blocks(*x.shape):
                self._judge_block(x[rows], codes[rows])
        return Judgement(codes)

    def no_category(self, x: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which values [n, K] of the `categories` columns of rows [n, F] are neither a category's index, nor unseen, nor missing."""
        return self._wrong_index(x[..., self.categories])

    def clip(self, x: NDArray[np.float32]) -> None:
        """Clip rows [n, F] in place where the policy says so; NaN stays."""
        if self.clips:
            np.clip(x, self._clip_low, self._clip_high, out=x)

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
        return f"{kind}{unit}" + ("" if self._present[at] else " or nothing")

    def _judge_block(self, x: NDArray[np.float32], codes: NDArray[np.uint8]) -> None:
        """Write the reasons of rows [n, F] or of one row [F] into `codes`, which are OK so far."""
        outside = x < self.low  # NaN is on neither side, an infinity beyond every limit
        outside |= x > self.high
        if np.count_nonzero(outside):  # costs a sixth of `.any()`, which counts when the block is one row
            np.copyto(codes, self._beyond, where=outside)
            np.copyto(codes, self._infinite, where=np.isinf(x))
        if len(self.categories):
            values = x[..., self.categories]
            codes[..., self.categories] = np.where(self._wrong_index(values), _CATEGORY, np.where(values == _UNSEEN_INDEX, _UNSEEN, _OK))
        absent = np.isnan(x)
        if np.count_nonzero(absent):
            np.copyto(codes, self._absent, where=absent)

    def _wrong_index(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        # Only a whole number within the limits survives; NaN does not, and is no wrong index.
        survives: NDArray[np.bool_] = np.floor(np.minimum(np.maximum(values, self._first_index), self._last_index)) == values
        survives |= np.isnan(values)
        np.logical_not(survives, out=survives)
        return survives


def _limits(inputs: list[Input]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and largest value inside [F], rounded like the values, so that 0.1 is inside a limit of 0.1."""
    low, high = np.full(len(inputs), -_LARGEST), np.full(len(inputs), _LARGEST)  # which an infinity exceeds
    for at, column in enumerate(inputs):
        if column.kind == "category":
            low[at], high[at] = _UNSEEN_INDEX, len(column.categories) - 1
            continue
        low[at] = low[at] if column.low is None else column.low
        high[at] = high[at] if column.high is None else column.high
    clipped = np.clip([low, high], -_LARGEST, _LARGEST).astype(np.float32)
    return clipped[0], clipped[1]


def _refuses(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    refuses = codes < _COUNTED
    refuses &= codes != OK
    return refuses


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that hold about _BLOCK_VALUES values each."""
    step = max(1, _BLOCK_VALUES // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
