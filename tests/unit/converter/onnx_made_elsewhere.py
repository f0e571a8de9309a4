"""Small ONNX graphs as strangers export them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 6


def rows(count: int = 900, features: int = FEATURES) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, features)).astype(np.float32)


def model(
    nodes: list[Any],
    constants: dict[str, Any],
    shape: list[Any],
    outputs: dict[str, list[Any]],
    *,
    kind: str = "FLOAT",
    name: str = "inputs",
    opset: int = 17,
    **more: Any,
) -> bytes:
    """A graph; its input is called as ours would be, which must not matter."""
    from onnx import TensorProto, helper, numpy_helper

    tensors = [numpy_helper.from_array(np.asarray(values), key) for key, values in constants.items()]
    taken = [helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape), *more.pop("more_inputs", [])]
    given = [helper.make_tensor_value_info(key, TensorProto.FLOAT, sides) for key, sides in outputs.items()]
    graph = helper.make_graph(nodes, "elsewhere", taken, [*given, *more.pop("more_outputs", [])], tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in more.pop("domains", []))]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def dense(last: str = "", batch: Any = "N", columns: int = 3, hidden: int = 32, **more: Any) -> bytes:
    """Two layers, whose values have the names of our own; `last` is Softmax, Sigmoid or nothing."""
    from onnx import helper

    rng = np.random.default_rng(1)
    constants = {
        "w": rng.normal(size=(FEATURES, hidden)).astype(np.float32),
        "b": rng.normal(size=hidden).astype(np.float32),
        "v": (rng.normal(size=(hidden, columns)) * 4 / hidden**0.5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["inputs", "w", "b"], ["margin"]),
        helper.make_node("Relu", ["margin"], ["probabilities"]),
        helper.make_node("MatMul", ["probabilities", "v"], ["answer" if not last else "n0"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["n0"], ["answer"]))
    return model(nodes, constants, [batch, FEATURES], {"answer": [batch, columns]}, **more)


def one_row_image(mixing: bool = False) -> bytes:
    """[1, 1, 2, 3] -> [1, 4] by a reshape to one row; with `mixing` its rows are subtracted from their mean over the batch."""
    from onnx import helper

    rng = np.random.default_rng(2)
    constants = {"side": np.array([1, FEATURES], np.int64), "w": rng.normal(size=(FEATURES, 4)).astype(np.float32)}
    nodes = [helper.make_node("Reshape", ["image", "side"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["z"])]
    if mixing:
        nodes += [helper.make_node("ReduceMean", ["z"], ["mean"], axes=[0], keepdims=1), helper.make_node("Sin", ["mean"], ["wave"])]
        nodes.append(helper.make_node("Add", ["z", "wave"], ["answer"]))
    else:
        nodes.append(helper.make_node("Identity", ["z"], ["answer"]))
    return model(nodes, constants, [1, 1, 2, 3], {"answer": [1, 4]}, name="image")


def clear_rows(answers: Callable[[NDArray[np.float32]], NDArray[Any]], features: int = FEATURES, count: int = 900) -> NDArray[np.float32]:
    """Rows around places where a model is sure, so that integers are no matter of luck; `answers` are its probabilities."""
    rng = np.random.default_rng(4)
    places = rows(4000, features)
    best = np.sort(answers(places), axis=1)
    sure = places[np.argsort(best[:, -2] - best[:, -1], kind="stable")[:300]]
    return (sure[rng.integers(0, len(sure), count)] + rng.normal(0, 0.02, (count, features))).astype(np.float32)
