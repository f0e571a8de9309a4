"""What the outputs of a Keras model mean, and its margin.

Networks of our trainer name their outputs; those of strangers come with signature.json, which says what the chosen one means. The margin of
a classifier is what stands in front of its last softmax or sigmoid. Where a stranger's model hides it, the logarithm of its probabilities
takes its place, which differs from it by the same number for all classes.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from converter.to_tflite.graph import Answer
from converter.to_tflite.probabilities import pair
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.signature import SIGNATURE_NAME, Signature

_LEAST_SHARE: Final = 1e-12


def own(model: Any, task: str, feed: Callable[[Any], Any]) -> Answer:
    """A model of our trainer, or one whose last layer tells what it is."""
    import tensorflow as tf

    # A loaded Sequential has no output of its own, but its layers do; it cannot have named outputs either.
    outputs = None if isinstance(model, tf.keras.Sequential) else model.output
    named = outputs if isinstance(outputs, dict) else {}
    if task != "classification":
        name = "value" if task == "regression" else "score"
        tensor = named.get(name) if named else (model.outputs[0] if len(model.outputs) == 1 else None)
        if tensor is None:
            raise VerdictError(
                f"the Keras model answers {', '.join(sorted(named)) or len(model.outputs)} outputs, expected one named {name!r}"
            )
        part = _part(model, tensor)
        return lambda x: {"margin": _flat(part(feed(x), training=False))}
    if {"margin", "probabilities"} <= set(named):
        both = _part(model, {name: named[name] for name in ("margin", "probabilities")})
        return lambda x: dict(both(feed(x), training=False))
    if len(model.outputs) != 1:
        raise VerdictError(f"the Keras model has {len(model.outputs)} outputs, expected `margin` and `probabilities`, or a single one")
    before, end = _before_activation(model.outputs[0])
    if not end:
        last = model.layers[-1]
        activation = getattr(getattr(last, "activation", None), "__name__", "")
        raise VerdictError(
            f"no margin is found: the last layer is {type(last).__name__} with activation {activation!r}; "
            "end with softmax, or one sigmoid unit"
        )
    return _classifier(_part(model, before), feed, end)


def imported(model: Any, signature: Signature, feed: Callable[[Any], Any]) -> Answer:
    """A stranger's model, by what its signature says of the chosen output."""
    import tensorflow as tf

    place = signature.output.split(" ")[0]
    if not place.isdigit() or int(place) >= len(model.outputs):
        raise ArtifactError(f"{SIGNATURE_NAME}: output {signature.output!r} is none of the model's {len(model.outputs)}; import it again")
    tensor, meaning = model.outputs[int(place)], signature.meaning
    if meaning in ("probabilities", "sigmoid"):
        before, end = _before_activation(tensor)
        if end == ("softmax" if meaning == "probabilities" else "sigmoid"):
            return _classifier(_part(model, before), feed, end)
    part = _part(model, tensor)

    def answer(x: Any) -> dict[str, Any]:
        output = tf.cast(_flat(part(feed(x), training=False)), tf.float32)
        if meaning == "reconstruction":
            raw = tf.reshape(x, (-1, int(np.prod(x.shape[1:]))))
            return {"margin": tf.reduce_mean(tf.square(output - raw), axis=1, keepdims=True)}
        if meaning in ("value", "score"):
            return {"margin": output[:, :1] * signature.sign}
        return shares(output, meaning)

    return answer


def shares(output: Any, meaning: str) -> dict[str, Any]:
    """Margin and probabilities of an output [n, columns] of a classifier whose end is hidden."""
    import tensorflow as tf

    if meaning == "logits":
        return {"margin": output, "probabilities": tf.nn.softmax(output)}
    if meaning == "logit":
        return {"margin": output[:, :1], "probabilities": pair(output[:, :1])}
    if meaning == "sigmoid":
        second = output[:, :1]
        odds = tf.math.log(tf.maximum(second, _LEAST_SHARE)) - tf.math.log(tf.maximum(1 - second, _LEAST_SHARE))
        return {"margin": odds, "probabilities": tf.concat([1 - second, second], axis=1)}
    positive = tf.maximum(output, 0.0)
    probabilities = positive / tf.maximum(tf.reduce_sum(positive, axis=1, keepdims=True), _LEAST_SHARE)
    return {"margin": tf.math.log(tf.maximum(probabilities, _LEAST_SHARE)), "probabilities": probabilities}


def _classifier(before: Any, feed: Callable[[Any], Any], end: str) -> Answer:
    import tensorflow as tf

    def answer(x: Any) -> dict[str, Any]:
        margin = tf.cast(_flat(before(feed(x), training=False)), tf.float32)
        return {"margin": margin, "probabilities": tf.nn.softmax(margin) if end == "softmax" else pair(margin)}

    return answer


def _before_activation(tensor: Any) -> tuple[Any, str]:
    """What the last softmax, or the last sigmoid of one unit, is computed of; the tensor itself and "" where there is none."""
    layer = tensor._keras_history.operation
    kind, activation = type(layer).__name__, getattr(getattr(layer, "activation", None), "__name__", "")
    single = tensor.shape[-1] == 1
    if kind == "Softmax" and layer.axis in (-1, 1) and len(tensor.shape) == 2:
        return layer.input, "softmax"
    if kind == "Activation" and (activation == "softmax" or (activation == "sigmoid" and single)):
        return layer.input, activation
    if kind == "Dense" and (activation == "softmax" or (activation == "sigmoid" and single)):
        return _linear_twin(layer)(layer.input), activation
    return tensor, ""


def _part(model: Any, outputs: Any) -> Any:
    """A model of the same inputs, called as `keras._feed` calls it; its name goes into the files, so that it must not be numbered."""
    import tensorflow as tf

    return tf.keras.Model(model.inputs if len(model.inputs) > 1 else model.inputs[0], outputs, name="network")


def _linear_twin(layer: Any) -> Any:
    """A layer of the same weights without the activation."""
    import tensorflow as tf

    twin = tf.keras.layers.Dense(layer.units, use_bias=layer.use_bias, name="margin")
    twin.build(layer.input.shape)
    twin.set_weights(layer.get_weights())
    return twin


def _flat(output: Any) -> Any:
    """[n, columns] of an output of any rank."""
    import tensorflow as tf

    return output if len(output.shape) == 2 else tf.reshape(output, (-1, int(np.prod(output.shape[1:]))))
