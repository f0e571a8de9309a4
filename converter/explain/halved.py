"""A model with the numbers that a half-precision file of it holds: an exact explanation must add up to the margin of the very variant.

What the writers round is leaf values and weights (`to_tflite.half`, `quantize.onnx_half`); thresholds, offsets, biases and cleaning stay as
they are, and so do tables that are too small to be worth it.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Layers, Trees
from converter.explain.linear import is_linear
from converter.quantize.onnx_layers import LEAST_WEIGHTS
from converter.to_tflite.half import LEAST_BYTES
from converter.to_tflite.trees import tables_of

# Target: name of the graph of its explanation, where that is another than the float model's.
GRAPHS: Final = {"tflite-fp16": "explain-tflite-fp16.tflite"}
HALVED: Final = ("onnx-fp16", "tflite-fp16")
_FLOAT32_BYTES: Final = 4


def halved(core: Core, target: str) -> Core | None:
    """The core as the file of a target holds it; None where that is the core as it is.

    Args:
        core: A sum of trees, or a linear model; nothing else is explained exactly.
        target: One of `HALVED`, others hold the numbers of the float model.
    """
    head = core.head
    if target not in HALVED:
        return None
    if isinstance(head, Trees):
        # ONNX trees are operators of their own, which hold float32.
        if target == "onnx-fp16" or tables_of(head.ensemble).value.nbytes < LEAST_BYTES:
            return None
        trees = [replace(tree, value=in_half(tree.value)) for tree in head.ensemble.trees]
        return replace(core, head=replace(head, ensemble=replace(head.ensemble, trees=trees)))
    return _linear(core, target) if is_linear(core) else None


def _linear(core: Core, target: str) -> Core | None:
    assert isinstance(core.head, Layers)  # noqa: S101  # the caller looked
    (layer,) = core.head.layers
    least = LEAST_WEIGHTS if target == "onnx-fp16" else LEAST_BYTES // _FLOAT32_BYTES
    if layer.weight.size < least:
        return None
    weight = in_half(layer.weight)
    bias = layer.bias
    if core.head.center is not None:
        # The writers fold the centre into the bias by the weights before they are rounded.
        bias = bias + core.head.center.astype(np.float64) @ (layer.weight - weight)
    return replace(core, head=replace(core.head, layers=(replace(layer, weight=weight, bias=bias),)))


def in_half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Float64 values as they come back from float16.

    >>> in_half(np.array([0.1, 0.25])).tolist()
    [0.0999755859375, 0.25]
    """
    # Values of inner nodes may be too large for half precision; no row ends there.
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float16).astype(np.float64)
