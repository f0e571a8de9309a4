"""fp32 TFLite to integers with ai-edge-quantizer, which starts from the file and needs no TensorFlow.

Only the operators of a positive list become integer, and of these only what the margin depends on. Inputs stay float up to the first of
them, so that columns of very different size are cleaned before anything is rounded, and softmax stays float. Calibration rows go in as ONE
batch: the quantizer averages over batches, and single rows would clip the activations.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.to_tflite.flat import operator_names, read_model, write_model
from edgefleet.errors import VerdictError

_SIGNATURE: Final = "serving_default"
WEIGHTED: Final = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_INNER: Final = b"t"
_READ_NOTES: Final = (b"min_runtime_version",)
_POOLING: Final = ("MAX_POOL_2D", "AVERAGE_POOL_2D")
# Of these targets the arithmetic is integer with ranges from calibration rows: bits of the activations.
STATIC_BITS: Final = {"tflite-int8": 8, "tflite-int16x8": 16}


@dataclass(frozen=True)
class Layer:
    """One operator with weights.

    Attributes:
        name: Of the tensor that it gives.
        operator: Its name.
        reads: Number of the tensor that it reads, in its subgraph.
        subgraph: Number of its subgraph; the body of a loop is one of its own.
    """

    name: str
    operator: str
    reads: int
    subgraph: int


def layers_of(graph: bytes) -> list[Layer]:
    """Layers that may be integer, in the order of the file.

    Raises:
        VerdictError: There are none.
    """
    layers = [layer for layer in _operators(graph) if layer.operator in WEIGHTED]
    if not layers:
        raise VerdictError(
            f"no operator with float weights that can be integer ({', '.join(WEIGHTED)}): nothing to quantize; use tflite-fp32. "
            "Trees are not quantized: thresholds would move; limit depth or count instead"
        )
    return layers


def has_loop(graph: bytes) -> bool:
    """Whether the file holds a loop (recurrent layers)."""
    return "WHILE" in operator_names(read_model(graph))


def quantized(graph: bytes, target: str, names: Sequence[str], calibration: NDArray[np.float32] | None = None) -> bytes:
    """The graph with the named layers as integers, float32 in and out.

    Args:
        graph: fp32 file.
        target: One of the integer TFLite targets.
        names: Of layers; the others stay float.
        calibration: Raw rows; static targets need them.

    Raises:
        VerdictError: The quantizer refuses, or a loop would have to be calibrated.
    """
    from ai_edge_quantizer import qtyping, quantizer

    if target in STATIC_BITS and has_loop(graph):
        raise VerdictError("recurrent layers (WHILE) cannot be calibrated: the runtime dies of it; use tflite-int8-dynamic")
    work = quantizer.Quantizer(graph)
    operators = [*WEIGHTED, *_POOLING] if target in STATIC_BITS else WEIGHTED
    wanted = set(names)
    for operator in operators:
        pooled = operator in _POOLING
        scopes = [layer.name for layer in _operators(graph) if layer.operator == operator and (pooled or layer.name in wanted)]
        if not scopes:
            continue
        # The quantizer looks for the expression in the names of all tensors that an operator gives, each with a semicolon behind it.
        scope, kind = f"^(?:{'|'.join(re.escape(name) for name in scopes)});$", qtyping.TFLOperationName[operator]
        if target in STATIC_BITS:
            work.add_static_config(scope, kind, activation_num_bits=STATIC_BITS[target], weight_num_bits=8)
        elif target == "tflite-int8-dynamic":
            work.add_dynamic_config(scope, kind, num_bits=8)
        else:
            work.add_weight_only_config(scope, kind, num_bits=8)
    try:
        return _with_float_outputs(_worked(work, target, calibration))
    except (ValueError, RuntimeError, KeyError, NotImplementedError) as err:
        raise VerdictError(f"the quantizer refuses this graph for {target}: {' '.join(str(err).split())[:200]}; use tflite-fp32") from err


def reads_of(graph: bytes, layers: Sequence[Layer], x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What the layers outside of loops read for raw rows x."""
    interpreter = _interpreter(graph, x, keep=True)
    return [np.array(interpreter.get_tensor(layer.reads)) for layer in layers if layer.subgraph == 0]


def answers_of(graph: bytes, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Named outputs for raw rows x; a file for one row at a time is asked row by row."""
    interpreter = _interpreter(graph, x[:1], keep=False)
    outputs = interpreter.get_signature_list()[_SIGNATURE]["outputs"]
    runner = interpreter.get_signature_runner(_SIGNATURE)
    (details,) = interpreter.get_input_details()
    single = int(details["shape_signature"][0]) == 1
    blocks = [x[i : i + 1] for i in range(len(x))] if single else [x]
    found = [runner(inputs=np.ascontiguousarray(block, np.float32)) for block in blocks]
    return {name: np.concatenate([answer[name] for answer in found]) for name in outputs}


def _interpreter(graph: bytes, x: NDArray[np.float32], *, keep: bool) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from edgefleet.quiet import quiet_load

    with quiet_load():
        # A delegate keeps what is between its operators to itself.
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep else OpResolverType.AUTO
        interpreter = Interpreter(
            model_content=graph, num_threads=1, experimental_preserve_all_tensors=keep, experimental_op_resolver_type=kernels
        )
        (details,) = interpreter.get_input_details()
        if int(details["shape_signature"][0]) == 1:
            x = x[:1]
        interpreter.resize_tensor_input(details["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(details["index"], np.ascontiguousarray(x, np.float32))
        interpreter.invoke()
    return interpreter


def _worked(work: Any, target: str, calibration: NDArray[np.float32] | None) -> bytes:
    if target in STATIC_BITS and calibration is None:
        raise VerdictError(f"{target} needs calibration rows")
    with warnings.catch_warnings():
        # It keeps all values of the graph to look at their ranges: that is what calibrating is.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors", category=UserWarning)
        ranges = None
        if target in STATIC_BITS:
            ranges = work.calibrate({_SIGNATURE: [{"inputs": np.ascontiguousarray(calibration, np.float32)}]}, num_threads=1)
        return bytes(work.quantize(ranges, enable_progress_report=False).quantized_model)


def _operators(graph: bytes) -> list[Layer]:
    """Operators of the positive list with float32 weights, in loops and where the margin depends on them."""
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(graph)
    kinds, found = operator_names(model), []
    for number, subgraph in enumerate(model.subgraphs):
        needed = _before_margin(model) if number == 0 else None
        for operator in subgraph.operators:
            kind, given = kinds[operator.opcodeIndex], int(operator.outputs[0])
            if kind not in (*WEIGHTED, *_POOLING) or (needed is not None and given not in needed):
                continue
            weight = subgraph.tensors[int(operator.inputs[1])] if kind in WEIGHTED else None
            if weight is not None and (weight.type != schema.TensorType.FLOAT32 or model.buffers[weight.buffer].data is None):
                continue
            found.append(Layer(subgraph.tensors[given].name.decode(), kind, int(operator.inputs[0]), number))
    return found


def _before_margin(model: Any) -> set[int]:
    """Numbers of all tensors of the first subgraph that the margin depends on; a calibrator's tables come behind it."""
    subgraph = model.subgraphs[0]
    maker = {int(output): operator for operator in subgraph.operators for output in operator.outputs}
    outputs = [output for signature in model.signatureDefs or [] for output in signature.outputs]
    waiting = [int(output.tensorIndex) for output in outputs if output.name == b"margin"]
    seen: set[int] = set()
    while waiting:
        tensor = waiting.pop()
        if tensor >= 0 and tensor not in seen:
            seen.add(tensor)
            waiting += [int(read) for read in maker[tensor].inputs] if tensor in maker else []
    return seen


def _with_float_outputs(graph: bytes) -> bytes:
    """The graph whose signature names the float tensors.

    Where an output also feeds the next operator (the margin feeds softmax), the quantizer moves the graph's output to the dequantized
    tensor but leaves the signature at the integer one, which nobody can read then.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(graph)
    subgraph, kinds = model.subgraphs[0], operator_names(model)
    floats = {int(op.inputs[0]): int(op.outputs[0]) for op in subgraph.operators if kinds[op.opcodeIndex] == "DEQUANTIZE"}
    subgraph.outputs = [_float_tensor(subgraph, floats, int(index), schema.TensorType.FLOAT32) for index in subgraph.outputs]
    for signature in model.signatureDefs:
        for output in signature.outputs:
            output.tensorIndex = _float_tensor(subgraph, floats, int(output.tensorIndex), schema.TensorType.FLOAT32)
    _leave_out_what_no_runtime_reads(model)
    return write_model(model)


def _leave_out_what_no_runtime_reads(model: Any) -> None:
    """One name for all between the ends, nothing beside scales, no notes of the tools: a quarter of the bytes of a small network."""
    for subgraph in model.subgraphs:
        ends = {int(index) for index in (*subgraph.inputs, *subgraph.outputs)}
        for number, tensor in enumerate(subgraph.tensors):
            if number not in ends:
                tensor.name = _INNER
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
                if tensor.quantization.scale is None:
                    tensor.quantization = None
    model.description = None
    for note in [note for note in model.metadata or () if note.name not in _READ_NOTES]:
        model.metadata.remove(note)
        model.buffers[note.buffer].data = None  # its place stays: others are known by their numbers


def _float_tensor(subgraph: Any, floats: dict[int, int], index: int, float32: int) -> int:
    if subgraph.tensors[index].type == float32:
        return index
    if index not in floats:
        raise VerdictError("the quantizer left an integer output without a float twin; this model cannot keep a float interface")
    return floats[index]
