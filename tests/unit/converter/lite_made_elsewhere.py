"""Small TFLite files as strangers export them, made in a child: `python -m tests.unit.converter.lite_made_elsewhere FOLDER NAME ...`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEATURES = 6


def rows(count: int = 900, features: int = FEATURES) -> NDArray[np.float32]:
    """Clusters, one a class, so that a trained network is sure of most of them."""
    rng = np.random.default_rng(5)
    return (rng.normal(size=(3, features))[np.arange(count) % 3] * 3 + rng.normal(0, 0.4, (count, features))).astype(np.float32)


def main(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / f"{name}.tflite").write_bytes(_MADE[name]())


def _trained() -> Any:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    layers, x = tf.keras.layers, rows()
    network = tf.keras.Sequential(
        [layers.Input((FEATURES,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(3, "softmax")]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(x, np.arange(len(x)) % 3, epochs=5, verbose=0)
    return network


def _layers(*shape: int, batch: int | None = None, **sizes: Any) -> bytes:
    """A network of the named layers: `dense1=(8, "tanh")`."""
    import tensorflow as tf

    kinds = {
        "dense": tf.keras.layers.Dense,
        "conv": tf.keras.layers.Conv1D,
        "flatten": tf.keras.layers.Flatten,
        "lstm": tf.keras.layers.LSTM,
        "shape": tf.keras.layers.Reshape,
    }
    stack = [kinds[name.rstrip("0123456789")](*arguments) for name, arguments in sizes.items()]
    return _plain(tf.keras.Sequential([tf.keras.layers.Input(shape, batch_size=batch), *stack]))


def _weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(FEATURES, 3)).astype(np.float32)


def _plain(network: Any) -> bytes:
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())


def _optimized(network: Any, kind: str = "") -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind:
        converter.target_spec.supported_types = [tf.as_dtype(kind)]
    return bytes(converter.convert())


def _integer(network: Any, kind: str) -> bytes:
    import tensorflow as tf

    x = rows()
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in x[:200])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.as_dtype(kind)
    return bytes(converter.convert())


def _function(kind: str, function: Callable[..., Any], *shapes: list[int]) -> bytes:
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, tf.as_dtype(kind)) for shape in shapes]
    concrete = tf.function(lambda *a: function(tf, *a), input_signature=specs).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


_MADE: Final[dict[str, Callable[[], bytes]]] = {
    "softmax": lambda: _plain(_trained()),
    "fp16": lambda: _optimized(_trained(), "float16"),
    "dynamic": lambda: _optimized(_trained()),
    "int8-ends": lambda: _integer(_trained(), "int8"),
    "uint8-ends": lambda: _integer(_trained(), "uint8"),
    "float-ends": lambda: _integer(_trained(), "float32"),
    "sigmoid": lambda: _layers(FEATURES, dense=(1, "sigmoid")),
    "logits": lambda: _layers(FEATURES, dense=(3,)),
    "value": lambda: _layers(FEATURES, dense1=(8, "tanh"), dense2=(1,)),
    "autoencoder": lambda: _layers(FEATURES, dense1=(2, "relu"), dense2=(FEATURES,)),
    "window": lambda: _layers(4, FEATURES, conv=(8, 2), flatten=(), dense=(3, "softmax")),
    "window-autoencoder": lambda: _layers(4, FEATURES, flatten=(), dense1=(3, "relu"), dense2=(4 * FEATURES,), shape=((4, FEATURES),)),
    "recurrent": lambda: _layers(4, FEATURES, batch=1, lstm=(4,), dense=(3,)),
    "one-row": lambda: _function("float32", lambda tf, x: tf.matmul(tf.reshape(x, (1, FEATURES)), _weights()), [1, 2, 3, 1]),
    "whole-numbers": lambda: _function("int32", lambda tf, x: tf.cast(x, tf.float32), [1, FEATURES]),
    "no-weights": lambda: _function("float32", lambda tf, x: tf.reduce_sum(tf.tanh(x), axis=1, keepdims=True), [1, FEATURES]),
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
