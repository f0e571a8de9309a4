"""The integers of a linear layer, read from the ONNX or TFLite file of an integer variant."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.rounding import Rounding

Floats = NDArray[np.float64]

# Weights of the model that are the file's but for so many of its steps are the same weights; a half is what rounding may cost.
_STEPS_APART: Final = 0.51


@dataclass(frozen=True)
class Rounded:
    """What an integer file of a linear model multiplies.

    Attributes:
        weight: [C, K] as the integers say.
        bias: [K] likewise.
        entry: How the file rounds the columns.
        answer: How it rounds the margin, or None.
    """

    weight: Floats
    bias: Floats
    entry: Rounding
    answer: Rounding | None = None


def rounded_layer(content: bytes, weight: Floats, *, is_onnx: bool) -> Rounded | None:
    """The layer of a file that was made of these weights [C, K]; None without one."""
    return _of_onnx(content, weight) if is_onnx else _of_tflite(content, weight)


def _fits(found: Floats, scale: Floats, weight: Floats) -> bool:
    return found.shape == weight.shape and bool((np.abs(found - weight) <= _STEPS_APART * np.maximum(scale, 1e-30)).all())


def _of_onnx(content: bytes, weight: Floats) -> Rounded | None:
    """Layers as `quantize.onnx_static` and `quantize.onnx_dynamic` write them."""
    from onnx import numpy_helper

    from converter.quantize.onnx_layers import constants_of, read_onnx

    model = read_onnx(content)
    numbers = {name: numpy_helper.to_array(tensor) for name, tensor in constants_of(model).items()}
    maker = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Gemm" and (held := maker.get(node.input[1])) is not None and held.op_type == "DequantizeLinear":
            whole, scale = (numbers[name].astype(np.float64) for name in held.input[:2])
            if not _fits(whole * scale, scale, weight):
                continue
            bias, entry = maker[node.input[2]], maker[node.input[0]]
            step, zero = numbers[entry.input[1]], numbers[entry.input[2]]
            shift = numbers[bias.input[0]].astype(np.float64) * numbers[bias.input[1]].astype(np.float64)
            return Rounded(whole * scale, shift, Rounding.fixed(float(step), int(zero), -128, 127))
        if node.op_type == "MatMulInteger":
            name = node.output[0].removesuffix(":whole")
            whole, scale = numbers[f"{name}:weight"].astype(np.float64), numbers[f"{name}:weight_scale"].astype(np.float64)
            if not _fits(whole * scale, scale, weight):
                continue
            bias = maker[name].input[1] if maker[name].op_type == "Add" else ""
            shift = numbers[bias].astype(np.float64).reshape(-1) if bias else np.zeros(weight.shape[1])
            return Rounded(whole * scale, shift, Rounding("span"))
    return None


def _of_tflite(content: bytes, weight: Floats) -> Rounded | None:
    """A FULLY_CONNECTED as ai-edge-quantizer leaves it, or one behind the DEQUANTIZE of its weights."""
    from converter.to_tflite.flat import operator_names, read_model

    model = read_model(content)
    kinds, subgraph = operator_names(model), model.subgraphs[0]
    widened = {int(op.outputs[0]): int(op.inputs[0]) for op in subgraph.operators if kinds[op.opcodeIndex] == "DEQUANTIZE"}
    for operator in subgraph.operators:
        if kinds[operator.opcodeIndex] != "FULLY_CONNECTED":
            continue
        entry, place, *rest = (int(i) for i in operator.inputs)
        held = _numbers(model, subgraph.tensors[widened.get(place, place)])
        if held is None or not _fits(held[0].T, np.broadcast_to(held[1], held[0].shape).T, weight):
            continue
        bias = _numbers(model, subgraph.tensors[rest[0]]) if rest and rest[0] >= 0 else None
        shift = np.zeros(weight.shape[1]) if bias is None else bias[0].reshape(-1)
        if place in widened:
            return Rounded(held[0].T, shift, Rounding("none"))
        reads, gives = _grid(subgraph.tensors[entry]), _grid(subgraph.tensors[int(operator.outputs[0])])
        return Rounded(held[0].T, shift, Rounding("span", by_rate=True) if reads is None else reads, gives)
    return None


def _numbers(model: Any, tensor: Any) -> tuple[Floats, Floats] | None:
    """(real values, steps) of a constant; None where it is none."""
    from ai_edge_litert import schema_py_generated as schema

    kinds: dict[int, type[np.number[Any]]] = {
        schema.TensorType.INT8: np.int8,
        schema.TensorType.INT32: np.int32,
        schema.TensorType.INT64: np.int64,
    }
    kinds[schema.TensorType.FLOAT32] = np.float32
    content = model.buffers[tensor.buffer].data
    if content is None or tensor.type not in kinds:
        return None
    whole = np.frombuffer(bytes(content), kinds[tensor.type]).reshape(tensor.shape).astype(np.float64)
    scale = None if tensor.quantization is None else tensor.quantization.scale
    if scale is None or len(scale) == 0:
        return whole, np.zeros(1)
    sides = [1] * whole.ndim
    sides[tensor.quantization.quantizedDimension if len(scale) > 1 else 0] = len(scale)
    steps = np.asarray(scale, np.float64).reshape(sides)
    return whole * steps, steps


def _grid(tensor: Any) -> Rounding | None:
    """The steps of an integer value between operators; None for a float one."""
    from ai_edge_litert import schema_py_generated as schema

    ends = {schema.TensorType.INT8: (-128, 127), schema.TensorType.INT16: (-32768, 32767)}.get(tensor.type)
    if ends is None:
        return None
    return Rounding.fixed(float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]), *ends, by_rate=True)
