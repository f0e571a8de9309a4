"""Cleaning steps inside a tf.function, so that one TFLite file holds them and the model. Runs in the TensorFlow child only."""

from typing import Any

from edgefleet.steps import Op, Steps


def run_in_tensorflow(steps: Steps, x: Any) -> Any:
    """Clean a tensor.

    Args:
        steps: What to apply.
        x: [n, *steps.input_shape] float32 tensor; n may be unknown.

    Returns:
        [n, *steps.output_shape] float32 tensor, made of built-in TFLite operators that are exact in every kernel.
    """
    import tensorflow as tf

    results: list[Any] = [x]
    for op in steps.ops[1:]:
        results.append(tf.constant(op.values) if op.kind == "const" else _one(tf, op, [results[i] for i in op.args]))
    return results[-1]


def _one(tf: Any, op: Op, a: list[Any]) -> Any:
    elementwise = {"add": tf.add, "sub": tf.subtract, "mul": tf.multiply, "eq": tf.equal, "lt": tf.less, "where": tf.where}
    if op.kind in elementwise:
        return elementwise[op.kind](*a)
    if op.kind == "isnan":
        return tf.not_equal(a[0], a[0])  # TFLite has no IsNaN; the converter keeps this comparison
    if op.kind == "f32":
        return tf.cast(a[0], tf.float32)
    if op.kind == "count_le":
        return tf.reduce_sum(tf.cast(tf.less_equal(tf.constant(op.values), a[0][..., None]), tf.float32), -1)
    if op.kind == "lookup":
        return tf.gather(tf.constant(op.values), tf.cast(a[0], tf.int32))
    if op.kind == "take":
        return tf.gather(a[0], list(op.numbers), axis=-1)
    if op.kind == "rows":
        return a[0][:, op.numbers[0] : op.numbers[1]]
    if op.kind == "reshape":
        return tf.reshape(a[0], (-1, *op.numbers))
    return tf.concat(a, 1 if op.kind == "stack" else -1)
