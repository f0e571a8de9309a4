"""ONNX files that somebody wrote to harm a device: each answers rows of five numbers with three classes, or says so."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

FEATURES, CLASSES = 5, 3
ENDLESS = 2**62
TERABYTE = 2**38  # float32 numbers


def hostile(name: str) -> bytes:
    """The file of that name."""
    return bytes(_MAKERS[name]().SerializeToString())


def with_weights(
    weights: NDArray[np.float32], *nodes: NodeProto, constants: list[TensorProto] | None = None, extra: str = "", opset: int = 17
) -> ModelProto:
    """softmax(x w), to whose margin the value `extra` adds its sum times nothing, so that it must be computed."""
    made = [helper.make_node("MatMul", ["inputs", "w"], ["plain" if extra else "margin"])]
    if extra:
        made += [
            helper.make_node("ReduceSum", [extra], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
            helper.make_node("Add", ["plain", "zero"], ["margin"]),
        ]
    made.append(helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
        for name, width in (("inputs", FEATURES), ("margin", CLASSES), ("probabilities", CLASSES))
    ]
    own = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros((), np.float32), "nothing")]
    graph = helper.make_graph([*nodes, *made], "hostile", ends[:1], ends[1:], own + (constants or []))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def long_work(seconds_about: int) -> bytes:
    """Operators that are on the list, on so many numbers that they take long: no loop is needed to be slow."""
    size = _int64([1, 4_000_000], "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["v0"]), helper.make_node("ReduceSum", ["inputs"], ["row"], keepdims=0)]
    nodes.append(helper.make_node("Add", ["v0", "row"], ["w0"]))  # depends on the row: nothing can be computed ahead
    steps = 40 * seconds_about
    nodes += [helper.make_node("Sin", [f"w{i}"], [f"w{i + 1}"]) for i in range(steps)]
    return bytes(with_weights(_weights(), *nodes, constants=[size], extra=f"w{steps}").SerializeToString())


def _weights() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def _int64(values: list[int], name: str) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _loop() -> ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["x", "x"], ["y"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("Loop", ["count", "", "inputs"], ["looped"], body=body)
    return with_weights(_weights(), node, constants=[numpy_helper.from_array(np.array(ENDLESS, np.int64), "count")], extra="looped")


def _random() -> ModelProto:
    return with_weights(_weights(), helper.make_node("RandomNormal", [], ["drawn"], shape=[1]), extra="drawn")


def _terabytes() -> ModelProto:
    node = helper.make_node("ConstantOfShape", ["size"], ["large"])
    return with_weights(_weights(), node, constants=[_int64([4 * TERABYTE], "size")], extra="large")


def _expanded() -> ModelProto:
    nodes = [helper.make_node("ReduceSum", ["inputs"], ["row"], keepdims=1), helper.make_node("Expand", ["row", "size"], ["large"])]
    return with_weights(_weights(), *nodes, constants=[_int64([TERABYTE, 1], "size")], extra="large")


def _negative() -> ModelProto:
    made = with_weights(_weights())
    made.graph.initializer[0].dims[:] = [-FEATURES, -CLASSES]
    return made


def _oversized() -> ModelProto:
    made = with_weights(_weights())
    made.graph.initializer[0].dims[:] = [TERABYTE, CLASSES]
    return made


def _external(location: str) -> ModelProto:
    made = with_weights(_weights())
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return made


def _tree(**changes: Any) -> ModelProto:
    """Three trees of one split; `changes` replace attributes."""
    attributes: dict[str, Any] = {
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0], "nodes_values": [0.0, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0], "target_weights": [1.0, 2.0], "n_targets": 1,
    }  # fmt: skip
    node = helper.make_node("TreeEnsembleRegressor", ["inputs"], ["trees"], domain="ai.onnx.ml", **(attributes | changes))
    return with_weights(_weights(), node, extra="trees")


_MAKERS: dict[str, Callable[[], ModelProto]] = {
    "endless loop": _loop,
    "random numbers": _random,
    "terabytes of zeros": _terabytes,
    "a row expanded to a terabyte": _expanded,
    "negative dimensions": _negative,
    "an initializer larger than the file": _oversized,
    "external data at an absolute path": lambda: _external("/etc/passwd"),
    "external data above the folder": lambda: _external("../../../../etc/passwd"),
    "a cycle in a tree": lambda: _tree(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 0, 0]),
    "a feature that no row has": lambda: _tree(nodes_featureids=[10**9, 0, 0]),
}
NAMES = list(_MAKERS)
