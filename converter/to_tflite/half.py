"""Weights in half precision: the same TFLite file with its large constants in float16; inputs, outputs and arithmetic stay float32.

Only weights of matrix products and convolutions are halved, and leaf values of trees: TensorFlow's own option halves every constant, the
cleaning's offsets, tables and the splits of trees included, and moves what they decide.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from converter.to_tflite.flat import operator_names, read_model, write_model
from edgefleet.errors import VerdictError

# Operator: place of the weights among its inputs.
_WEIGHTS: Final = {"FULLY_CONNECTED": 1, "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1}
_TABLE: Final = {"GATHER": 0}
# A constant and the operator that widens it take some 130 bytes of their own.
LEAST_BYTES: Final = 512
_LARGEST_HALF: Final = 65504.0


def half(graph: bytes, tables: Sequence[bytes] = ()) -> bytes:
    """The graph with halved weights.

    Args:
        graph: A float32 file.
        tables: Contents of constants that a GATHER looks up and that may be halved too (leaf values).

    Raises:
        VerdictError: Nothing becomes smaller, or a weight is too large for half precision.
    """
    model = read_model(graph)
    code = _Widening(model)
    for subgraph in model.subgraphs:
        _halve(model, subgraph, code, frozenset(tables))
    content = write_model(model) if code.used else graph
    if len(content) >= len(graph):
        raise VerdictError(f"half precision makes {len(content)} bytes of {len(graph)}: no weights here are large enough; use tflite-fp32")
    return content


class _Widening:
    """The operator DEQUANTIZE in the file's table, entered when first used."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.names = operator_names(model)
        self.used = False

    def index(self) -> int:
        """Its place in the table."""
        from ai_edge_litert import schema_py_generated as schema

        self.used = True
        if "DEQUANTIZE" not in self.names:
            entry = schema.OperatorCodeT()
            entry.deprecatedBuiltinCode = entry.builtinCode = schema.BuiltinOperator.DEQUANTIZE
            entry.version = 3  # the first that reads float16
            self.model.operatorCodes.append(entry)
            self.names.append("DEQUANTIZE")
        place = self.names.index("DEQUANTIZE")
        self.model.operatorCodes[place].version = max(3, self.model.operatorCodes[place].version)
        return place


def _halve(model: Any, subgraph: Any, code: _Widening, tables: frozenset[bytes]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    widened: dict[int, int] = {}
    widening = []
    for operator in subgraph.operators:
        name = code.names[operator.opcodeIndex]
        place = _WEIGHTS.get(name, _TABLE.get(name))
        if place is None or len(operator.inputs) <= place:
            continue
        index = int(operator.inputs[place])
        content = _content(model, subgraph.tensors[index], schema.TensorType.FLOAT32)
        if index not in widened:
            if len(content) < LEAST_BYTES or (name in _TABLE and content not in tables):
                continue
            widened[index] = _half_tensor(model, subgraph, index, content)
            dequantize = schema.OperatorT()
            dequantize.opcodeIndex, dequantize.inputs, dequantize.outputs = code.index(), [index], [widened[index]]
            dequantize.builtinOptionsType, dequantize.builtinOptions = schema.BuiltinOptions.DequantizeOptions, schema.DequantizeOptionsT()
            widening.append(dequantize)
        operator.inputs[place] = widened[index]
    if widening:
        _rename_others(subgraph, widened)
        subgraph.operators = [*widening, *subgraph.operators]


def _rename_others(subgraph: Any, widened: dict[int, int]) -> None:
    """Every other reader of a halved constant reads the widened one too."""
    for operator in subgraph.operators:
        operator.inputs = [widened.get(int(index), int(index)) for index in operator.inputs]
    subgraph.outputs = [widened.get(int(index), int(index)) for index in subgraph.outputs]


def _content(model: Any, tensor: Any, float32: int) -> bytes:
    data = model.buffers[tensor.buffer].data
    return b"" if tensor.type != float32 or data is None else bytes(data)


def _half_tensor(model: Any, subgraph: Any, index: int, content: bytes) -> int:
    """Make the constant half precision and return the number of its float32 twin."""
    from ai_edge_litert import schema_py_generated as schema

    values = np.frombuffer(content, "<f4")
    if (largest := float(np.abs(values).max())) > _LARGEST_HALF:
        raise VerdictError(f"a weight of {largest:g} is above {_LARGEST_HALF:g}, the largest of half precision; use tflite-fp32")
    constant = subgraph.tensors[index]
    twin = schema.TensorT()
    twin.shape, twin.type, twin.buffer = constant.shape, schema.TensorType.FLOAT32, 0
    twin.name, twin.hasRank = (constant.name or b"") + b"_wide", constant.hasRank
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.astype("<f2").tobytes(), np.uint8)
    # A buffer of its own: the old one may be shared with a constant that stays float32; one that nobody reads any more is emptied.
    model.buffers.append(buffer)
    old, constant.buffer, constant.type = constant.buffer, len(model.buffers) - 1, schema.TensorType.FLOAT16
    if not any(tensor.buffer == old for graph in model.subgraphs for tensor in graph.tensors):
        model.buffers[old].data = None
    subgraph.tensors.append(twin)
    return len(subgraph.tensors) - 1
