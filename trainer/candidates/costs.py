"""What a model will cost on a device, estimated from its structure: for choosing among candidates, never for a budget.

Size: 4 bytes a float32 weight; 16 bytes a tree node (input, threshold, two children) and 4 bytes a class and leaf.
Time: 3 us a call, 10 ns a visited tree node (one jump through memory), 1 ns a multiply-add. The converter measures the real ones.
"""

from typing import Any, Final

import numpy as np

WEIGHT_BYTES: Final = 4
NODE_BYTES: Final = 16
CALL_US: Final = 3.0
NODE_US: Final = 0.010
MULTIPLY_ADD_US: Final = 0.001
Cost = tuple[int, float]


def weights_cost(weights: int, multiply_adds: int) -> Cost:
    """(bytes, us) of a model of weights."""
    return WEIGHT_BYTES * weights, round(CALL_US + MULTIPLY_ADD_US * multiply_adds, 3)


def trees_cost(nodes: int, leaves: int, outputs: int, visited: int) -> Cost:
    """(bytes, us) of trees; `visited` is the sum of their depths: the longest path, which a device must be able to afford."""
    return NODE_BYTES * nodes + WEIGHT_BYTES * outputs * leaves, round(CALL_US + NODE_US * visited, 3)


def estimator_cost(family: str, model: Any) -> Cost:
    """(bytes, us) of a fitted estimator of scikit-learn."""
    if family in {"tree", "forest", "boosting", "isolation_forest"}:
        trees = [tree.tree_ for tree in np.ravel(getattr(model, "estimators_", [model]))]
        outputs = int(trees[0].value.shape[1] * trees[0].value.shape[2])
        nodes, leaves = sum(int(tree.node_count) for tree in trees), sum(int(tree.n_leaves) for tree in trees)
        return trees_cost(nodes, leaves, outputs, sum(int(tree.max_depth) for tree in trees))
    if family == "hist_boosting":
        predictors = [predictor for stage in model._predictors for predictor in stage]
        nodes, leaves = sum(len(one.nodes) for one in predictors), sum(one.get_n_leaf_nodes() for one in predictors)
        return trees_cost(nodes, leaves, 1, sum(one.get_max_depth() for one in predictors))
    weights = _weights(family, model)
    return weights_cost(weights, 0 if family == "constant" else weights)


def _weights(family: str, model: Any) -> int:
    if family == "linear":
        return int(np.size(model.coef_) + np.size(model.intercept_))
    if family == "mlp":
        return sum(int(array.size) for array in [*model.coefs_, *model.intercepts_])
    if family == "svm":
        machine = model.named_steps["svm"]
        if hasattr(machine, "calibrated_classifiers_"):
            machine = machine.calibrated_classifiers_[0].estimator
        return int(machine.support_vectors_.size + np.size(machine.dual_coef_) + np.size(machine.intercept_))
    if family == "mahalanobis":
        return int(model.named_steps["mahalanobis"].covariance_.size)
    return int(np.size(getattr(model, "class_prior_", 1)))
