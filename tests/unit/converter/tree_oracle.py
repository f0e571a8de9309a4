"""Shapley values of trees by their definition, over all coalitions: what every way to explain trees is held against."""

from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble, Tree

Matrix = NDArray[np.float32]


def coalition_value(tree: Tree, node: int, row: Matrix, known: frozenset[int]) -> NDArray[np.float64]:
    """Expected value of a tree when only some columns are known, by the training rows' covers: the definition, without any shortcut."""
    if tree.left[node] < 0:
        return np.asarray(tree.value[node], np.float64)
    children = (int(tree.left[node]), int(tree.right[node]))
    if int(tree.feature[node]) in known:
        return coalition_value(tree, step_from(tree, node, row), row, known)
    weights = [tree.cover[child] / tree.cover[node] for child in children]
    below = [coalition_value(tree, child, row, known) for child in children]
    return np.asarray(weights[0] * below[0] + weights[1] * below[1], np.float64)


def step_from(tree: Tree, node: int, row: Matrix) -> int:
    value = row[tree.feature[node]]
    members = (tree.categories or {}).get(node)
    if members is not None:
        goes_left = bool(np.isin(value, members))
    else:
        goes_left = bool(tree.missing_left[node]) if np.isnan(value) else bool(value <= tree.threshold[node])
    return int(tree.left[node] if goes_left else tree.right[node])


def shapley_by_definition(ensemble: Ensemble, row: Matrix) -> NDArray[np.float64]:
    """[F, K] from all coalitions."""
    count, columns = ensemble.features, range(ensemble.features)
    value = {
        known: sum(coalition_value(tree, 0, row, known) for tree in ensemble.trees)
        for size in range(count + 1)
        for known in map(frozenset, combinations(columns, size))
    }
    phi = np.zeros((count, len(ensemble.offset)))
    for known, at in value.items():
        for j in set(columns) - known:
            weight = factorial(len(known)) * factorial(count - len(known) - 1) / factorial(count)
            phi[j] += weight * (value[known | {j}] - at)
    return phi
