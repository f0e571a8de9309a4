"""Which consecutive training rows make the windows of counts that the drift test learns autocorrelation from."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEAST_WINDOWS: Final = 40
LEAST_ROWS: Final = 5
MAX_WINDOWS: Final = 400


@dataclass(frozen=True)
class ReferenceWindows:
    """A plan.

    Attributes:
        order: [n] training rows in the order in which windows are cut.
        starts: First place of each window in `order`.
        rows: Length of a window.
        group: [windows] windows with the same number follow each other, or None: all of them do.
    """

    order: NDArray[np.int64]
    starts: list[int]
    rows: int
    group: NDArray[np.int64] | None


def plan_windows(n: int, group: NDArray[np.str_] | None, block_rows: int) -> ReferenceWindows:
    """Cut windows of equal length out of n rows in time order.

    The length is `block_rows`, or less where that would give fewer than 40 windows (in the middle group, where there are groups), but never
    under 5 rows. No window crosses the border of a group, unless groups are so short that they hold none: then rows are taken as they come.
    Of more than 400 windows, runs of 40 evenly over all are kept, because devices fetch them.

    Args:
        n: Number of rows.
        group: [n] text of what rows share, or None.
        block_rows: Wished length in rows.

    >>> plan_windows(2000, None, 50).rows, plan_windows(400, None, 50).rows
    (50, 10)
    """
    if group is not None:
        names, index, sizes = np.unique(group, return_inverse=True, return_counts=True)
        length = _length(int(np.median(sizes)), block_rows)
        if (sizes // length).sum() >= min(LEAST_WINDOWS, n // length // 2) and sizes.max() >= 2 * length:
            order = np.argsort(index, kind="stable")
            first = np.cumsum(sizes) - sizes
            starts = [int(f + k * length) for f, size in zip(first, sizes, strict=True) for k in range(size // length)]
            return _bounded(order, starts, length, np.repeat(np.arange(len(names)), sizes // length))
    length = _length(n, block_rows)
    return _bounded(np.arange(n), list(range(0, n - length + 1, length)), length, None)


def _length(rows: int, block_rows: int) -> int:
    return max(min(block_rows, rows // LEAST_WINDOWS), min(LEAST_ROWS, block_rows))


def _bounded(order: NDArray[np.int64], starts: list[int], length: int, group: NDArray[np.int64] | None) -> ReferenceWindows:
    if len(starts) <= MAX_WINDOWS:
        return ReferenceWindows(order, starts, length, group)
    runs = MAX_WINDOWS // LEAST_WINDOWS
    firsts = np.linspace(0, len(starts) - LEAST_WINDOWS, runs).astype(np.int64)
    kept = (firsts[:, None] + np.arange(LEAST_WINDOWS)).ravel()
    number = np.repeat(np.arange(runs), LEAST_WINDOWS)
    if group is not None:
        # A run that reaches into another group is two.
        number = np.cumsum(np.diff(number, prepend=0) + (np.diff(group[kept], prepend=group[kept[0]]) != 0) > 0)
    return ReferenceWindows(order, [starts[k] for k in kept.tolist()], length, number.astype(np.int64))
