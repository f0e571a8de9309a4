"""Margins of many rows from a converted float graph, by the runtime that the device uses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.explain.shapley import Margins, Matrix
from edgefleet.errors import VerdictError

_BATCH_ROWS: Final = 4096
# An ensemble of trees, a loop over a window that answers one row at a time, and the least that any row costs, in multiplications.
_TREE_PRODUCTS: Final = 20_000.0
_LOOP_PRODUCTS: Final = 1_000_000.0
_LEAST_PRODUCTS: Final = 1_000.0


@dataclass(frozen=True)
class Asked:
    """A model that answers many rows.

    Attributes:
        margins: [n, ...] to [n, K].
        products: Multiplications that one row costs, about; decides how many rows a student may learn from. Counted, not timed: equal
            models get equal students.
    """

    margins: Margins
    products: float


def margins_of_graph(path: Path, runtime: str) -> Asked:
    """A graph as a function.

    Args:
        path: Graph with the input `inputs` and the output `margin`.
        runtime: `onnxruntime` or `litert`.

    Raises:
        VerdictError: Another runtime.
    """
    if runtime == "onnxruntime":
        return _onnx(path.read_bytes())
    if runtime == "litert":
        return _tflite(path.read_bytes())
    raise VerdictError(f"a graph for {runtime} is not asked for margins, only onnxruntime and litert are")


def _onnx(content: bytes) -> Asked:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # sums that do not depend on the number of cores: students are reproducible
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def answer(batch: Matrix) -> Any:
        return session.run(["margin"], {"inputs": batch})[0]

    size = 1 if session.get_inputs()[0].shape[0] == 1 else _BATCH_ROWS
    return Asked(lambda rows: _in_batches(rows, answer, size), _products_of_onnx(content))


def _products_of_onnx(content: bytes) -> float:
    from onnx import load_from_string, shape_inference

    graph = shape_inference.infer_shapes(load_from_string(content)).graph
    sizes = {tensor.name: float(np.prod(tensor.dims)) for tensor in graph.initializer}
    shapes = {v.name: [d.dim_value or 1 for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    total = 0.0
    for node in graph.node:
        weights = max((sizes.get(name, 0.0) for name in node.input), default=0.0)
        shape = shapes.get(node.output[0], [1])
        if node.op_type in ("Conv", "ConvTranspose"):
            total += weights * float(np.prod(shape[2:]))
        elif node.op_type in ("MatMul", "Gemm"):
            total += weights * float(np.prod(shape[1:-1]))
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            total += 2 * weights * shape[0]
        elif node.op_type.startswith("TreeEnsemble"):
            total += _TREE_PRODUCTS
        elif node.op_type in ("Loop", "Scan"):
            total += _LOOP_PRODUCTS
    return max(total, _LEAST_PRODUCTS)


def _tflite(content: bytes) -> Asked:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=content, num_threads=1)
    source = interpreter.get_input_details()[0]
    fixed = int(source["shape_signature"][0]) > 0
    state = {"rows": 0, "margin": 0}

    def answer(batch: Matrix) -> NDArray[Any]:
        if state["rows"] != len(batch):
            if not fixed:
                interpreter.resize_tensor_input(source["index"], batch.shape)
            interpreter.allocate_tensors()
            state["rows"], state["margin"] = len(batch), _margin_index(interpreter)
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(state["margin"]))

    return Asked(lambda rows: _in_batches(rows, answer, 1 if fixed else _BATCH_ROWS), _products_of_tflite(interpreter, fixed))


def _products_of_tflite(interpreter: Any, fixed: bool) -> float:
    shapes = {detail["index"]: [int(n) for n in detail["shape"]] for detail in interpreter.get_tensor_details()}
    total = _LOOP_PRODUCTS if fixed else 0.0
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"):
            weights = max(float(np.prod(shapes.get(int(i), [1]))) for i in op["inputs"][1:2])
            total += weights * float(np.prod(shapes.get(int(op["outputs"][0]), [1, 1])[1:-1]))
    return max(total, _LEAST_PRODUCTS)


def _margin_index(interpreter: Any) -> int:
    """Of the output tensor that a signature calls `margin`, else of the only or first output."""
    for name, signature in interpreter.get_signature_list().items():
        if "margin" in signature["outputs"]:
            details = interpreter.get_signature_runner(name).get_output_details()
            return int(details["margin"]["index"])
    return int(interpreter.get_output_details()[0]["index"])


def _in_batches(rows: Matrix, answer: Any, size: int) -> NDArray[np.floating]:
    """Full batches, so that the runtime meets two shapes only; the last one is filled with its own first row."""
    parts = []
    for start in range(0, len(rows), size):
        batch = np.ascontiguousarray(rows[start : start + size], np.float32)
        missing = size - len(batch) if len(rows) > size else 0
        whole = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)]) if missing else batch
        parts.append(np.asarray(answer(whole))[: len(batch)])
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
