"""An .onnx file made elsewhere, read and checked: its one input, the output that is read, and what that is computed of.

Called in a child process only: the file is foreign.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.signature import Signature

# Older operators take as attributes what the nodes behind the graph give as inputs.
LEAST_OPSET: Final = 13
_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_FLOATS: Final = ("FLOAT", "DOUBLE", "FLOAT16")
_ENDS: Final = {"probabilities": "Softmax", "sigmoid": "Sigmoid"}
_INTEGERS: Final = frozenset({"QuantizeLinear", "QLinearMatMul", "QLinearConv", "ConvInteger", "MatMulInteger"})


@dataclass(frozen=True)
class OnnxFile:
    """A checked graph.

    Attributes:
        model: ModelProto without functions, of opset LEAST_OPSET at least, whose inputs are no constants.
        input: Name of its input.
        input_kind: Element type of that, a number of `onnx.TensorProto`.
        batch: Rows that it takes at once; None: any number.
        raw: Name of the tensor that is read.
        end: Name of what the last softmax or sigmoid is computed of; "" where `raw` is not such a result.
        order: Columns of `raw` in the order of the classes, None where they stand so.
    """

    model: Any
    input: str
    input_kind: int
    batch: int | None
    raw: str
    end: str
    order: list[int] | None


def open_onnx(content: bytes, signature: Signature) -> OnnxFile:
    """Read and check.

    Raises:
        ArtifactError: Damaged.
        VerdictError: It cannot be wrapped; what stands in the way is named.
    """
    from onnx import TensorProto, load_from_string

    try:
        model = load_from_string(content)
    except Exception as err:  # protobuf raises its own
        raise ArtifactError(f"an ONNX file of {len(content)} bytes is damaged: {str(err)[:200]}; import it again") from err
    _check_operators(model)
    model = _without_functions(model)
    # Behind that, because a function may hold constants too.
    _check_constants(model)
    model = _lifted(model)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if [value.name for value in inputs] != [tensor.name for tensor in signature.inputs]:
        raise ArtifactError(f"the graph takes {[value.name for value in inputs][:8]}, signature.json names others; import it again")
    del graph.input[:]
    graph.input.extend(inputs)
    kind = inputs[0].type.tensor_type.elem_type
    if TensorProto.DataType.Name(kind) not in _FLOATS:
        raise VerdictError(
            f"the graph takes {TensorProto.DataType.Name(kind).lower()}, devices give float32; export it with a float input "
            "and scale inside"
        )
    raw, order = _read_output(graph, signature)
    sides = inputs[0].type.tensor_type.shape.dim
    batch = int(sides[0].dim_value) if len(sides) and sides[0].HasField("dim_value") and sides[0].dim_value > 0 else None
    return OnnxFile(model, inputs[0].name, kind, batch, raw, _end(graph, raw, _ENDS.get(signature.meaning, "")), order)


def form_of(model: Any) -> str:
    """The target that the graph is already: `onnx-fp32`, or a smaller form whose numbers are in it."""
    from onnx import TensorProto

    kinds = {node.op_type for node in nodes_of(model.graph)}
    if "DynamicQuantizeLinear" in kinds:
        return "onnx-int8-dynamic"
    if kinds & _INTEGERS:
        return "onnx-int8"
    halves = sum(int(np.prod(t.dims)) for t in tensors_of(model.graph) if t.data_type == TensorProto.FLOAT16)
    singles = sum(int(np.prod(t.dims)) for t in tensors_of(model.graph) if t.data_type == TensorProto.FLOAT)
    return "onnx-fp16" if halves > singles else "onnx-fp32"


def nodes_of(graph: Any) -> Iterator[Any]:
    """All nodes, those of loops and branches included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from nodes_of(inner)


def tensors_of(graph: Any) -> Iterator[Any]:
    """All constants, those of loops and branches and of nodes included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from tensors_of(inner)


def _check_operators(model: Any) -> None:
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in nodes_of(graph)):
        if node.domain not in _DOMAINS and not any((f.domain, f.name) == (node.domain, node.op_type) for f in model.functions):
            raise VerdictError(
                f"the graph needs the operator {node.domain[:60]}.{node.op_type[:60]}, which is not built into ONNX Runtime; "
                "export it with standard operators"
            )


def _check_constants(model: Any) -> None:
    from onnx import TensorProto

    outside = next((t.name for t in tensors_of(model.graph) if t.data_location == TensorProto.EXTERNAL), None)
    if outside is not None:
        raise VerdictError(f"the graph keeps {outside[:60]!r} in a file beside it; save it as one file: onnx.save(onnx.load(PATH), NEW)")
    if model.graph.sparse_initializer:
        raise VerdictError("the graph holds sparse constants, which are not converted; save them dense")


def _without_functions(model: Any) -> Any:
    if not model.functions:
        return model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(model)
    except Exception as err:  # the C++ side raises RuntimeError and its own kinds
        raise VerdictError(f"the graph's own functions cannot be written out: {str(err)[:200]}") from err


def _lifted(model: Any) -> Any:
    """The model in an opset that the nodes around it speak; constants may stand among the inputs of old files, which need them there."""
    from onnx import version_converter

    opset = next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset == 0:  # operators of ai.onnx.ml only
        model.opset_import.add(domain="", version=LEAST_OPSET)
        return model
    if opset >= LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, LEAST_OPSET)
    except Exception as err:  # RuntimeError, and the checker's own
        text = " ".join(str(err).split())[:200]
        raise VerdictError(f"the graph is of opset {opset} and cannot be lifted to {LEAST_OPSET}: {text}; export it anew") from err


def _read_output(graph: Any, signature: Signature) -> tuple[str, list[int] | None]:
    """Name of the tensor that holds the output, and the order of its columns; a dictionary a row (ZipMap) is cut off."""
    value = next((value for value in graph.output if value.name == signature.output), None)
    if value is None:
        raise ArtifactError(f"the graph has no output {signature.output[:60]!r}, which signature.json names; import it again")
    if value.type.HasField("tensor_type"):
        return str(value.name), None
    maker = next((node for node in graph.node if value.name in node.output), None)
    if maker is None or maker.op_type != "ZipMap":
        kind = value.type.WhichOneof("value")
        raise VerdictError(f"the output {value.name[:60]!r} is a {kind}, not a tensor; export it without zipmap, as a tensor")
    keys = next((list(a.strings) or list(a.ints) for a in maker.attribute if a.name.startswith("classlabels_")), [])
    order = sorted(range(len(keys)), key=lambda place: keys[place])
    return str(maker.input[0]), None if order == list(range(len(keys))) else order


def _end(graph: Any, raw: str, wanted: str) -> str:
    maker = {name: node for node in graph.node for name in node.output}
    node = maker.get(raw)
    while node is not None and node.op_type == "Identity":
        node = maker.get(node.input[0])
    return str(node.input[0]) if node is not None and wanted and node.op_type == wanted else ""
