"""Forests and single trees to ONNX with skl2onnx, repaired where its thresholds are not the model's.

skl2onnx rounds split values so that callers with float64 rows agree; a device has float32 rows. Each threshold is replaced by the largest
float32 not above it, which decides every float32 row exactly as scikit-learn does. Missing values are refused by name: skl2onnx drops the
side that they take, and the graph answers wrongly without a word.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import FOREST_NAMES, round_down
from converter.to_onnx.graphs import OPSET, OPSET_ML, finish
from edgefleet.errors import VerdictError
from edgefleet.manifest import Input


def forest_to_onnx(model: Any, inputs: Sequence[Input], seen: NDArray[np.float32]) -> bytes:
    """The graph of a fitted forest; margin and probabilities are equal, the mean of the trees' leaf shares.

    Args:
        model: RandomForestClassifier, ExtraTreesClassifier or DecisionTreeClassifier.
        inputs: What the model takes (cleaned columns), for the names in messages.
        seen: Cleaned rows of the package, to find missing values in.

    Raises:
        VerdictError: Fitted with missing values, another kind of model, or the converter's answer is not what is expected.
    """
    name = type(model).__name__
    if name not in FOREST_NAMES:
        raise VerdictError(f"{name} is not a forest: one of {', '.join(FOREST_NAMES)}")
    refuse_missing(name, inputs, seen)
    node = _tree_node(model)
    _round_thresholds_down(node, model)
    return _graph(node, int(model.n_features_in_), len(model.classes_))


def refuse_missing(name: str, inputs: Sequence[Input], seen: NDArray[np.float32]) -> None:
    """Raise VerdictError when a forest knows missing values, naming the input."""
    for column, values in zip(inputs, seen.T, strict=True):
        if column.missing or np.isnan(values).any():
            raise VerdictError(
                f"{name} with missing values in input {column.name!r} is not converted: "
                "the graph would lose the side that they take and answer wrongly; impute before training"
            )


def _tree_node(model: Any) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    converted = to_onnx(
        model,
        initial_types=[("inputs", FloatTensorType([None, int(model.n_features_in_)]))],
        options={id(model): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
    )
    nodes = [node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier"]
    if len(nodes) != 1 or list(nodes[0].input) != ["inputs"]:
        raise VerdictError(
            f"skl2onnx made {[n.op_type for n in converted.graph.node][:8]}, expected one TreeEnsembleClassifier that reads the input"
        )
    return nodes[0]


def _round_thresholds_down(node: Any, model: Any) -> None:
    trees = [tree.tree_ for tree in getattr(model, "estimators_", [model])]
    attribute = {a.name: a for a in node.attribute}
    tree_of, node_of = attribute["nodes_treeids"].ints, attribute["nodes_nodeids"].ints
    feature_of, modes, values = attribute["nodes_featureids"].ints, attribute["nodes_modes"].strings, attribute["nodes_values"].floats
    rounded = [round_down(tree.threshold) for tree in trees]
    for i, mode in enumerate(modes):
        t, k = tree_of[i], node_of[i]
        if mode == b"LEAF":
            continue
        if mode != b"BRANCH_LEQ" or trees[t].feature[k] != feature_of[i]:
            raise VerdictError(f"skl2onnx numbers the nodes otherwise than expected (tree {t}, node {k}); use the pinned version")
        values[i] = float(rounded[t][k])


def _graph(node: Any, features: int, classes: int) -> bytes:
    from onnx import helper

    trees = helper.make_node("TreeEnsembleClassifier", ["inputs"], ["label", "leaf_shares"], name="trees", domain="ai.onnx.ml")
    trees.attribute.extend(sorted(node.attribute, key=lambda a: str(a.name)))
    copies = [helper.make_node("Identity", ["leaf_shares"], [name], name=name) for name in ("margin", "probabilities")]
    return finish([trees, *copies], [], features=features, margins=classes, classes=classes)
