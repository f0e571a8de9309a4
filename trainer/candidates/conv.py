"""A small convolutional network by Keras, for tensors of two dimensions.

The network scales its inputs itself, so that a device feeds raw rows; it has two named outputs, `margin` (logits) and `probabilities`.
Seeds are set, and one thread is used where the process has not started TensorFlow yet: two threads add in another order and give other
weights.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, ConfigError
from trainer.candidates.fitted import Fitted, Predict
from trainer.candidates.reproducible import canonical_keras

FILTERS: Final = (16, 32)
HIDDEN: Final = 48
BATCH_ROWS: Final = 32
# Steps, not epochs, are fixed: twice the rows do not take twice the time.
STEPS: Final = 900
MAX_EPOCHS: Final = 40
LEARNING_RATE: Final = 3e-3
MIN_SIDE: Final = 4
PREDICT_ROWS: Final = 512
_log = logging.getLogger(__name__)


def fit_conv(x: NDArray[np.float32], label: NDArray[np.int64], classes: int, shape: list[int], seed: int) -> Fitted:
    """Fit the network.

    Raises:
        ConfigError: The rows are no images, a value is missing, or there are only two classes.
    """
    if len(shape) != 2 or min(shape) < MIN_SIDE:
        raise ConfigError(f"candidate 'conv' needs images: schema.shape = {shape}, expected two sides of at least {MIN_SIDE}")
    if classes < 3:
        raise ConfigError(f"candidate 'conv' needs at least 3 classes, the rows have {classes}; use 'forest'")
    if np.isnan(x).any():
        raise ConfigError(f"candidate 'conv' cannot take missing values, {int(np.isnan(x).any(axis=1).sum())} rows have some; use 'forest'")
    keras = import_keras()
    keras.backend.clear_session()  # layer names start at zero again: equal training gives equal files
    keras.utils.set_random_seed(seed)
    low, high = float(x.min()), float(x.max())
    trained, shipped = _network(keras, shape, classes, scale=2 / max(high - low, 1e-6), middle=(low + high) / 2)
    steps_per_epoch = -(-len(x) // BATCH_ROWS)
    epochs = min(MAX_EPOCHS, max(2, round(STEPS / steps_per_epoch)))
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * steps_per_epoch))
    trained.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    trained.fit(x, label, batch_size=BATCH_ROWS, epochs=epochs, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        with _numpy_two_warnings_off():
            shipped.save(path)
        content = canonical_keras(path.read_bytes())
        path.write_bytes(content)
        predict = open_conv(path)
    return Fitted(
        name="conv",
        family="keras",
        margin_kind="logit",
        model="model.keras",
        content=content,
        predict=predict,
        parameters={
            "filters": list(FILTERS),
            "hidden": HIDDEN,
            "epochs": epochs,
            "batch_rows": BATCH_ROWS,
            "learning_rate": LEARNING_RATE,
            "weights": int(shipped.count_params()),
        },
        versions={"keras": keras.__version__, "tensorflow": _tensorflow_version()},
    )


def open_conv(path: Path) -> Predict:
    """The model of a .keras file as a function.

    Raises:
        ArtifactError: Damaged, or without an output named `probabilities`.
    """
    keras = import_keras()
    try:
        # safe_mode is Keras' default: a file that carries code is refused.
        with _numpy_two_warnings_off():
            model: Any = keras.saving.load_model(path, compile=False)
    except Exception as err:  # Keras, h5py and zipfile raise a dozen kinds on damaged input
        raise ArtifactError(f"{path.name}: no readable Keras model: {str(err)[:200]}; train again") from err
    if "probabilities" not in (model.output_names or []):
        raise ArtifactError(f"{path.name}: outputs {model.output_names}, expected margin and probabilities; train again")

    def predict(x: NDArray[np.float32]) -> NDArray[np.float64]:
        # Called directly: `model.predict` compiles a graph again for each new shape of the last batch, and says so loudly.
        batches = [model(x[at : at + PREDICT_ROWS], training=False)["probabilities"].numpy() for at in range(0, len(x), PREDICT_ROWS)]
        return np.concatenate(batches).astype(np.float64)

    return predict


def import_keras() -> Any:
    """Keras on TensorFlow, quiet. TensorFlow reads these variables once, when it is first imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow

    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        _log.debug("TensorFlow runs already, its number of threads stays as it is")
    return keras


@contextmanager
def _numpy_two_warnings_off() -> Iterator[None]:
    """TensorFlow's arrays do not know numpy 2's copy keyword yet; nothing of ours can change that, and the values are right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword", category=DeprecationWarning)
        yield


def _network(keras: Any, shape: list[int], classes: int, scale: float, middle: float) -> tuple[Any, Any]:
    """(model that ends in logits, for training; the same with both named outputs, for the file)."""
    layers = keras.layers
    inputs = keras.Input((shape[0] * shape[1],), name="inputs")
    image = layers.Reshape((*shape, 1), name="image")(inputs)
    hidden = layers.Rescaling(scale, -middle * scale, name="rescale")(image)
    hidden = layers.Conv2D(FILTERS[0], 3, padding="same", activation="relu", name="conv_1")(hidden)
    hidden = layers.Conv2D(FILTERS[1], 3, padding="same", activation="relu", name="conv_2")(hidden)
    hidden = layers.MaxPooling2D(name="pool")(hidden)
    hidden = layers.Flatten(name="flatten")(hidden)
    hidden = layers.Dense(HIDDEN, activation="relu", name="hidden")(hidden)
    margin = layers.Dense(classes, name="margin")(hidden)
    probabilities = layers.Softmax(name="probabilities")(margin)
    shipped = keras.Model(inputs, {"margin": margin, "probabilities": probabilities}, name="conv")
    return keras.Model(inputs, margin, name="conv_training"), shipped


def _tensorflow_version() -> str:
    import tensorflow

    return str(tensorflow.__version__)
