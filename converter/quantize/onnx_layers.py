"""Layers of an ONNX graph that may be quantized: products and convolutions with constant weights that the margin depends on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError

# A node that turns a constant back into float32 takes about as many bytes as so few weights save.
LEAST_WEIGHTS: Final = 64
RECURRENT: Final = ("LSTM", "GRU", "RNN")
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Layer:
    """One node.

    Attributes:
        name: Of its output; unique in a graph, which names of nodes need not be.
        operator: `MatMul`, `Gemm`, `Conv`, `LSTM`, `GRU` or `RNN`.
        reads: Name of the value it reads.
        weight: Name of its weights.
        bias: Name of its constant bias, "" without one.
        axis: Of the weights that counts the outputs: one scale each.
        state: Name of the weights of the state of a recurrent layer, else "".
    """

    name: str
    operator: str
    reads: str
    weight: str
    bias: str
    axis: int
    state: str = ""


def read_onnx(graph: bytes) -> Any:
    """The graph as a ModelProto whose constants are all initializers; foreign exporters write some of them as nodes."""
    from onnx import TensorProto, load_from_string

    model = load_from_string(graph)
    rest = []
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            model.graph.initializer.append(tensor)
        else:
            rest.append(node)
    del model.graph.node[:]
    model.graph.node.extend(rest)
    return model


def write_onnx(model: Any) -> bytes:
    """Checked bytes; equal graphs give equal bytes.

    Raises:
        VerdictError: The graph is invalid.
    """
    from onnx import checker

    used = {name for node in model.graph.node for name in _reads(node)}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]
    try:
        checker.check_model(model, full_check=True)
    except Exception as err:  # the checker and shape inference raise two unrelated kinds
        raise VerdictError(f"the quantized graph is invalid: {str(err)[:200]}") from err
    return bytes(model.SerializeToString(deterministic=True))


def operators_of(model: Any) -> list[str]:
    """Names of all operators, those of loops and branches included, sorted."""
    return sorted({node.op_type for node in _nodes(model.graph)})


def opset_of(model: Any) -> int:
    """Of the standard domain."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def constants_of(model: Any) -> dict[str, Any]:
    """Constants by name, as tensors."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def layers_of(model: Any, operators: Iterable[str]) -> list[Layer]:
    """Layers in the order of the graph.

    Args:
        model: ModelProto.
        operators: Which of the operators of `Layer`.

    Raises:
        VerdictError: There are none; why.
    """
    from onnx import TensorProto

    wanted, constants = set(operators), constants_of(model)
    needed = _before_margin(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in wanted or node.domain not in ("", "ai.onnx") or not needed & set(node.output) or len(node.input) < 2:
            continue
        weight = constants.get(node.input[1])
        if node.input[0] in constants or weight is None or weight.data_type != TensorProto.FLOAT:
            continue
        attributes = {a.name: a for a in node.attribute}
        if int(np.prod(weight.dims)) < LEAST_WEIGHTS or (axis := _axis(node.op_type, len(weight.dims), attributes)) is None:
            continue
        if node.op_type in RECURRENT:
            found.append(Layer(node.output[0], node.op_type, node.input[0], node.input[1], "", axis, node.input[2]))
            continue
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias in constants or not bias:
            found.append(Layer(node.output[0], node.op_type, node.input[0], node.input[1], bias, axis))
    if not found:
        raise VerdictError(_why_none(model, wanted))
    return found


def values(model: Any, names: Sequence[str], x: NDArray[np.float32]) -> list[list[NDArray[np.float32]]]:
    """Values inside the graph for rows x, in blocks of rows: one list per block with one array per name."""
    import onnxruntime
    from onnx import ModelProto, helper

    from edgefleet.quiet import quiet_load

    opened = ModelProto()
    opened.CopyFrom(model)
    known = {value.name for value in opened.graph.output}
    opened.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in dict.fromkeys(names) if name not in known | {"inputs"})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    with quiet_load():
        session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])
    blocks = []
    step = 1 if session.get_inputs()[0].shape[0] == 1 else _ROWS_AT_ONCE
    for at in range(0, len(x), step):
        rows = np.ascontiguousarray(x[at : at + step], np.float32)
        asked = [name for name in names if name != "inputs"]
        answers = dict(zip(asked, session.run(asked, {"inputs": rows}) if asked else [], strict=True)) | {"inputs": rows}
        blocks.append([answers[name] for name in names])
    return blocks


def _axis(operator: str, rank: int, attributes: dict[str, Any]) -> int | None:
    """Axis of the outputs; None for forms that are left float."""
    if operator == "MatMul":
        return 1 if rank == 2 else None
    if operator == "Conv" or operator in RECURRENT:
        return 0
    plain = all(name not in attributes or attributes[name].f == 1.0 for name in ("alpha", "beta"))
    if not plain or ("transA" in attributes and attributes["transA"].i):
        return None
    return 0 if "transB" in attributes and attributes["transB"].i else 1


def _before_margin(model: Any) -> set[str]:
    """Names of all values that the margin depends on; a calibrator's tables come behind it and are left alone."""
    maker = {name: node for node in model.graph.node for name in node.output if name}
    seen: set[str] = set()
    waiting = ["margin"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in maker:
            waiting.extend(_reads(maker[name]))
    return seen


def _reads(node: Any) -> list[str]:
    """Names that a node reads, in the graphs that it holds too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names += [name for inner in graph.node for name in _reads(inner)]
            names += [value.name for value in graph.output]
    return names


def _nodes(graph: Any) -> list[Any]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                found += _nodes(inner)
    return found


def _why_none(model: Any, wanted: set[str]) -> str:
    kinds = {node.op_type for node in _nodes(model.graph)}
    if any(kind.startswith("TreeEnsemble") for kind in kinds):
        return "trees are not quantized: thresholds would move; limit depth or count instead"
    if kinds & {*RECURRENT, "Loop", "Scan"}:
        return "the weights of recurrent layers stay float in ONNX; use tflite-int8-dynamic or onnx-fp32"
    if "QuantizeLinear" in kinds or "DynamicQuantizeLinear" in kinds:
        return "the graph is integer already; take it as it is"
    asked = ", ".join(sorted(wanted))
    return f"no {asked} with at least {LEAST_WEIGHTS} constant float32 weights: there is nothing to quantize; use onnx-fp32"
