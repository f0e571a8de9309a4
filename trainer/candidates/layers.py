"""The layers of each network. Inputs are raw: the network scales them itself, so that a device feeds it unchanged rows.

Outputs have names: `margin` [n, K] and `probabilities` [n, classes] (classification; K = 1 for two classes), `value` [n, 1] (regression),
`score` [n, 1] (anomaly).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.candidates.fitted import Problem


@dataclass(frozen=True)
class Network:
    """A network, twice over the same weights.

    Attributes:
        training: Ends in what the loss is computed of: logits, or the standardised target, or the scaled inputs repeated.
        shipped: Ends in the named outputs.
        scaled_inputs: Rows to scaled inputs, for the loss of an autoencoder; None for others.
    """

    training: Any
    shipped: Any
    scaled_inputs: Any = None


def build_network(
    name: str, keras: Any, settings: dict[str, Any], problem: Problem, z: NDArray[np.float32], label: NDArray[Any]
) -> Network:
    """An untrained network for rows like `z`."""
    layers, shape = keras.layers, problem.shape
    inputs = keras.Input(z.shape[1:], name="inputs")
    if name == "autoencoder":
        return _autoencoder(keras, settings, inputs, z)
    hidden = _BODIES[name](layers, settings, shape, inputs, z)
    if problem.task == "regression":
        standard = layers.Dense(1, name="standard")(hidden)
        middle, spread = float(label.mean()), float(label.std()) or 1.0
        value = layers.Rescaling(spread, middle, name="value")(standard)
        return Network(keras.Model(inputs, standard, name=f"{name}_training"), keras.Model(inputs, {"value": value}, name=name))
    binary = problem.classes == 2
    margin = layers.Dense(1 if binary else problem.classes, name="margin")(hidden)
    # Two classes have one margin m, the logit of the second; softmax of [0, m] is [1 - sigmoid(m), sigmoid(m)].
    logits = _fixed(keras, 2, np.array([[0.0, 1.0]]), "pair")(margin) if binary else margin
    probabilities = layers.Softmax(name="probabilities")(logits)
    shipped = keras.Model(inputs, {"margin": margin, "probabilities": probabilities}, name=name)
    return Network(keras.Model(inputs, logits, name=f"{name}_training"), shipped)


def _scaled(layers: Any, inputs: Any, z: NDArray[np.float32]) -> Any:
    """Standardised inputs, per column; a constant one keeps its unit."""
    flat = z.reshape(-1, z.shape[-1])
    mean, variance = flat.mean(axis=0, dtype=np.float64), flat.var(axis=0, dtype=np.float64)
    variance = np.where(variance > 1e-12 * np.maximum(mean**2, 1e-300), variance, 1.0)
    return layers.Normalization(axis=-1, mean=mean.tolist(), variance=variance.tolist(), name="scale")(inputs)


def _as_window(layers: Any, inputs: Any, shape: tuple[int, ...], z: NDArray[np.float32]) -> tuple[Any, NDArray[np.float32]]:
    return (inputs, z) if z.ndim == 3 else (layers.Reshape(shape, name="window")(inputs), z.reshape(len(z), *shape))


def _dense(layers: Any, settings: dict[str, Any], shape: tuple[int, ...], inputs: Any, z: NDArray[np.float32]) -> Any:
    hidden = _scaled(layers, inputs, z)
    hidden = layers.Flatten(name="flatten")(hidden) if z.ndim > 2 else hidden
    for number in range(1, settings["layers"] + 1):
        hidden = layers.Dense(settings["hidden"], activation="relu", name=f"hidden_{number}")(hidden)
        hidden = _dropout(layers, settings, hidden, number)
    return hidden


def _conv(layers: Any, settings: dict[str, Any], shape: tuple[int, ...], inputs: Any, z: NDArray[np.float32]) -> Any:
    # One scale for the whole image: a pixel at the border that is always dark must not be blown up.
    low, high = float(z.min()), float(z.max())
    scale, middle = 2 / max(high - low, 1e-6), (low + high) / 2
    hidden = layers.Reshape((*shape, 1), name="image")(inputs)
    hidden = layers.Rescaling(scale, -middle * scale, name="rescale")(hidden)
    hidden = layers.Conv2D(settings["filters"], 3, padding="same", activation="relu", name="conv_1")(hidden)
    hidden = layers.Conv2D(2 * settings["filters"], 3, padding="same", activation="relu", name="conv_2")(hidden)
    hidden = layers.MaxPooling2D(name="pool")(hidden)
    hidden = layers.Flatten(name="flatten")(hidden)
    return layers.Dense(settings["hidden"], activation="relu", name="hidden")(hidden)


def _conv1d(layers: Any, settings: dict[str, Any], shape: tuple[int, ...], inputs: Any, z: NDArray[np.float32]) -> Any:
    window, rows = _as_window(layers, inputs, shape, z)
    hidden = _scaled(layers, window, rows)
    for number in range(1, settings["layers"] + 1):
        hidden = layers.Conv1D(settings["filters"], settings["kernel"], padding="same", activation="relu", name=f"conv_{number}")(hidden)
        if hidden.shape[1] >= 4:
            hidden = layers.MaxPooling1D(name=f"pool_{number}")(hidden)
    hidden = layers.Flatten(name="flatten")(hidden)
    return layers.Dense(settings["hidden"], activation="relu", name="hidden")(hidden)


def _recurrent(kind: str) -> Any:
    def body(layers: Any, settings: dict[str, Any], shape: tuple[int, ...], inputs: Any, z: NDArray[np.float32]) -> Any:
        window, rows = _as_window(layers, inputs, shape, z)
        hidden = getattr(layers, kind)(settings["units"], name=kind.lower())(_scaled(layers, window, rows))
        return _dropout(layers, settings, hidden, 1)

    return body


def _dropout(layers: Any, settings: dict[str, Any], hidden: Any, number: int) -> Any:
    return layers.Dropout(settings["dropout"], name=f"dropout_{number}")(hidden) if settings["dropout"] > 0 else hidden


def _autoencoder(keras: Any, settings: dict[str, Any], inputs: Any, z: NDArray[np.float32]) -> Network:
    layers, features = keras.layers, int(z[0].size)
    scaled = _scaled(layers, inputs, z)
    flat = layers.Flatten(name="flatten")(scaled) if z.ndim > 2 else scaled
    hidden = layers.Dense(settings["hidden"], activation="relu", name="encoder")(flat)
    code = layers.Dense(max(1, round(settings["code_fraction"] * features)), name="code")(hidden)
    hidden = layers.Dense(settings["hidden"], activation="relu", name="decoder")(code)
    repeated = layers.Dense(features, name="repeated")(hidden)
    error = layers.Subtract(name="error")([flat, repeated])
    squared = layers.Multiply(name="squared")([error, error])
    # The mean as a layer with fixed weights: every runtime knows it, and it is one number a row.
    score = _fixed(keras, 1, np.full((features, 1), 1 / features), "score")(squared)
    shipped = keras.Model(inputs, {"score": score}, name="autoencoder")
    return Network(keras.Model(inputs, repeated, name="autoencoder_training"), shipped, keras.Model(inputs, flat, name="scaled"))


def _fixed(keras: Any, units: int, kernel: NDArray[np.float64], name: str) -> Any:
    """A dense layer without bias whose weights no training changes."""
    layer = keras.layers.Dense(units, use_bias=False, name=name, trainable=False)
    layer.build((None, len(kernel)))
    layer.set_weights([kernel.astype(np.float32)])
    return layer


_BODIES: Final = {"dense": _dense, "conv": _conv, "conv1d": _conv1d, "lstm": _recurrent("LSTM"), "gru": _recurrent("GRU")}
