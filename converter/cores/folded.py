"""Trees behind transformers as trees of the raw columns: exact, because every operation in front of a split rises.

`f(x) <= t` holds up to some largest float32 x; that is the raw threshold, found by bisection with scikit-learn's own arithmetic. So no
rounding of a scaler can move a row to the other side, and an imputed constant on a threshold stays where it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from converter.categories import NodeSets
from converter.cores.columns import Derived
from converter.ensembles import Ensemble, Tree, exact_in_float32
from edgefleet.errors import VerdictError

_INFINITY = np.float32(np.inf)


@dataclass
class _Split:
    """A node under way."""

    feature: int
    threshold: np.float32
    missing_left: bool
    swap: bool = False
    members: NDArray[np.float32] | None = None


def folded(ensemble: Ensemble, thresholds: Sequence[NDArray[np.float64]], columns: Sequence[Derived], width: int, single: bool) -> Ensemble:
    """The ensemble on raw rows of `width` columns.

    Args:
        ensemble: Of the derived columns; its splits by categories must not lie behind transformers.
        thresholds: The original's thresholds of each tree's nodes, float64.
        columns: What each of its columns is.
        width: Raw columns.
        single: Whether the original rounds what it is given to float32 (trees and forests do, histogram boosting does not).

    Raises:
        VerdictError: A split without such a form.
    """
    if any(by <= 0 for column in columns for kind, by in column.steps if kind in ("mul", "div")):
        raise VerdictError("a scaler that turns the order of values round")
    trees = [_tree(tree, exact, columns, single) for tree, exact in zip(ensemble.trees, thresholds, strict=True)]
    return Ensemble(trees, ensemble.offset, width)


def _tree(tree: Tree, exact: NDArray[np.float64], columns: Sequence[Derived], single: bool) -> Tree:
    left, right = tree.left.copy(), tree.right.copy()
    feature, threshold, missing_left = tree.feature.copy(), tree.threshold.copy(), tree.missing_left.copy()
    sets: NodeSets = {}
    for node in np.flatnonzero(tree.left >= 0).tolist():
        column = columns[int(tree.feature[node])]
        if tree.categories is not None and node in tree.categories:
            if column.steps or column.table is not None or not np.isnan(column.missing):
                raise VerdictError("histogram boosting with categorical_features behind transformers")
            sets[node], feature[node] = tree.categories[node], column.source
            continue
        split = (_by_table if column.table is not None else _by_number)(column, exact[node], bool(tree.missing_left[node]), single)
        feature[node], threshold[node], missing_left[node] = split.feature, split.threshold, split.missing_left
        if split.swap:
            left[node], right[node] = right[node], left[node]
        if split.members is not None:
            sets[node] = split.members
    leaf = tree.left < 0
    return replace(
        tree,
        left=left,
        right=right,
        feature=np.where(leaf, 0, feature),
        threshold=threshold,
        missing_left=missing_left,
        categories=sets or None,
    )


def _goes_left(value: float, threshold: float, missing_left: bool, single: bool) -> bool:
    if np.isnan(value):
        return missing_left
    return bool((np.float64(np.float32(value)) if single else value) <= threshold)


def _by_number(column: Derived, threshold: float, missing_left: bool, single: bool) -> _Split:
    cut = _largest(column, threshold, single)
    return _Split(column.source, cut, _goes_left(column.missing, threshold, missing_left, single))


def _largest(column: Derived, threshold: float, single: bool) -> np.float32:
    """The largest float32 x with f(x) <= threshold, -infinity where there is none: bisection over float32 in their order."""

    def holds(place: int) -> bool:
        value = column.of(np.array(_at(place), np.float64))
        return bool((value.astype(np.float32).astype(np.float64) if single else value) <= threshold)

    with np.errstate(over="ignore"):
        low, high = -_PLACES, _PLACES
        if holds(high):
            return _INFINITY
        if not holds(low):
            return -_INFINITY
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if holds(middle) else (low, middle)
    return np.float32(_at(low))


# Place of infinity among the non-negative float32 in their order.
_PLACES = int(np.array(np.inf, np.float32).view(np.int32))


def _at(place: int) -> float:
    value = float(np.array(abs(place), np.int32).view(np.float32))
    return value if place >= 0 else -value


def _by_table(column: Derived, threshold: float, missing_left: bool, single: bool) -> _Split:
    assert column.table is not None  # noqa: S101  # callers looked
    keys = np.array(sorted(column.table), np.float64)
    reached = column.of(np.array([column.table[key] for key in keys.tolist()], np.float64))
    side = np.array([_goes_left(float(value), threshold, missing_left, single) for value in reached], bool)
    other = _goes_left(column.other, threshold, missing_left, single)
    missing = _goes_left(column.missing, threshold, missing_left, single)
    # What goes elsewhere than any other value is listed; a list goes left, so the children may have to change places.
    listed = exact_in_float32(keys[side != other])
    if len(listed) == 0:
        return _Split(column.source, _INFINITY if other else -_INFINITY, missing)
    if missing != other:
        raise VerdictError("a split of categories where missing values go elsewhere than unknown ones")
    return _Split(column.source, np.float32(0), False, swap=other, members=listed)
