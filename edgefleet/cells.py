"""Bins: where their edges lie, and how many values fall between them.

Right-open bins between 11 float32 edges. A column is sorted once and its few edges are searched in it, which costs a fraction of asking for
each value where it belongs; minimum, maximum and the number of missing values then stand at the ends of the sorted column.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 10
_COMPARED_ROWS: Final = 64

Matrix = NDArray[np.float32]


def decile_edges(values: Matrix) -> Matrix:
    """Up to BINS + 1 edges [m] of values [n], NaN and infinities left out; empty when nothing is left.

    Deciles with duplicates dropped, the last edge just above the largest value. Of at most ten distinct values each is an edge.

    Example:
        >>> decile_edges(np.array([3, 1, 1, 2], np.float32))[:3].tolist()
        [1.0, 2.0, 3.0]
    """
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return np.zeros(0, np.float32)
    distinct = np.unique(finite)
    last = np.nextafter(distinct[-1], np.float32(np.inf))
    if len(distinct) <= BINS:
        return np.append(distinct, last).astype(np.float32)
    deciles = np.quantile(finite, np.linspace(0, 1, BINS + 1)[:-1]).astype(np.float32)
    return np.append(np.unique(deciles), last).astype(np.float32)


def padded_edges(values: Matrix, numeric: NDArray[np.bool_] | None = None) -> tuple[Matrix, NDArray[np.int64]]:
    """Edges [columns, BINS + 1] of values [n, columns], unused ones +inf, and how many bins each column uses.

    Args:
        values: NaN and infinities are left out.
        numeric: [columns] which columns have edges; None: all.
    """
    edges = np.full((values.shape[1], BINS + 1), np.inf, np.float32)
    bins = np.zeros(len(edges), np.int64)
    for f in range(len(edges)) if numeric is None else np.flatnonzero(numeric).tolist():
        own = decile_edges(values[:, f])
        edges[f, : len(own)] = own
        bins[f] = max(len(own) - 1, 0)
    return edges, bins


@dataclass(frozen=True)
class SearchEdges:
    """Edges as they are searched: unused ones lie on the last used one, so that nothing falls between them.

    Attributes:
        columns: Of each column its edges [BINS + 1].
        stacked: The same, [columns, BINS + 1, 1].
    """

    columns: list[Matrix]
    stacked: Matrix


def searchable(edges: Matrix, bins: NDArray[np.int64]) -> SearchEdges:
    """Each column's edges with the unused ones moved onto the last used one: what is beyond is above."""
    found = [np.concatenate([row[: used + 1], np.full(BINS - used, row[used])]) for row, used in zip(edges, bins.tolist(), strict=True)]
    return SearchEdges(found, np.array(found, np.float32).reshape(len(found), BINS + 1, 1))


def sorted_columns(rows: Matrix) -> Matrix:
    """Columns [F, n] of rows [n, F], each in ascending order, NaN last."""
    columns = np.array(rows.T, np.float32, order="C")
    columns.sort(axis=1)
    return columns


def bin_counts(columns: Matrix, present: NDArray[np.int64] | int, edges: SearchEdges) -> NDArray[np.int64]:
    """How many values lie below, in each of the ten bins, and above: [F, BINS + 2].

    Args:
        columns: [F, n] sorted columns, NaN last.
        present: Values of each column that are not NaN.
        edges: As `searchable` gives them.

    Example:
        >>> edges = searchable(*padded_edges(np.float32([[1], [2]])))
        >>> bin_counts(sorted_columns(np.float32([[5], [1], [9]])), 3, edges).tolist()
        [[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]]
    """
    cumulative: NDArray[Any]
    if columns.shape[1] <= _COMPARED_ROWS:
        # Of few rows, comparing all with all takes less than one search a column; a product with ones counts exactly.
        cumulative = (columns[:, None, :] < edges.stacked).astype(np.float32) @ np.ones(columns.shape[1], np.float32)
    else:
        cumulative = np.array([column.searchsorted(own) for column, own in zip(columns, edges.columns, strict=True)], np.int64)
    counts = np.empty((len(cumulative), BINS + 2), np.int64)
    counts[:, 0] = cumulative[:, 0]
    np.subtract(cumulative[:, 1:], cumulative[:, :-1], out=counts[:, 1:-1], casting="unsafe")
    np.subtract(present, cumulative[:, -1], out=counts[:, -1], casting="unsafe")
    return counts
