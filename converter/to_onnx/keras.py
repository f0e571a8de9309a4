"""Keras models to ONNX with tf2onnx. Runs in the TensorFlow child only."""

from typing import Any

from converter.to_onnx.graphs import OPSET, finish, in_canonical_form
from edgefleet.errors import VerdictError


def keras_to_onnx(model: Any, features: int) -> bytes:
    """The graph of a Keras model whose output is a dict of `margin` and `probabilities`.

    Args:
        model: The model with named outputs.
        features: Columns of its input.

    Raises:
        VerdictError: The converter's graph has other inputs or outputs than promised.
    """
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec([None, features], tf.float32, name="inputs")]
    function = tf.function(lambda inputs: model(inputs, training=False), input_signature=signature)
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    names = [value.name for value in converted.graph.input], sorted(value.name for value in converted.graph.output)
    if names != (["inputs"], ["margin", "probabilities"]):
        raise VerdictError(f"tf2onnx made inputs {names[0]} and outputs {names[1]}, expected inputs -> margin, probabilities")
    nodes, constants = in_canonical_form(converted.graph, ("margin", "probabilities"))
    widths = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in converted.graph.output}
    return finish(nodes, constants, features=features, margins=widths["margin"], classes=widths["probabilities"])
