"""A package's Keras model as one function of raw rows with the outputs `margin` and `probabilities`; in the TensorFlow child only.

Read next: `meanings.py`, what its outputs mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.calibrators import calibrate, parse_calibrator
from converter.imported.signature import signature_of
from converter.originals import Original
from converter.to_tflite.graph import Answer
from converter.to_tflite.meanings import imported, own
from converter.to_tflite.probabilities import calibrated
from converter.to_tflite.steps import run_in_tensorflow
from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature
from edgefleet.steps import Steps

CALIBRATOR_NAME: Final = "calibrator.json"
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class Network:
    """The model of a package.

    Attributes:
        answer: Cleaned rows to `margin` and, for classifiers, `probabilities` as the model itself gives them.
        steps: Cleaning in front of it.
        classes: Number of classes; 0 for values and scores.
        calibrator: Document of calibrator.json, or None.
    """

    answer: Answer
    steps: Steps
    classes: int
    calibrator: dict[str, Any] | None

    def behind_steps(self, inputs: Any) -> dict[str, Any]:
        """Raw rows to the package's answers: what a graph holds."""
        return self.cleaned(run_in_tensorflow(self.steps, inputs))

    def cleaned(self, inputs: Any) -> dict[str, Any]:
        """Cleaned rows to the package's answers."""
        answers = self.answer(inputs)
        if self.calibrator is None:
            return answers
        parsed = parse_calibrator(self.calibrator, self.classes)
        return {**answers, "probabilities": calibrated(parsed, answers["margin"], answers["probabilities"])}

    def answers_width(self) -> dict[str, int]:
        """Columns of each answer."""
        return {name: int(values.shape[1]) for name, values in self.answer(np.zeros((1, *self.steps.output_shape), np.float32)).items()}

    def answers(self, x: NDArray[np.float32]) -> Original:
        """The original's answers to raw rows, computed by TensorFlow as trained; the calibrator in float64."""
        z = self.steps.run(x)
        parts = [self.answer(z[at : at + _ROWS_AT_ONCE]) for at in range(0, len(z), _ROWS_AT_ONCE)]
        margin = np.concatenate([part["margin"].numpy() for part in parts]).astype(np.float64)
        if self.classes == 0:
            return Original(np.empty((len(z), 0)), margin)
        shares = np.concatenate([part["probabilities"].numpy() for part in parts]).astype(np.float64)
        return Original(shares if self.calibrator is None else calibrate(self.calibrator, shares), margin)


def open_network(package: ModelPackage) -> Network:
    """Load a package's .keras file.

    Raises:
        ArtifactError: Damaged.
        VerdictError: It has inputs or outputs that cannot be what the package says.
    """
    import tensorflow as tf

    index = package.index
    check_archive(package.read(index.model), index.model, "Keras model")
    tf.keras.backend.clear_session()  # names of layers made here are numbered from one again: they go into the files
    try:
        model = tf.keras.models.load_model(str(package.folder / index.model), compile=False, safe_mode=True)
    except Exception as err:  # Keras, h5py and zipfile raise a dozen kinds on damaged input
        raise ArtifactError(f"{index.model}: no readable Keras model: {str(err)[:200]}; train again") from err
    steps, signature = package.steps(), signature_of(package)
    feed = _feed(model, steps.output_shape, signature)
    answer = own(model, index.task, feed) if signature is None else imported(model, signature, feed)
    _check_width(answer, steps.output_shape, index.task, len(index.classes))
    calibrator = msgspec.json.decode(package.read(CALIBRATOR_NAME)) if CALIBRATOR_NAME in index.files else None
    classes = len(index.classes) if index.task == "classification" else 0
    if calibrator is not None:
        parse_calibrator(calibrator, classes)
    return Network(answer, steps, classes, calibrator)


def _check_width(answer: Answer, shape: tuple[int, ...], task: str, classes: int) -> None:
    found = answer(np.zeros((1, *shape), np.float32))
    if task != "classification":
        if found["margin"].shape[1] != 1:
            raise VerdictError(f"the Keras model answers {found['margin'].shape[1]} numbers a row, a {task} has one")
    elif "probabilities" not in found or found["probabilities"].shape[1] != classes:
        raise VerdictError(f"the Keras model answers {found['margin'].shape[1]} columns, package.json names {classes} classes; train again")


def _feed(model: Any, shape: tuple[int, ...], signature: Signature | None) -> Callable[[Any], Any]:
    """Cleaned rows [n, *shape] to what the model is called with."""
    import tensorflow as tf

    inputs = model.inputs
    if len(inputs) == 1:
        sides = _sides(inputs[0], shape)
        same = tuple(sides) == tuple(shape)
        return lambda x: _typed(x if same else tf.reshape(x, (-1, *sides)), inputs[0])
    if signature is None or len(shape) != 1:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise VerdictError(f"the Keras model takes {shapes}, expected one input {[None, *shape]} in schema order; reshape inside the model")
    places = [_column(tensor.name, signature.columns) for tensor in inputs]
    return lambda x: [_typed(x[:, at : at + 1], tensor) for at, tensor in zip(places, inputs, strict=True)]


def _sides(tensor: Any, shape: tuple[int, ...]) -> list[int]:
    """Sides of one row inside the model's input; as many numbers as the cleaned row has."""
    values, sides = int(np.prod(shape)), list(tensor.shape)[1:]
    known, open_sides = int(np.prod([side for side in sides if side is not None])), sides.count(None)
    if open_sides > 1 or (open_sides == 0 and known != values) or (open_sides == 1 and values % max(known, 1)):
        raise VerdictError(
            f"the Keras model takes {[tuple(tensor.shape)]}, expected one input {[None, *shape]} in schema order; reshape inside the model"
        )
    return [values // known if side is None else side for side in sides]


def _typed(x: Any, tensor: Any) -> Any:
    import tensorflow as tf

    x = tf.convert_to_tensor(x)  # Keras refuses arrays and tensors side by side
    kind = tf.as_dtype(tensor.dtype)
    if kind == tf.float32:
        return x
    if kind.is_floating:
        return tf.cast(x, kind)
    if not kind.is_integer:
        raise VerdictError(f"input {tensor.name!r} of the Keras model takes {kind.name}, devices give numbers; encode it in front")
    return tf.cast(tf.round(tf.where(tf.not_equal(x, x), tf.zeros_like(x), x)), kind)


def _column(name: str, columns: list[str]) -> int:
    for at, column in enumerate(columns):
        if column == name or "".join(c if c.isalnum() else "_" for c in column) == name:
            return at
    raise VerdictError(f"the Keras model's input {name!r} is no column of the data; rename the column")
