"""Integer products in ONNX whose input range is taken from the rows at hand: no calibration, but a row's answer depends on its batch."""

from typing import Any, Final

import numpy as np

from converter.quantize.onnx_layers import Layer, constants_of
from converter.quantize.onnx_static import integers, weight_scales

OPERATORS: Final = ("MatMul", "Gemm")
NOTE: Final = "Its integer scale is taken from all rows of a batch: one row alone and among others is answered a little differently."


def make_dynamic(model: Any, layers: list[Layer]) -> None:
    """Make these products integer, in place: x W = (scale_x scale_W) (integer x - zero) integer W."""
    from onnx import helper, numpy_helper

    constants = constants_of(model)
    by_name = {layer.name: layer for layer in layers}
    nodes: list[Any] = []
    seen: set[str] = set()

    def node(operator: str, reads: list[str], *results: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, reads, list(results), name=results[0], **attributes))
        return results[0]

    for old in model.graph.node:
        layer = by_name.get(old.output[0])
        if layer is None:
            nodes.append(old)
            continue
        name = layer.name
        weight = numpy_helper.to_array(constants[layer.weight])
        if layer.axis == 0:
            weight = np.ascontiguousarray(weight.T)
        scale = weight_scales(weight, 1)
        scale = np.where(scale > 0, scale, np.float32(1.0))
        model.graph.initializer.append(numpy_helper.from_array(integers(weight, scale, 1), f"{name}:weight"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}:weight_scale"))
        entry = [f"{layer.reads}:{part}" for part in ("integer", "scale", "zero")]
        if layer.reads not in seen:
            seen.add(layer.reads)
            node("DynamicQuantizeLinear", [layer.reads], *entry)
        whole = node("MatMulInteger", [entry[0], f"{name}:weight", entry[2]], f"{name}:whole")
        real = node("Cast", [whole], f"{name}:real", to=1)
        unit = node("Mul", [entry[1], f"{name}:weight_scale"], f"{name}:unit")
        product = node("Mul", [real, unit], f"{name}:product" if layer.bias else name)
        if layer.bias:
            node("Add", [product, layer.bias], name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
