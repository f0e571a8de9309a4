"""Any scikit-learn tree ensemble as plain arrays, with thresholds that decide float32 inputs as the original does."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefleet.errors import VerdictError

FOREST_NAMES: Final = ("RandomForestClassifier", "ExtraTreesClassifier", "DecisionTreeClassifier")
BOOSTING_NAMES: Final = ("GradientBoostingClassifier", "HistGradientBoostingClassifier")


def round_down(thresholds: ArrayLike) -> NDArray[np.float32]:
    """Largest float32 that is not above each threshold.

    Every float32 x is decided as before: `x <= t` and the comparison with the result agree.

    >>> float(round_down(0.1)) <= 0.1 < float(np.nextafter(round_down(0.1), np.float32(1)))
    True
    """
    exact = np.asarray(thresholds, np.float64)
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
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Ensemble:
    """Margin = offset + sum of the reached leaves' values."""

    trees: list[Tree]
    offset: NDArray[np.float64]
    features: int


def ensemble_of(model: Any) -> Ensemble:
    """The arrays of a fitted scikit-learn classifier.

    Raises:
        VerdictError: A kind, or an option of it, that is not supported; named.
    """
    name = type(model).__name__
    if name in FOREST_NAMES:
        trees = list(getattr(model, "estimators_", [model]))
        found = [_tree(t.tree_, _leaf_shares(t.tree_) / len(trees)) for t in trees]
        return Ensemble(found, np.zeros(found[0].value.shape[1]), int(model.n_features_in_))
    if name == "GradientBoostingClassifier":
        return _gradient_boosting(model)
    if name == "HistGradientBoostingClassifier":
        return _histogram_boosting(model)
    raise VerdictError(f"{name} is not a tree model that is converted: one of {', '.join(FOREST_NAMES + BOOSTING_NAMES)}")


def _leaf_shares(tree: Any) -> NDArray[np.float64]:
    if tree.n_outputs != 1:
        raise VerdictError(f"a tree with {tree.n_outputs} outputs is not converted: train one model per output")
    value = np.asarray(tree.value[:, 0, :], np.float64)
    shares: NDArray[np.float64] = value / value.sum(axis=1, keepdims=True)
    return shares


def _tree(tree: Any, value: NDArray[np.float64]) -> Tree:
    missing = getattr(tree, "missing_go_to_left", np.zeros(tree.node_count, np.uint8))
    return Tree(
        left=np.asarray(tree.children_left, np.int64),
        right=np.asarray(tree.children_right, np.int64),
        feature=np.maximum(np.asarray(tree.feature, np.int64), 0),
        threshold=round_down(tree.threshold),
        missing_left=np.asarray(missing).astype(bool),
        cover=np.asarray(tree.weighted_n_node_samples, np.float64),
        value=value,
    )


def _gradient_boosting(model: Any) -> Ensemble:
    if model.loss != "log_loss":
        raise VerdictError(f"GradientBoostingClassifier with loss={model.loss!r} is not converted: train with loss='log_loss'")
    if model.init is not None:
        raise VerdictError("GradientBoostingClassifier with a start model of its own (init=...) is not converted: train with init=None")
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
    if getattr(model, "is_categorical_", None) is not None and np.any(model.is_categorical_):
        raise VerdictError("HistGradientBoostingClassifier with categorical_features is not converted: encode the categories as columns")
    outputs = len(model._predictors[0])
    trees = []
    for k, predictor in _by_output(model._predictors):
        nodes = predictor.nodes
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            Tree(
                left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
                right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
                feature=np.where(leaf, 0, nodes["feature_idx"]).astype(np.int64),
                threshold=round_down(np.where(leaf, 0.0, nodes["num_threshold"])),
                missing_left=nodes["missing_go_to_left"].astype(bool),
                cover=nodes["count"].astype(np.float64),
                value=nodes["value"].astype(np.float64)[:, None] * _one_hot(k, outputs),
            )
        )
    return Ensemble(trees, np.asarray(model._baseline_prediction, np.float64).ravel(), int(model.n_features_in_))


def _by_output(stages: Any) -> Iterator[tuple[int, Any]]:
    for stage in stages:
        yield from enumerate(stage)


def _one_hot(k: int, outputs: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = (np.arange(outputs) == k).astype(np.float64)
    return found
