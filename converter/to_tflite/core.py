"""A core as TensorFlow operators; every form of `converter.cores.core` and nothing else."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.calibrators import parse_calibrator
from converter.cores import Core, Distance, Kernel, Layers, Trees
from converter.to_tflite.graph import Answer
from converter.to_tflite.probabilities import calibrated, linked
from converter.to_tflite.steps import run_in_tensorflow
from converter.to_tflite.trees import trees_in_tensorflow
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps

Margin = Callable[[Any], Any]
# Squared distances as products lose bits in proportion to the squared lengths; above this, in units of the kernel, they are differences.
_LONGEST: Final = 16.0
_LARGEST_DIFFERENCES: Final = 1 << 20


def core_in_tensorflow(core: Core, steps: Steps, *, missing: bool) -> tuple[Answer, list[bytes]]:
    """The model behind its steps as a function of raw rows, and the constants of look-ups that half precision may halve.

    Args:
        core: The model.
        steps: Cleaning in front of it.
        missing: Whether cleaned rows may hold missing values.

    Raises:
        VerdictError: Something of the core has no form in TFLite; named.
    """
    margin_of, tables = _head(core, missing)
    calibrator = None if core.calibrator is None else parse_calibrator(core.calibrator, core.classes)

    def answer(inputs: Any) -> dict[str, Any]:
        import tensorflow as tf

        cleaned = run_in_tensorflow(steps, inputs)
        margin = margin_of(tf.reshape(cleaned, (-1, core.features)) if len(steps.output_shape) > 1 else cleaned)
        if core.classes == 0:
            return {"margin": margin}
        probabilities = linked(margin, core.link)
        if calibrator is not None:
            probabilities = calibrated(calibrator, margin, probabilities)
        return {"margin": margin, "probabilities": probabilities}

    return answer, tables


def _head(core: Core, missing: bool) -> tuple[Margin, list[bytes]]:
    head = core.head
    if isinstance(head, Trees):
        return trees_in_tensorflow(head, missing)
    if isinstance(head, Layers):
        return _layers(head), []
    return (_kernel(head) if isinstance(head, Kernel) else _distance(head)), []


def _layers(head: Layers) -> Margin:
    import tensorflow as tf

    kinds: dict[str, Margin] = {"identity": lambda x: x, "relu": tf.nn.relu, "tanh": tf.tanh, "logistic": tf.sigmoid}

    def margin(x: Any) -> Any:
        for layer in head.layers:
            if layer.activation not in kinds:
                raise VerdictError(f"a layer with the activation {layer.activation!r} is not converted to TFLite")
            if not layer.weight.any():  # a constant model answers whatever it is given, NaN too
                x = tf.zeros_like(tf.cast(tf.not_equal(x[:, :1], x[:, :1]), tf.float32)) + _single(layer.bias)
            else:
                x = tf.matmul(x, _single(layer.weight)) + _single(layer.bias)
            x = kinds[layer.activation](x)
        return x

    return margin


def _kernel(head: Kernel) -> Margin:
    import tensorflow as tf

    lengths = head.gamma * np.square(head.support).sum(axis=1)
    differences = float(lengths.max(initial=0)) > _LONGEST
    if differences and head.support.size > _LARGEST_DIFFERENCES:
        raise VerdictError(
            f"{len(head.support)} support vectors as narrow as gamma = {head.gamma:g} need {head.support.size} differences a row, "
            f"the limit is {_LARGEST_DIFFERENCES}: train with a smaller gamma or fewer rows"
        )

    def margin(x: Any) -> Any:
        z = _centred(x, head.mean) * _single(1 / head.scale)
        if differences:
            distance = tf.reduce_sum(tf.square(z[:, None, :] - _single(head.support)), axis=2) * np.float32(-head.gamma)
        else:
            own = tf.reduce_sum(tf.square(z), axis=1, keepdims=True) * np.float32(-head.gamma)
            distance = tf.minimum(tf.matmul(z, _single(2 * head.gamma * head.support.T)) - _single(lengths) + own, 0.0)
        return tf.matmul(tf.exp(distance), _single(head.dual)) + _single(head.intercept)

    return margin


def _distance(head: Distance) -> Margin:
    import tensorflow as tf

    def margin(x: Any) -> Any:
        if head.fill is not None:
            x = tf.where(tf.not_equal(x, x), tf.zeros_like(x) + _single(head.fill), x)
        return tf.sqrt(tf.reduce_sum(tf.square(tf.matmul(_centred(x, head.mean), _single(head.whitening))), axis=1, keepdims=True))

    return margin


def _centred(x: Any, mean: NDArray[np.float64]) -> Any:
    """Rows less the mean; one between two float32 is subtracted in two parts, because its rounding may be large beside the spread."""
    high = mean.astype(np.float32)
    low = (mean - high).astype(np.float32)
    return (x - high) - low if low.any() else x - high


def _single(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)
