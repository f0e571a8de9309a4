"""Boosted trees to ONNX from our own arrays: log-odds as margin, then the logistic function or softmax.

Not through skl2onnx: its classifier node gives no margin, and it fails on histogram boosting with some versions of protobuf.
Missing values of histogram boosting take the side that the model learned.
"""

from typing import Any

import numpy as np

from converter.ensembles import Ensemble, Tree
from converter.to_onnx.graphs import finish


def boosting_to_onnx(ensemble: Ensemble) -> bytes:
    """The graph of a boosted classifier; K = 1 margin for two classes, else one per class."""
    from onnx import helper, numpy_helper

    outputs = len(ensemble.offset)
    trees = helper.make_node("TreeEnsembleRegressor", ["inputs"], ["margin"], name="trees", domain="ai.onnx.ml", **_attributes(ensemble))
    if outputs > 1:
        last = [helper.make_node("Softmax", ["margin"], ["probabilities"], name="softmax", axis=1)]
        return finish([trees, *last], [], features=ensemble.features, margins=outputs, classes=outputs)
    last = [
        helper.make_node("Neg", ["margin"], ["against"], name="negative"),
        helper.make_node("Concat", ["against", "margin"], ["both"], name="both", axis=1),
        helper.make_node("Mul", ["both", "half"], ["halved"], name="halved"),
        # softmax([-m/2, m/2]) is [1 - p, p] with p the logistic function of m, exact for both classes.
        helper.make_node("Softmax", ["halved"], ["probabilities"], name="logistic", axis=1),
    ]
    half = numpy_helper.from_array(np.array(0.5, np.float32), "half")
    return finish([trees, *last], [half], features=ensemble.features, margins=1, classes=2)


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    found: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_featureids", "nodes_values", "nodes_truenodeids", "nodes_falsenodeids",
            "nodes_missing_value_tracks_true", "target_treeids", "target_nodeids", "target_ids", "target_weights",
        )
    }  # fmt: skip
    for t, tree in enumerate(ensemble.trees):
        _append(found, t, tree)
    return {**found, "n_targets": len(ensemble.offset), "aggregate_function": "SUM", "base_values": [float(v) for v in ensemble.offset]}


def _append(found: dict[str, list[Any]], t: int, tree: Tree) -> None:
    for k in range(len(tree.left)):
        leaf = bool(tree.left[k] < 0)
        found["nodes_treeids"].append(t)
        found["nodes_nodeids"].append(k)
        found["nodes_modes"].append("LEAF" if leaf else "BRANCH_LEQ")
        found["nodes_featureids"].append(int(tree.feature[k]))
        found["nodes_values"].append(0.0 if leaf else float(tree.threshold[k]))
        found["nodes_truenodeids"].append(0 if leaf else int(tree.left[k]))
        found["nodes_falsenodeids"].append(0 if leaf else int(tree.right[k]))
        found["nodes_missing_value_tracks_true"].append(int(not leaf and tree.missing_left[k]))
        if leaf:
            target = int(np.argmax(np.abs(tree.value[k])))
            found["target_treeids"].append(t)
            found["target_nodeids"].append(k)
            found["target_ids"].append(target)
            found["target_weights"].append(float(tree.value[k, target]))
