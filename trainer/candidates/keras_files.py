"""Keras on TensorFlow, quiet and repeatable; its files as functions."""

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

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, MissingPartError
from edgefleet.quiet import quiet_load
from trainer.candidates.fitted import Predict, Problem
from trainer.candidates.reproducible import canonical_keras

MODEL_NAME: Final = "model.keras"
PREDICT_ROWS: Final = 512
# What the graph's answer is called, by task.
OUTPUTS: Final = {"classification": "probabilities", "regression": "value", "anomaly": "score"}
_log = logging.getLogger(__name__)


def import_keras() -> Any:
    """Keras on TensorFlow with one thread: two add in another order and give other weights.

    Raises:
        MissingPartError: It is not installed.
    """
    # TensorFlow reads these variables once, when it is first imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        with quiet_load():
            import keras
            import tensorflow
    except ImportError as err:
        raise MissingPartError('networks need TensorFlow: pip install "edgefleet[keras]"') from err
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        _log.debug("TensorFlow runs already, its number of threads stays as it is")
    return keras


def save_keras(model: Any) -> bytes:
    """Bytes of the .keras file; equal models give equal bytes."""
    with tempfile.TemporaryDirectory() as folder, _numpy_two_warnings_off():
        path = Path(folder) / MODEL_NAME
        model.save(path)
        return canonical_keras(path.read_bytes())


def open_keras(content: bytes, problem: Problem) -> Predict:
    """The model of a .keras file as a function; rows may be flat or in the network's own shape.

    Raises:
        ArtifactError: Damaged, or without the output that the task needs.
    """
    keras, output = import_keras(), OUTPUTS[problem.task]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_NAME
        check_archive(content, MODEL_NAME, "Keras model")
        path.write_bytes(content)
        try:
            # safe_mode is Keras' default: a file that carries code is refused.
            with _numpy_two_warnings_off():
                model: Any = keras.saving.load_model(path, compile=False)
        except Exception as err:  # Keras, h5py and zipfile raise a dozen kinds on damaged input
            raise ArtifactError(f"{MODEL_NAME}: no readable Keras model: {str(err)[:200]}; train again") from err
    if output not in (getattr(model, "output_names", None) or []):
        raise ArtifactError(f"{MODEL_NAME}: outputs {getattr(model, 'output_names', None)}, expected one named {output!r}; train again")
    width = model.outputs[model.output_names.index(output)].shape[-1]
    if problem.task == "classification" and width != problem.classes:
        raise ArtifactError(f"{MODEL_NAME} answers {width} classes, expected {problem.classes}; train again")
    shape = model.input_shape[1:]

    def predict(z: NDArray[np.float32]) -> NDArray[np.float64]:
        rows = z.reshape(len(z), *shape)
        # Called directly: `model.predict` compiles a graph again for each new shape of the last batch, and says so loudly.
        batches = [model(rows[at : at + PREDICT_ROWS], training=False)[output].numpy() for at in range(0, len(rows), PREDICT_ROWS)]
        answers = np.concatenate(batches).astype(np.float64) if batches else np.empty((0, width))
        return answers if problem.task == "classification" else answers.reshape(-1)

    return predict


@contextmanager
def _numpy_two_warnings_off() -> Iterator[None]:
    """TensorFlow's arrays do not know numpy 2's copy keyword yet; nothing of ours can change that, and the values are right."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword", category=DeprecationWarning)
        yield
