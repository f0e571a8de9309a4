"""numpy's reader of a core, in float64: what the margin of the original is, whatever library fitted it."""

import numpy as np
from numpy.typing import NDArray

from converter.cores.core import Core, Dense, Distance, Kernel, Layers, Trees, Votes
from converter.ensembles import Ensemble, Tree

Floats = NDArray[np.float64]
_ROWS_AT_ONCE = 4096


def margins_of(core: Core, z: NDArray[np.float32]) -> Floats:
    """Margins [n, K] of cleaned rows z [n, F]."""
    if core.front is not None:
        z = core.front.run(z)
    parts = [_head(core, z[at : at + _ROWS_AT_ONCE].astype(np.float64)) for at in range(0, len(z), _ROWS_AT_ONCE)]
    return np.concatenate(parts) if parts else np.empty((0, core.margins))


def _head(core: Core, x: Floats) -> Floats:
    head = core.head
    if isinstance(head, Layers):
        return _layers(head, x)
    if isinstance(head, Trees):
        total = _sum_of_trees(head.ensemble, x)
        return total if head.average_depth is None else np.asarray(np.exp2(-total / head.average_depth))
    return _kernel(head, x) if isinstance(head, Kernel) else _distance(head, x)


def _layers(head: Layers, x: Floats) -> Floats:
    for layer in head.layers:
        x = _activate(layer, x @ layer.weight + layer.bias)
    return x


def _activate(layer: Dense, x: Floats) -> Floats:
    if layer.activation == "relu":
        return np.maximum(x, 0)
    if layer.activation == "tanh":
        return np.tanh(x)
    if layer.activation == "logistic":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
    return x


def _kernel(head: Kernel, x: Floats) -> Floats:
    scaled = (x - head.mean) / head.scale
    squares = np.stack([np.square(scaled - support).sum(axis=1) for support in head.support], axis=1)
    decisions = np.asarray(np.exp(-head.gamma * squares) @ head.dual + head.intercept)
    return decisions if head.votes is None else _vote(head.votes, decisions)


def _vote(votes: Votes, decisions: Floats) -> Floats:
    classes = len(votes.slope)
    count, confidence = np.zeros((len(decisions), classes)), np.zeros((len(decisions), classes))
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    for (i, j), decision in zip(pairs, decisions.T, strict=True):
        count[:, i] += decision >= 0
        count[:, j] += decision < 0
        confidence[:, i] += decision
        confidence[:, j] -= decision
    return np.asarray(votes.slope * (count + confidence / (3 * (np.abs(confidence) + 1))) + votes.intercept)


def _distance(head: Distance, x: Floats) -> Floats:
    filled = x if head.fill is None else np.where(np.isnan(x), head.fill, x)
    return np.asarray(np.sqrt(np.square((filled - head.mean) @ head.whitening).sum(axis=1, keepdims=True)))


def _sum_of_trees(ensemble: Ensemble, x: Floats) -> Floats:
    total = np.tile(ensemble.offset.astype(np.float64), (len(x), 1))
    for tree in ensemble.trees:
        total += tree.value[leaves_of(tree, x)]
    return total


def leaves_of(tree: Tree, x: Floats) -> NDArray[np.int64]:
    """[n] node that each row ends in."""
    node = np.zeros(len(x), np.int64)
    rows = np.arange(len(x))
    while True:
        inner = tree.left[node] >= 0
        if not inner.any():
            return node
        at, row = node[inner], rows[inner]
        values = x[row, tree.feature[at]]
        goes_left = np.where(np.isnan(values), tree.missing_left[at], values <= tree.threshold[at])
        for place, members in (tree.categories or {}).items():
            here = at == place
            goes_left[here] = np.isin(values[here], members)
        node[inner] = np.where(goes_left, tree.left[at], tree.right[at])
