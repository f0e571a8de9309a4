"""ONNX weights in half precision: float16 in the file, one Cast to float32 behind each; inputs, outputs and arithmetic stay float32.

onnxruntime folds the Casts when it loads the graph, so that a row takes as long as with float32 weights and gives the same answer on every
machine; computing in float16 would be slower on processors without it. Cleaning steps, thresholds and tables are not touched.
"""

from typing import Any, Final

import numpy as np

from converter.quantize.onnx_layers import RECURRENT, Layer, constants_of
from edgefleet.errors import VerdictError

OPERATORS: Final = ("MatMul", "Gemm", "Conv", *RECURRENT)
_LARGEST_HALF: Final = 65504.0


def halve(model: Any, layers: list[Layer]) -> None:
    """Store the weights of these layers in half precision, in place.

    Raises:
        VerdictError: A weight is too large for it.
    """
    from onnx import TensorProto, helper, numpy_helper

    constants, widened = constants_of(model), {}
    casts = []
    for weight in dict.fromkeys(name for layer in layers for name in (layer.weight, layer.state) if name in constants):
        if constants[weight].data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(constants[weight])
        if (largest := float(np.abs(values).max())) > _LARGEST_HALF:
            raise VerdictError(f"a weight of {largest:g} is above {_LARGEST_HALF:g}, the largest of half precision; use onnx-fp32")
        half, wide = f"{weight}:half", f"{weight}:wide"
        widened[weight] = wide
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half))
        casts.append(helper.make_node("Cast", [half], [wide], name=wide, to=TensorProto.FLOAT))
    names = {layer.name for layer in layers}
    for node in model.graph.node:
        if node.output[0] in names:
            for place in range(1, min(3, len(node.input))):
                node.input[place] = widened.get(node.input[place], node.input[place])
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *rest])
