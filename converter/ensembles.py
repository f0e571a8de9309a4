"""Any scikit-learn tree ensemble as plain arrays, with thresholds that decide float32 inputs as the original does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converter.categories import NodeSets, category_splits
from edgefleet.errors import VerdictError

FOREST_NAMES: Final = (
    "RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier", "ExtraTreeClassifier",
    "RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor", "ExtraTreeRegressor",
)  # fmt: skip
BOOSTING_NAMES: Final = (
    "GradientBoostingClassifier", "HistGradientBoostingClassifier", "GradientBoostingRegressor", "HistGradientBoostingRegressor",
)  # fmt: skip


def round_down(thresholds: ArrayLike) -> NDArray[np.float32]:
    """Largest float32 that is not above each threshold.

    Every float32 x is decided as before: `x <= t` and the comparison with the result agree.

    >>> float(round_down(0.1)) <= 0.1 < float(np.nextafter(round_down(0.1), np.float32(1)))
    True
    """
    exact = np.asarray(thresholds, np.float64)
    # Beyond the largest float32 the nearest is infinity; rounding down brings it back.
    with np.errstate(over="ignore"):
        near = exact.astype(np.float32)
    return np.where(near.astype(np.float64) > exact, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


@dataclass(frozen=True)
class Tree:
    """One tree, arrays by node; a leaf has `left` -1.

    Attributes:
        left: Child for `x <= threshold`.
        right: The other child.
        feature: Column that is compared.
        threshold: Float32, rounded down.
        missing_left: Where a missing value goes.
        cover: Weight of the training rows that came by.
        value: [nodes, K] contribution to the margin, already scaled (by the number of trees or the learning rate).
        categories: Nodes that split by a set instead of the threshold: the float32 values that go left, whatever else there is (other
            values, missing) goes right; `missing_left` is False there. None: no such node.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]
    categories: NodeSets | None = None


@dataclass(frozen=True)
class Ensemble:
    """Margin = offset + sum of the reached leaves' values."""

    trees: list[Tree]
    offset: NDArray[np.float64]
    features: int


def ensemble_of(model: Any) -> Ensemble:
    """The arrays of a fitted scikit-learn classifier or regressor.

    Raises:
        VerdictError: A kind, or an option of it, that is not supported; named.
    """
    name = type(model).__name__
    if name in FOREST_NAMES:
        trees = list(getattr(model, "estimators_", [model]))
        if name.endswith("Classifier"):
            found = [_tree(t.tree_, _leaf_shares(t.tree_) / len(trees)) for t in trees]
            return Ensemble(found, np.zeros(found[0].value.shape[1]), int(model.n_features_in_))
        # Values as differences from each root's mean: float32 sums of targets far from 0 would lose their last digits.
        means = [_single(t.tree_) / len(trees) for t in trees]
        found = [_tree(t.tree_, mean - mean[0]) for t, mean in zip(trees, means, strict=True)]
        return Ensemble(found, np.sum([mean[0] for mean in means], axis=0), int(model.n_features_in_))
    if name in ("GradientBoostingClassifier", "GradientBoostingRegressor"):
        return _gradient_boosting(model)
    if name in ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor"):
        return _histogram_boosting(model)
    raise VerdictError(f"{name} is not a tree model that is converted: one of {', '.join(FOREST_NAMES + BOOSTING_NAMES)}")


def isolation_ensemble(model: Any) -> tuple[Ensemble, float]:
    """An isolation forest as (trees whose sum is the mean depth of a row, the average depth that the score divides by).

    Reference:
        Liu, Ting and Zhou (2008), equations 1 and 2: a leaf counts its own depth and the expected one of a tree of the rows in it.
    """
    from sklearn.ensemble._iforest import _average_path_length

    trees, depth = [], float(_average_path_length(np.array([model._max_samples]))[0])
    for estimator, columns in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        levels = _levels(tree) + _average_path_length(tree.n_node_samples)
        trees.append(_tree(tree, levels[:, None] / len(model.estimators_), np.asarray(columns, np.int64)))
    if depth <= 0:
        raise VerdictError(f"an isolation forest of {model._max_samples} row a tree scores every row alike; train with more rows")
    return Ensemble(trees, np.zeros(1), int(model.n_features_in_)), depth


def constant_ensemble(margins: ArrayLike, features: int) -> Ensemble:
    """One tree of one leaf: an answer that no input, missing values included, can change."""
    offset = np.asarray(margins, np.float64)
    one = np.zeros(1, np.int64)
    leaf = Tree(one - 1, one - 1, one, np.zeros(1, np.float32), np.zeros(1, bool), np.ones(1), np.zeros((1, len(offset))))
    return Ensemble([leaf], offset, features)


def _levels(tree: Any) -> NDArray[np.float64]:
    level = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # children stand behind their parent
        if tree.children_left[node] >= 0:
            level[[tree.children_left[node], tree.children_right[node]]] = level[node] + 1
    return level


def _single(tree: Any) -> NDArray[np.float64]:
    if tree.n_outputs != 1:
        raise VerdictError(f"a tree with {tree.n_outputs} outputs is not converted: train one model per output")
    return np.asarray(tree.value[:, 0, :], np.float64)


def _leaf_shares(tree: Any) -> NDArray[np.float64]:
    value = _single(tree)
    shares: NDArray[np.float64] = value / value.sum(axis=1, keepdims=True)
    return shares


def _tree(tree: Any, value: NDArray[np.float64], columns: NDArray[np.int64] | None = None) -> Tree:
    """A tree of scikit-learn's; `columns` are those of the whole row where it was fitted on some only."""
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count, np.uint8))
    feature = np.maximum(np.asarray(tree.feature, np.int64), 0)
    return Tree(
        left=np.asarray(tree.children_left, np.int64),
        right=np.asarray(tree.children_right, np.int64),
        feature=feature if columns is None else columns[feature],
        threshold=round_down(tree.threshold),
        missing_left=np.asarray(missing).astype(bool),
        cover=np.asarray(tree.weighted_n_node_samples, np.float64),
        value=value,
    )


def _gradient_boosting(model: Any) -> Ensemble:
    name = type(model).__name__
    if name.endswith("Classifier") and model.loss != "log_loss":
        raise VerdictError(f"{name} with loss={model.loss!r} is not converted: train with loss='log_loss'")
    if model.init is not None and model.init != "zero":
        raise VerdictError(f"{name} with a start model of its own (init=...) is not converted: train with init=None")
    outputs = model.estimators_.shape[1]
    one_row = np.zeros((1, model.n_features_in_), np.float32)
    offset = np.asarray(model._raw_predict_init(one_row), np.float64)[0]
    trees = [
        _tree(tree.tree_, np.asarray(tree.tree_.value[:, :, 0], np.float64) * model.learning_rate * _one_hot(k, outputs))
        for stage in model.estimators_
        for k, tree in enumerate(stage)
    ]
    return Ensemble(trees, offset, int(model.n_features_in_))


def _histogram_boosting(model: Any) -> Ensemble:
    name = type(model).__name__
    if name.endswith("Regressor") and type(model._loss.link).__name__ != "IdentityLink":
        raise VerdictError(f"{name} with loss={model.loss!r} answers an exponential, which is not converted: train with 'squared_error'")
    columns, codes = category_splits(model)
    outputs = len(model._predictors[0])
    trees = [_histogram_tree(predictor, _one_hot(k, outputs), columns, codes) for k, predictor in _by_output(model._predictors)]
    return Ensemble(trees, np.asarray(model._baseline_prediction, np.float64).ravel(), int(model.n_features_in_))


def _histogram_tree(
    predictor: Any, output: NDArray[np.float64], columns: NDArray[np.int64], codes: list[NDArray[np.float64] | None]
) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    by_set = ~leaf & nodes["is_categorical"].astype(bool)
    left = np.where(leaf, -1, nodes["left"].astype(np.int64))
    right = np.where(leaf, -1, nodes["right"].astype(np.int64))
    missing_left = nodes["missing_go_to_left"].astype(bool) & ~leaf
    sets: NodeSets = {}
    for node in np.flatnonzero(by_set).tolist():
        known = codes[int(nodes["feature_idx"][node])]
        assert known is not None  # noqa: S101  # only columns of categories are split by sets
        words = predictor.raw_left_cat_bitsets[int(nodes["bitset_idx"][node])]
        goes_left = np.array([bool(words[i // 32] >> np.uint32(i % 32) & 1) for i in range(len(known))], bool)
        if missing_left[node]:
            # Unknown values go where missing ones go: the set then lists what goes to the other side, and the children change places.
            goes_left = ~goes_left
            left[node], right[node] = right[node], left[node]
        sets[node] = exact_in_float32(known[goes_left])
    return Tree(
        left=left,
        right=right,
        feature=np.where(leaf, 0, columns[nodes["feature_idx"]]).astype(np.int64),
        threshold=round_down(np.where(leaf | by_set, 0.0, nodes["num_threshold"])),
        missing_left=missing_left & ~by_set,
        cover=nodes["count"].astype(np.float64),
        value=nodes["value"].astype(np.float64)[:, None] * output,
        categories=sets or None,
    )


def exact_in_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values that a float32 can be equal to; no float32 row ever meets the others."""
    near = values.astype(np.float32)
    return np.unique(near[near.astype(np.float64) == values])


def _by_output(stages: Any) -> Iterator[tuple[int, Any]]:
    for stage in stages:
        yield from enumerate(stage)


def _one_hot(k: int, outputs: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (np.arange(outputs) == k).astype(np.float64)
    return found
