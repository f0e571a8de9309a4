"""Both formats behind one form: which layers a float graph has, the graph with some of them integer, and what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.quantize import onnx_dynamic, onnx_half, onnx_layers, onnx_static, tflite
from edgefleet.errors import VerdictError

STATIC: Final = ("onnx-int8", "tflite-int8", "tflite-int16x8")
# Targets that compute in float: only the weights are stored small.
FLOAT_ARITHMETIC: Final = ("onnx-fp16", "tflite-int8-weights")
TARGETS: Final = (
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-dynamic",
    "tflite-int8",
    "tflite-int8-dynamic",
    "tflite-int8-weights",
    "tflite-int16x8",
)
_ONNX_OPERATORS: Final = {
    "onnx-fp16": onnx_half.OPERATORS,
    "onnx-int8": onnx_static.OPERATORS,
    "onnx-int8-dynamic": onnx_dynamic.OPERATORS,
}


@dataclass(frozen=True)
class Source:
    """A float graph and the target that it shall become.

    Attributes:
        content: The file.
        target: Name of the target.
        names: Of its layers that may be quantized, in the order of the file.
    """

    content: bytes
    target: str
    names: list[str]

    @property
    def is_onnx(self) -> bool:
        """Else it is TFLite."""
        return self.target.startswith("onnx")


def open_source(content: bytes, target: str) -> Source:
    """The graph with its layers.

    Raises:
        VerdictError: Nothing in it can be quantized; why.
    """
    if target.startswith("onnx"):
        found = onnx_layers.layers_of(onnx_layers.read_onnx(content), _ONNX_OPERATORS[target])
        return Source(content, target, [layer.name for layer in found])
    return Source(content, target, [layer.name for layer in tflite.layers_of(content)])


def quantize(source: Source, names: Sequence[str], x: NDArray[np.float32] | None) -> bytes:
    """The graph with the named layers quantized.

    Args:
        source: The float graph.
        names: Layers to quantize; the others stay as they are.
        x: Raw calibration rows; static targets need them.
    """
    if not source.is_onnx:
        return tflite.quantized(source.content, source.target, names, x)
    model = onnx_layers.read_onnx(source.content)
    layers = [layer for layer in onnx_layers.layers_of(model, _ONNX_OPERATORS[source.target]) if layer.name in set(names)]
    if source.target == "onnx-fp16":
        onnx_half.halve(model, layers)
    elif source.target == "onnx-int8-dynamic":
        onnx_dynamic.make_dynamic(model, layers)
    else:
        if x is None:
            raise VerdictError(f"{source.target} needs calibration rows")
        onnx_static.make_static(model, layers, onnx_static.ranges_of(model, layers, x))
    return onnx_layers.write_onnx(model)


def answers_of(content: bytes, is_onnx: bool, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The outputs of any such graph for raw rows."""
    if not is_onnx:
        return tflite.answers_of(content, x)
    model = onnx_layers.read_onnx(content)
    names = [value.name for value in model.graph.output]
    blocks = onnx_layers.values(model, names, x)
    return {name: np.concatenate([block[i] for block in blocks]) for i, name in enumerate(names)}


def missing_reaches(source: Source, names: Sequence[str], x: NDArray[np.float32]) -> bool:
    """Whether one of these layers of the float graph reads NaN for one of the rows x."""
    if source.is_onnx:
        model = onnx_layers.read_onnx(source.content)
        layers = [layer for layer in onnx_layers.layers_of(model, _ONNX_OPERATORS[source.target]) if layer.name in set(names)]
        blocks = onnx_layers.values(model, [layer.reads for layer in layers], x)
        return any(bool(np.isnan(value).any()) for block in blocks for value in block)
    if tflite.has_loop(source.content):  # what is inside a loop cannot be looked at: what comes out shows it
        return bool(np.isnan(tflite.answers_of(source.content, x)["margin"]).any())
    wanted = [layer for layer in tflite.layers_of(source.content) if layer.name in set(names)]
    return any(bool(np.isnan(value).any()) for value in tflite.reads_of(source.content, wanted, x))
