"""A core as TensorFlow operators; every form of `converter.cores.core` and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.calibrators import parse_calibrator
from converter.cores import Core, Distance, Kernel, Layers, Trees, Votes
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
        if len(steps.output_shape) > 1:
            cleaned = tf.reshape(cleaned, (-1, int(np.prod(steps.output_shape))))
        margin = margin_of(cleaned if core.front is None else run_in_tensorflow(core.front, cleaned))
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
        bias = [_single(layer.bias) for layer in head.layers]
        if head.center is not None:
            # Products of the centre in float64: float32 would cancel large numbers here once more.
            bias[0] = _single(head.layers[0].bias + head.center.astype(np.float64) @ head.layers[0].weight)
            x = x - head.center
        for layer, shift in zip(head.layers, bias, strict=True):
            if layer.activation not in kinds:
                raise VerdictError(f"a layer with the activation {layer.activation!r} is not converted to TFLite")
            x = tf.matmul(x, _single(layer.weight)) + shift
            x = kinds[layer.activation](x)
        return x

    return margin


def _kernel(whole: Kernel) -> Margin:
    import tensorflow as tf

    head = _mixed(whole)
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
        decisions = _weighed(tf.exp(distance), _single(head.dual)) + _single(head.intercept)
        return decisions if head.votes is None else _voted(head.votes, decisions)

    return margin


def _weighed(kernel: Any, dual: NDArray[np.float32]) -> Any:
    """The product of kernel [n, M] and dual [M, K]; a single column is added up in pieces, which loses less than one long sum."""
    import tensorflow as tf

    if dual.shape[1] > 1:
        return tf.matmul(kernel, dual)
    side = int(np.ceil(np.sqrt(len(dual))))
    filled = tf.pad(kernel * dual[:, 0], [[0, 0], [0, side * side - len(dual)]])
    return tf.reduce_sum(tf.reduce_sum(tf.reshape(filled, (-1, side, side)), axis=2), axis=1, keepdims=True)


def _mixed(head: Kernel) -> Kernel:
    """The support vectors in an order in which every part of the sum holds each sign in proportion.

    scikit-learn orders them by class, so that thousands are added up before the first is subtracted, and float32 loses the difference.
    """
    pattern = np.unique(np.sign(head.dual), axis=0, return_inverse=True)[1].reshape(-1)
    rank = np.zeros(len(pattern))
    for one in np.unique(pattern):
        here = pattern == one
        rank[here] = (np.arange(here.sum()) + 0.5) / here.sum()
    order = np.argsort(rank, kind="stable")
    return replace(head, support=head.support[order], dual=head.dual[order])


def _voted(votes: Votes, decisions: Any) -> Any:
    """Margins of several classes; one matrix adds up votes, another the decisions for and against each class."""
    import tensorflow as tf

    classes = len(votes.slope)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    against = np.zeros((len(pairs), classes), np.float32)
    for p, (i, j) in enumerate(pairs):
        against[p, i], against[p, j] = 1, -1
    won = tf.cast(tf.greater_equal(decisions, 0.0), tf.float32)
    count = tf.matmul(won, np.maximum(against, 0)) + tf.matmul(1 - won, np.maximum(-against, 0))
    confidence = tf.matmul(decisions, against)
    worth = count + confidence / (3 * (tf.abs(confidence) + 1))
    return worth * _single(votes.slope) + _single(votes.intercept)


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
