"""Keras models to ONNX with tf2onnx. Runs in the TensorFlow child only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converter.to_onnx.canonical import canonical
from converter.to_onnx.graphs import IR_VERSION, OPSET
from converter.to_onnx.steps import merge
from converter.to_tflite.graph import frozen_function
from edgefleet.errors import VerdictError

if TYPE_CHECKING:
    from converter.to_tflite.keras import Network


@dataclass(frozen=True)
class OnnxGraph:
    """A graph's bytes, the names of its operators, sorted, and the opset of the standard domain."""

    content: bytes
    operators: list[str]
    opset: int


def keras_to_onnx(network: "Network") -> OnnxGraph:
    """The graph of a network behind its steps.

    Raises:
        VerdictError: The converter's graph has other inputs or outputs than promised, or operators that devices do not have.
    """
    import tensorflow as tf
    import tf2onnx

    shape = [None, *network.steps.output_shape]
    signature, function = [tf.TensorSpec(shape, tf.float32, name="inputs")], frozen_function(network.cleaned, shape)
    with _typed_empty_lists():
        converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    outputs = ["margin", "probabilities"] if network.classes else ["margin"]
    names = [value.name for value in converted.graph.input], sorted(value.name for value in converted.graph.output)
    if names != (["inputs"], outputs):
        raise VerdictError(f"tf2onnx made inputs {names[0]} and outputs {names[1]}, expected inputs -> {', '.join(outputs)}")
    model = merge(network.steps, _finished(converted.graph, network, outputs))
    return OnnxGraph(bytes(model.SerializeToString(deterministic=True)), _operators(model.graph), OPSET)


def _finished(graph: Any, network: "Network", outputs: list[str]) -> Any:
    from onnx import TensorProto, checker, helper

    nodes, constants = canonical(graph, outputs)
    answers = network.answers_width()
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in [("inputs", network.steps.output_shape), *((name, (answers[name],)) for name in outputs)]
    ]
    fresh = helper.make_graph(nodes, "edgefleet", ends[:1], ends[1:], constants)
    model = helper.make_model(fresh, producer_name="edgefleet", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    try:
        checker.check_model(model, full_check=True)
    except Exception as err:  # the checker and shape inference raise two unrelated kinds
        raise VerdictError(f"the converted graph is invalid: {str(err)[:200]}") from err
    return model


def _operators(graph: Any) -> list[str]:
    """Names of all operators, those of loops included; only the standard domain is let through."""
    found: set[str] = set()
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise VerdictError(f"the graph needs the operator {node.domain}.{node.op_type}, which onnxruntime does not have")
        found.add(node.op_type)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.update(_operators(attribute.g))
    return sorted(found)


@contextmanager
def _typed_empty_lists() -> Iterator[None]:
    """tf2onnx writes empty lists without their type, which onnx refuses since 1.23; all of them are lists of whole numbers."""
    from onnx import AttributeProto, helper

    plain = helper.make_attribute

    def typed(key: str, value: Any, *args: Any, **more: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) == 0 and not more.get("attr_type") and len(args) < 2:
            more["attr_type"] = AttributeProto.INTS
        return plain(key, value, *args, **more)

    helper.make_attribute = typed
    try:
        yield
    finally:
        helper.make_attribute = plain
