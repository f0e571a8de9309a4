"""The leaves of an ensemble as paths: what each asks of every column on its way, and what it adds to the margin."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble, Tree
from edgefleet.errors import VerdictError


@dataclass(frozen=True)
class Step:
    """What a path asks of one column, and the share of training rows that fulfilled it.

    Attributes:
        low: Lower end of the interval (low, high].
        high: Upper end.
        missing: Whether a missing value comes this way.
        share: Product of the cover ratios of the nodes that ask this column, above 0.
        allowed: [categories + 1] which categories come this way, the last for every other value but a missing one; None for numeric
            columns.
    """

    low: np.float32
    high: np.float32
    missing: bool
    share: float
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Leaf:
    """One leaf: value [K] to the margin, and its path by column."""

    value: NDArray[np.float64]
    path: dict[int, Step]


# Asks nothing.
FREE: Final = Step(np.float32(-np.inf), np.float32(np.inf), True, 1.0)


def leaves_of(ensemble: Ensemble, max_slots: int) -> tuple[NDArray[np.float64], list[Leaf]]:
    """The margin's expected value over the training rows, and the leaves that contribute.

    A constant may be taken from all leaves of a tree without changing any contribution; each tree loses its most frequent value in each
    column, and leaves that are left with nothing (pure leaves of a deep forest, about half) are left out.

    Args:
        ensemble: The trees.
        max_slots: Most slots, one per column on a leaf's path.

    Returns:
        base [K], and leaves in the trees' order.

    Raises:
        VerdictError: More slots than that.
    """
    base, found, slots = ensemble.offset.astype(np.float64).copy(), [], 0
    categories = category_values(ensemble)
    for tree in ensemble.trees:
        leaves = list(_leaves(tree, categories))
        common = _most_frequent(np.array([leaf.value for leaf in leaves]))
        base += common
        for leaf in leaves:
            value = leaf.value - common
            base += value * np.prod([step.share for step in leaf.path.values()])
            if leaf.path and value.any():
                found.append(Leaf(value, leaf.path))
                slots += len(leaf.path)
        if slots > max_slots:
            raise VerdictError(
                f"the explanation would need more than {max_slots} slots (features on all paths); use fewer or shallower trees"
            )
    return base, found


def category_values(ensemble: Ensemble) -> NDArray[np.float32]:
    """[categories] every value that a split by a set names, rising; empty without such splits."""
    named = [members for tree in ensemble.trees for members in (tree.categories or {}).values()]
    return np.unique(np.concatenate([np.asarray(members, np.float32).ravel() for members in named])) if named else np.zeros(0, np.float32)


def _left_sets(tree: Tree, categories: NDArray[np.float32]) -> dict[int, NDArray[np.bool_]]:
    """[categories + 1] by node that splits by a set: which values go left; what no set names goes right."""
    return {node: np.append(np.isin(categories, members), False) for node, members in (tree.categories or {}).items()}


def _most_frequent(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K] of [leaves, K]: for each column its most frequent value, the smallest of several; 0 where all values differ.

    Two columns with a constant sum (shares of two classes) stay each other's negative.
    """
    common = np.zeros(values.shape[1])
    for k in range(values.shape[1]):
        kinds, counts = np.unique(values[:, k], return_counts=True)
        if counts.max() > 1:
            common[k] = kinds[counts.argmax()]
    sums = values.sum(axis=1)
    if values.shape[1] == 2 and values.any(axis=0).all() and np.ptp(sums) <= 1e-9 * np.abs(sums).max():
        common[0] = sums[0] - common[1]
    return common


def _leaves(tree: Tree, categories: NDArray[np.float32]) -> Iterator[Leaf]:
    sets = _left_sets(tree, categories)
    stack: list[tuple[int, dict[int, Step]]] = [(0, {})]
    while stack:
        node, path = stack.pop()
        if tree.left[node] < 0:
            yield Leaf(tree.value[node], path)
            continue
        feature = int(tree.feature[node])
        before = path.get(feature, FREE)
        for child, goes_left in ((int(tree.left[node]), True), (int(tree.right[node]), False)):
            if tree.cover[child] <= 0:
                continue  # no training row came here: weight 0 in the game
            share = before.share * float(tree.cover[child] / tree.cover[node])
            stack.append((child, {**path, feature: _narrowed(tree, node, sets.get(node), before, goes_left, share)}))


def _narrowed(tree: Tree, node: int, goes: NDArray[np.bool_] | None, before: Step, goes_left: bool, share: float) -> Step:
    missing = before.missing and bool(tree.missing_left[node]) == goes_left
    if goes is not None:
        here = goes if goes_left else ~goes
        return Step(before.low, before.high, missing, share, here if before.allowed is None else before.allowed & here)
    cut = tree.threshold[node]
    low, high = (before.low, min(before.high, cut)) if goes_left else (max(before.low, cut), before.high)
    return Step(low, high, missing, share)
