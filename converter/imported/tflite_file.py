"""A .tflite file made elsewhere, read and checked: its one input, the output that is read, and how its numbers are stored.

Called in a child process only: the file is foreign.
"""

from dataclasses import dataclass
from typing import Any, Final

from converter.to_tflite.flat import checked_operators, operator_names, read_model
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.signature import Signature

WEIGHTED: Final = (
    "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D", "BATCH_MATMUL", "UNIDIRECTIONAL_SEQUENCE_LSTM",
)  # fmt: skip
_STORED: Final = ("INT8", "UINT8", "INT16")
_ENDS: Final = {"probabilities": "SOFTMAX", "sigmoid": "LOGISTIC"}


@dataclass(frozen=True)
class LiteFile:
    """A checked file.

    Attributes:
        model: `ModelT` of the schema.
        input: Number of the tensor that takes rows.
        raw: Number of the tensor that is read.
        end: Number of the tensor that the last softmax or sigmoid is computed of; -1 where `raw` is not such a result.
    """

    model: Any
    input: int
    raw: int
    end: int

    @property
    def batch(self) -> int:
        """Rows that it takes at once, as its shape says."""
        shape = self.tensor(self.input).shape
        return int(shape[0]) if shape is not None and len(shape) else 1

    def tensor(self, number: int) -> Any:
        """A tensor of the first subgraph."""
        return self.model.subgraphs[0].tensors[number]


def open_tflite(content: bytes, signature: Signature) -> LiteFile:
    """Read and check.

    Raises:
        ArtifactError: Damaged, or it is not what signature.json describes.
        VerdictError: It cannot be wrapped; what stands in the way is named.
    """
    checked_operators(content)
    model = read_model(content)
    if any(int(getattr(buffer, "offset", 0) or 0) > 1 for buffer in model.buffers):
        raise VerdictError("the file keeps constants behind its tables, which is for models above 2 GiB; a device's model is smaller")
    subgraph = model.subgraphs[0]
    inputs = [int(number) for number in subgraph.inputs]
    if [_name(subgraph.tensors[number]) for number in inputs] != [tensor.name for tensor in signature.inputs]:
        raise ArtifactError("signature.json names other inputs than the .tflite file has; import it again")
    _check_kind(subgraph.tensors[inputs[0]], "takes")
    outputs = {_name(subgraph.tensors[int(number)]): int(number) for number in subgraph.outputs}
    if signature.output not in outputs:
        raise ArtifactError(f"the .tflite file has no output {signature.output[:60]!r}, which signature.json names; import it again")
    raw = outputs[signature.output]
    _check_kind(subgraph.tensors[raw], "answers")
    return LiteFile(model, inputs[0], raw, _end(model, raw, _ENDS.get(signature.meaning, "")))


def form_of(model: Any) -> str:
    """The target that the file is already: `tflite-fp32`, or a smaller form whose numbers are in it."""
    from ai_edge_litert import schema_py_generated as schema

    kinds, found = operator_names(model), schema.TensorType
    hybrid = weights = halves = False
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            kind = kinds[operator.opcodeIndex]
            reads = [subgraph.tensors[int(number)] for number in operator.inputs if int(number) >= 0]
            given = {subgraph.tensors[int(number)].type for number in operator.outputs}
            if kind not in ("QUANTIZE", "DEQUANTIZE"):
                if found.INT16 in given and any(scale_of(subgraph.tensors[int(n)]) for n in operator.outputs):
                    return "tflite-int16x8"
                if given & {found.INT8, found.UINT8} and any(scale_of(subgraph.tensors[int(n)]) for n in operator.outputs):
                    return "tflite-int8"
            constant = [tensor for tensor in reads if _is_constant(model, tensor)]
            stored = {tensor.type for tensor in constant}
            if kind == "DEQUANTIZE":
                halves, weights = halves or found.FLOAT16 in stored, weights or found.INT8 in stored
            hybrid = hybrid or (kind in WEIGHTED and bool(stored & {found.INT8, found.INT4}))
    return "tflite-int8-dynamic" if hybrid else "tflite-int8-weights" if weights else "tflite-fp16" if halves else "tflite-fp32"


def float_weights(model: Any, operators: tuple[str, ...]) -> int:
    """How many of these operators have constant float32 weights."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = operator_names(model)
    weights = [
        subgraph.tensors[int(operator.inputs[1])]
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        if kinds[operator.opcodeIndex] in operators
    ]
    return sum(tensor.type == schema.TensorType.FLOAT32 and _is_constant(model, tensor) for tensor in weights)


def keeps_state(model: Any) -> bool:
    """Whether tensors outlive an answer, as the states of fused recurrent layers do."""
    return any(tensor.isVariable for subgraph in model.subgraphs for tensor in subgraph.tensors)


def scale_of(tensor: Any) -> tuple[float, int] | None:
    """(scale, zero point) of a quantized tensor; None for others."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return None
    zero = quantization.zeroPoint
    return float(quantization.scale[0]), int(zero[0]) if zero is not None and len(zero) else 0


def kind_name(tensor: Any) -> str:
    """Element type by its name in the schema."""
    from ai_edge_litert import schema_py_generated as schema

    return next((name for name, value in vars(schema.TensorType).items() if value == tensor.type and name.isupper()), str(tensor.type))


def _check_kind(tensor: Any, verb: str) -> None:
    kind = kind_name(tensor)
    if kind == "FLOAT32" or (kind in _STORED and scale_of(tensor) is not None):
        return
    plain = " without a scale" if kind in _STORED else ""
    raise VerdictError(
        f"the file {verb} {kind.lower()}{plain}, a device's interface is float32: "
        "export it with float or quantized int8, uint8 or int16 ends"
    )


def _end(model: Any, raw: int, wanted: str) -> int:
    kinds = operator_names(model)
    maker = {int(output): operator for operator in model.subgraphs[0].operators for output in operator.outputs}
    operator = maker.get(raw)
    while operator is not None and kinds[operator.opcodeIndex] in ("DEQUANTIZE", "QUANTIZE"):
        operator = maker.get(int(operator.inputs[0]))
    if operator is None or not wanted or kinds[operator.opcodeIndex] != wanted:
        return -1
    plain = wanted != "SOFTMAX" or operator.builtinOptions is None or operator.builtinOptions.beta == 1.0
    before = int(operator.inputs[0])
    kind = kind_name(model.subgraphs[0].tensors[before])
    return before if plain and (kind == "FLOAT32" or kind in _STORED) else -1


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _name(tensor: Any) -> str:
    return tensor.name.decode("utf-8", "replace") if isinstance(tensor.name, bytes) else str(tensor.name or "")
