"""fp32 TFLite to int8 with ai-edge-quantizer; `quantize(job)` is called by `converter.isolate`.

Only operators with weights and the poolings between them become integer. Inputs stay float up to the first of them, so that columns of
very different size are normalised before anything is rounded, and softmax stays float. Calibration rows go in as ONE batch: the quantizer
averages over batches, and single rows would clip the activations.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError
from edgefleet.package import read_npz

_SIGNATURE: Final = "serving_default"
_INTEGER_OPERATORS: Final = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def quantize(job: dict[str, Any]) -> dict[str, Any]:
    """The child's whole work.

    Args:
        job: `graph` (path of the fp32 file), `calibration` (path of an .npz with x), `target`, `result` (path to write to).
    """
    graph = Path(job["graph"]).read_bytes()
    x = read_npz(Path(job["calibration"]).read_bytes(), ("x",), "calibration rows")["x"]
    content = int8_weights(graph) if job["target"] == "tflite-int8-weights" else int8_static(graph, x)
    Path(job["result"]).write_bytes(content)
    return {}


def int8_static(graph: bytes, calibration: NDArray[np.float32]) -> bytes:
    """Integer weights and activations, float32 in and out.

    Raises:
        VerdictError: No calibration rows, or no operator of the graph can be integer.
    """
    from ai_edge_quantizer import qtyping, quantizer

    if len(calibration) == 0:
        raise VerdictError("there are no calibration rows in the package; int8 needs some")
    work = quantizer.Quantizer(graph)
    for name in _INTEGER_OPERATORS:
        work.add_static_config(regex=".*", operation_name=qtyping.TFLOperationName[name], activation_num_bits=8, weight_num_bits=8)
    ranges = work.calibrate({_SIGNATURE: [{"inputs": np.ascontiguousarray(calibration, np.float32)}]}, num_threads=1)
    return _with_float_outputs(_changed(graph, bytes(work.quantize(ranges).quantized_model)))


def int8_weights(graph: bytes) -> bytes:
    """Integer weights only; everything is computed in float."""
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(graph)
    work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    return _with_float_outputs(_changed(graph, bytes(work.quantize().quantized_model)))


def _changed(before: bytes, after: bytes) -> bytes:
    if len(after) >= len(before):
        raise VerdictError(f"quantizing made {len(after)} bytes of {len(before)}: nothing in this model becomes smaller")
    return after


def _with_float_outputs(graph: bytes) -> bytes:
    """The graph whose signature names the float tensors.

    Where an output also feeds the next operator (the margin feeds softmax), the quantizer moves the graph's output to the dequantized
    tensor but leaves the signature at the integer one, which nobody can read then.
    """
    import flatbuffers  # type: ignore[import-untyped]  # ships no types
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(graph), 0))
    subgraph = model.subgraphs[0]
    kinds = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    floats = {
        int(op.inputs[0]): int(op.outputs[0]) for op in subgraph.operators if kinds[op.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
    }
    subgraph.outputs = [_float_tensor(subgraph, floats, int(index), schema.TensorType.FLOAT32) for index in subgraph.outputs]
    for signature in model.signatureDefs:
        for output in signature.outputs:
            output.tensorIndex = _float_tensor(subgraph, floats, int(output.tensorIndex), schema.TensorType.FLOAT32)
    builder = flatbuffers.Builder(len(graph))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _float_tensor(subgraph: Any, floats: dict[int, int], index: int, float32: int) -> int:
    if subgraph.tensors[index].type == float32:
        return index
    if index not in floats:
        raise VerdictError("the quantizer left an integer output without a float twin; this model cannot keep a float interface")
    return floats[index]
