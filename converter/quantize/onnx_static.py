"""Integer layers in ONNX with ranges from calibration rows (QDQ form), one scale per output of a layer.

Behind each integer layer the numbers are float again; a runtime that knows the form computes the product in integers, any other computes
the same in float. Reference: Jacob et al. (2018), equations 3, 5 and 11.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.quantize.onnx_layers import Layer, constants_of, values
from edgefleet.errors import VerdictError

OPERATORS: Final = ("MatMul", "Gemm", "Conv")
_LEAST, _LARGEST = -128, 127
# A bias is a 32-bit integer in units of input scale x weight scale; half of the range is left to the sums.
_LARGEST_BIAS: Final = 2.0**30


@dataclass(frozen=True)
class Scale:
    """real = scale x (integer - zero)."""

    scale: np.float32
    zero: int


def scale_of(low: float, high: float) -> Scale:
    """The scale whose integers -128 .. 127 span [low, high] and 0, which every runtime must hit exactly.

    >>> scale_of(0.0, 255.0)
    Scale(scale=np.float32(1.0), zero=-128)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Scale(np.float32(1.0), 0)
    scale = np.float32(max((high - low) / (_LARGEST - _LEAST), float(np.finfo(np.float32).tiny)))
    return Scale(scale, int(np.clip(round(_LEAST - low / float(scale)), _LEAST, _LARGEST)))


def ranges_of(model: Any, layers: list[Layer], x: NDArray[np.float32]) -> dict[str, Scale]:
    """Scale of each value that the integer operators read or, for convolutions, give; from raw rows x.

    Raises:
        VerdictError: A value is not finite.
    """
    ends = _ends(model, layers)
    names = list(dict.fromkeys([layer.reads for layer in layers] + list(ends.values())))
    spans = dict.fromkeys(names, (np.inf, -np.inf))
    for block in values(model, names, x):
        for name, found in zip(names, block, strict=True):
            low, high = spans[name]
            spans[name] = (min(low, float(np.min(found))), max(high, float(np.max(found))))
            if not np.isfinite(found).all():
                raise VerdictError(f"the value {name!r} is not finite for the calibration rows; clean them in front of the model")
    return {name: scale_of(*span) for name, span in spans.items()}


def make_static(model: Any, layers: list[Layer], scales: dict[str, Scale]) -> None:
    """Make these layers integer, in place."""
    writer = _Writer(model, scales)
    by_name, ends = {layer.name: layer for layer in layers}, _ends(model, layers)
    given = {ends[name]: by_name[name] for name in ends}
    nodes = list(model.graph.node)
    for node in nodes:
        layer = by_name.get(node.output[0])
        if layer is not None:
            writer.quantize(node, layer)
        writer.nodes.append(node)
        if node.output[0] in given:
            writer.round_result(node)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.constants)


def weight_scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Symmetric scale of each output's weights."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    return np.asarray(np.abs(weight).max(axis=others) / np.float32(_LARGEST), np.float32)


def integers(weight: NDArray[np.float32], scale: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """Weights in units of their scales."""
    sides = [1] * weight.ndim
    sides[axis] = -1
    return np.asarray(np.clip(np.rint(weight / scale.reshape(sides)), -_LARGEST, _LARGEST), np.int8)


def _ends(model: Any, layers: list[Layer]) -> dict[str, str]:
    """Convolution: the value that its integers stand for, its own output or that of the Relu behind it.

    onnxruntime computes a convolution in integers only if its result is rounded too; products need no rounding behind them.
    """
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    ends = {}
    for layer in layers:
        if layer.operator != "Conv":
            continue
        behind = readers.get(layer.name, [])
        folded = len(behind) == 1 and behind[0].op_type == "Relu" and layer.name not in outputs
        end = behind[0].output[0] if folded else layer.name
        if end not in outputs:
            ends[layer.name] = end
    return ends


class _Writer:
    """Nodes and constants under way."""

    def __init__(self, model: Any, scales: dict[str, Scale]) -> None:
        self.source = constants_of(model)
        self.scales = scales
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.rounded: dict[str, str] = {}

    def quantize(self, node: Any, layer: Layer) -> None:
        """Let the layer read integers."""
        from onnx import numpy_helper

        weight = numpy_helper.to_array(self.source[layer.weight])
        bias = numpy_helper.to_array(self.source[layer.bias]).reshape(-1) if layer.bias else None
        entry = self.scales[layer.reads].scale
        scale = weight_scales(weight, layer.axis)
        if bias is not None and bias.size == 1:
            bias = np.repeat(bias, len(scale))
        if bias is not None:
            scale = np.maximum(scale, (np.abs(bias) / (np.float64(entry) * _LARGEST_BIAS)).astype(np.float32))
        scale = np.where(scale > 0, scale, np.float32(1.0))
        node.input[0] = self._rounded(layer.reads)
        node.input[1] = self._constant(layer.name, "weight", integers(weight, scale, layer.axis), scale, layer.axis)
        if bias is not None:
            unit = (entry * scale).astype(np.float32)
            whole = np.rint(bias.astype(np.float64) / np.maximum(unit, np.finfo(np.float32).tiny))
            node.input[2] = self._constant(layer.name, "bias", np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32), unit, 0)

    def round_result(self, node: Any) -> None:
        """Round what a node gives; whoever reads it, reads the rounded value."""
        own = node.output[0]
        exact = f"{own}:exact"
        node.output[0] = exact
        self._pair(exact, own, self.scales[own])
        self.rounded[own] = own

    def _rounded(self, name: str) -> str:
        if name not in self.rounded:
            self.rounded[name] = f"{name}:rounded"
            self._pair(name, self.rounded[name], self.scales[name])
        return self.rounded[name]

    def _pair(self, name: str, result: str, entry: Scale) -> None:
        from onnx import helper

        scale, zero = self._number(f"{result}:scale", entry.scale), self._number(f"{result}:zero", np.int8(entry.zero))
        integer = f"{result}:integer"
        self.nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [integer], name=integer))
        self.nodes.append(helper.make_node("DequantizeLinear", [integer, scale, zero], [result], name=f"{result}:back"))

    def _constant(self, layer: str, part: str, whole: NDArray[Any], scale: NDArray[np.float32], axis: int) -> str:
        from onnx import helper

        name = f"{layer}:{part}"
        reads = [self._number(f"{name}:integer", whole), self._number(f"{name}:scale", scale)]
        reads.append(self._number(f"{name}:zero", np.zeros(len(scale), whole.dtype)))
        self.nodes.append(helper.make_node("DequantizeLinear", reads, [name], name=name, axis=axis))
        return name

    def _number(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
