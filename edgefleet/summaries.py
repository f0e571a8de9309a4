"""What is counted of an image instead of its elements: a few declared numbers of a row, whose statistics have a size of their own.

A tensor [height, width, ...] of more than 256 numbers becomes mean, standard deviation, minimum, maximum, edge energy, and the means of up
to 8 x 8 patches: 69 numbers at most, whatever its size. A table of more than 256 columns stays what it is: its columns have names.
Each row is reduced by itself in float64, so that batches do not matter. Missing elements are left out; a row that has none is missing.

Price: a shift that moves single elements and none of these numbers is not seen. Cost: less than half of counting the elements themselves.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input

MAX_ELEMENTS: Final = 256
PATCHES_A_SIDE: Final = 8
Values = NDArray[np.float64]
WHOLE: Final = ("mean", "standard deviation", "minimum", "maximum", "edge energy")
_LARGEST: Final = float(np.finfo(np.float32).max)


def is_summarised(inputs: Sequence[Input], shape: Sequence[int]) -> bool:
    """Whether rows of this schema and shape are counted by their summaries."""
    image = len(shape) >= 2 and math.prod(shape) == len(inputs)
    return image and len(inputs) > MAX_ELEMENTS and all(column.kind == "number" for column in inputs)


class Summaries:
    """The summaries of rows of one shape.

    Args:
        shape: [height, width, ...] of one row's tensor, flattened in this order.

    Example:
        >>> Summaries([2, 2]).of(np.array([[1, 2, 3, 6]], np.float32))[0, [0, 2, 3]].tolist()
        [3.0, 1.0, 6.0]
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(int(size) for size in shape)
        self.columns = math.prod(self.shape)

    @cached_property
    def names(self) -> list[str]:
        """[S] names, `patch 1,1` at the first row and column."""
        rows, across = (min(PATCHES_A_SIDE, size) for size in self.shape[:2])
        return [*WHOLE, *(f"patch {i + 1},{j + 1}" for i in range(rows) for j in range(across))]

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """[n, S] of rows [n, columns]; infinite elements count as the largest number there is."""
        x = rows.astype(np.float64)
        if np.isfinite(rows).all():
            return self._of(x, None)
        np.clip(x, -_LARGEST, _LARGEST, out=x)
        return self._of(x, np.isnan(x))

    def _of(self, x: Values, absent: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Summaries of rows without infinities; `absent` says where elements are missing, None for nowhere. Both ways add alike."""
        filled, low, high = x, x, x
        present: Any = self.columns
        if absent is not None:
            present = self.columns - absent.sum(axis=1)
            filled, low, high = (np.where(absent, value, x) for value in (0.0, np.inf, -np.inf))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = filled.sum(axis=1) / present
            patches = self._patch_sums(filled)
            patches /= self._patch_sums(np.ones((1, self.columns)) if absent is None else (~absent).astype(np.float64))
            energy = self._edge_energy(x, absent is not None)
            apart = x - mean[:, None]
            if absent is not None:
                apart[absent] = 0.0
            deviation = np.sqrt(np.square(apart, out=apart).sum(axis=1) / present)
            whole = np.stack([mean, deviation, low.min(axis=1), high.max(axis=1), energy], axis=1)
            if absent is not None:
                whole[present == 0] = np.nan
            return np.concatenate([whole, patches], axis=1).astype(np.float32)

    def _patch_sums(self, values: Values) -> Values:
        """[n, patches] sums of values [n, columns] over each patch."""
        sums = values.reshape(len(values), *self.shape[:2], -1).sum(axis=3)
        for axis, starts in enumerate(self._starts, 1):
            sums = np.add.reduceat(sums, starts, axis=axis)
        added: Values = sums.reshape(len(values), -1)
        return added

    def _edge_energy(self, x: Values, gaps: bool) -> Values:
        """[n] root of the mean squared difference of neighbours along height and width; 0 where no two neighbours are there."""
        images = x.reshape(len(x), *self.shape[:2], -1)
        total: Any = 0.0
        pairs: Any = 0
        for axis in (1, 2):
            apart = np.diff(images, axis=axis).reshape(len(x), -1)
            if gaps:
                absent = np.isnan(apart)
                apart[absent] = 0.0
                pairs = pairs - absent.sum(axis=1)
            total, pairs = total + np.square(apart, out=apart).sum(axis=1), pairs + apart.shape[1]
        energy: Values = np.sqrt(total / np.maximum(pairs, 1))
        return energy

    @cached_property
    def _starts(self) -> list[NDArray[np.intp]]:
        """Where the patches begin along height and width."""
        numbers = (np.arange(size) * min(PATCHES_A_SIDE, size) // size for size in self.shape[:2])
        return [np.flatnonzero(np.diff(number, prepend=-1)) for number in numbers]
