"""From margins to probabilities, and the package's calibrator, as TensorFlow operators; see `converter.calibrators` for the maths."""

from typing import Any

import numpy as np

from converter.calibrators import LEAST_SHARE, LIMIT, Calibrator, Curve, Odds, Powers
from converter.cores import Link


def linked(margin: Any, link: Link) -> Any:
    """Probabilities [n, classes] of margins [n, K]; every link but `none`."""
    import tensorflow as tf

    if link == "logistic":
        return pair(margin)
    if link == "softmax":
        return tf.nn.softmax(margin)
    if link == "ovr":
        each = tf.sigmoid(margin)
        return each / tf.reduce_sum(each, axis=1, keepdims=True)
    return tf.identity(margin)


def pair(logit: Any) -> Any:
    """[n, 2] probabilities of the logit [n, 1] of the second class; both are exact in the tails, 1 - p would not be."""
    import tensorflow as tf

    return tf.concat([tf.sigmoid(-logit), tf.sigmoid(logit)], axis=1)


def calibrated(calibrator: Calibrator, margin: Any, probabilities: Any) -> Any:
    """Calibrated probabilities [n, classes].

    Args:
        calibrator: The package's.
        margin: [n, K]; K = 1 means a logit of the second class.
        probabilities: [n, classes] as the model gives them.
    """
    import tensorflow as tf

    if isinstance(calibrator, Powers):
        return tf.nn.softmax(calibrator.slope * tf.math.log(tf.maximum(probabilities, LEAST_SHARE)))
    if isinstance(calibrator, Odds):
        if margin.shape[1] == 1:
            odds = tf.minimum(tf.maximum(margin, -LIMIT), LIMIT)
        else:
            logs = tf.math.log(tf.maximum(probabilities, LEAST_SHARE))
            odds = logs[:, 1:2] - logs[:, 0:1]
        return pair(calibrator.slope * odds + calibrator.intercept)
    if len(calibrator.curves) == 1:
        second = _along(calibrator.curves[0], probabilities[:, 1:2])
        return tf.concat([1 - second, second], axis=1)
    found = tf.concat([_along(curve, probabilities[:, k : k + 1]) for k, curve in enumerate(calibrator.curves)], axis=1)
    total = tf.reduce_sum(found, axis=1, keepdims=True)
    some = tf.greater(total, 0.0)
    return tf.where(some, found / tf.where(some, total, tf.ones_like(total)), probabilities)


def _along(curve: Curve, shares: Any) -> Any:
    """[n, 1] answers of one curve to shares [n, 1]."""
    import tensorflow as tf

    if len(curve.rise) == 0:
        return tf.zeros_like(shares) + np.float32(curve.start)
    part = (shares - curve.low.astype(np.float32)) * curve.inverse_width.astype(np.float32)
    reached = tf.minimum(tf.maximum(part, 0.0), 1.0) * curve.rise.astype(np.float32)
    return tf.reduce_sum(reached, axis=1, keepdims=True) + np.float32(curve.start)
