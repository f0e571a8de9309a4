"""Which output of a foreign model answers the question, and what its numbers mean."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.manifest import Task
from edgefleet.signature import Meaning, Signature
from trainer.importers.signature import Description

SUM_TOLERANCE: Final = 0.02  # rows of int8 softmax outputs sum to 1 within a few steps of 1/256
_CALIBRATED: Final = "wrap it in sklearn.calibration.CalibratedClassifierCV, or export it with its probabilities"


@dataclass(frozen=True)
class Chosen:
    """The chosen output; see `Signature`."""

    output: str
    meaning: Meaning
    columns: int
    sign: float = 1.0


def choose_output(description: Description, outputs: dict[str, NDArray[Any]], task: Task, row_values: int) -> Chosen:
    """Choose by what the outputs of a few rows look like.

    Args:
        description: What the file says of itself.
        outputs: Its outputs to the data sample, by name.
        task: The goal's task.
        row_values: Numbers in one raw row.

    Raises:
        InputError: No output fits the task, or several do.
    """
    flat = {
        name: array.reshape(len(array), -1) for name, array in outputs.items() if np.isfinite(array).all() and _is_real(name, description)
    }
    if not flat:
        raise InputError(
            "no output of the model is a finite number on every row of the data; are these the columns that it was trained on?"
        )
    if task == "classification":
        return _classification(description, flat)
    if task == "regression":
        return _value(description, flat)
    return _anomaly(description, flat, row_values)


def _is_real(name: str, description: Description) -> bool:
    """Whether an output may be anything else than labels."""
    tensor = next((tensor for tensor in description.outputs if tensor.name == name), None)
    return tensor is None or tensor.scale > 0 or tensor.dtype.startswith(("float", "bfloat", "maps"))


def _classification(description: Description, flat: dict[str, NDArray[Any]]) -> Chosen:
    if description.family not in {"onnx", "tflite", "keras"}:
        if "predict_proba" not in flat:
            raise InputError(f"the model answers labels only, no probabilities, so most gates could not judge it; {_CALIBRATED}")
        return Chosen("predict_proba", "probabilities", flat["predict_proba"].shape[1])
    wide = {name: array for name, array in flat.items() if array.shape[1] >= 2}
    shares = [name for name, array in wide.items() if array.min() >= -1e-6 and np.abs(array.sum(axis=1) - 1).max() <= SUM_TOLERANCE]
    if shares:
        name = next((name for name in shares if "prob" in name.lower()), shares[0])
        return Chosen(name, "probabilities", wide[name].shape[1])
    if len(wide) == 1:
        name = next(iter(wide))
        return Chosen(name, "logits", wide[name].shape[1])
    narrow = {name: array for name, array in flat.items() if array.shape[1] == 1}
    if not wide and len(narrow) == 1:
        name, array = next(iter(narrow.items()))
        if np.isin(array, (0.0, 1.0)).all():
            raise InputError(f"output {name!r} holds nothing but 0 and 1: labels, no probabilities; {_CALIBRATED}")
        return Chosen(name, "sigmoid" if array.min() >= 0 and array.max() <= 1 else "logit", 2)
    raise InputError(f"outputs {', '.join(flat)}: none is a probability of each class; {_CALIBRATED}")


def _value(description: Description, flat: dict[str, NDArray[Any]]) -> Chosen:
    if description.family not in {"onnx", "tflite", "keras"}:
        flat = {name: array for name, array in flat.items() if name == "predict"}
    single = [name for name, array in flat.items() if array.shape[1] == 1]
    if len(single) != 1:
        raise InputError(f"outputs {', '.join(flat) or 'none'}: exactly one must be a single number a row for a regression")
    return Chosen(single[0], "value", 1)


def _anomaly(description: Description, flat: dict[str, NDArray[Any]], row_values: int) -> Chosen:
    for name in ("score_samples", "decision_function"):  # scikit-learn: larger is more ordinary
        if name in flat:
            return Chosen(name, "score", 1, -1.0)
    single = [name for name, array in flat.items() if array.shape[1] == 1]
    if len(single) == 1:
        # scikit-learn's converter writes a label beside the scores, which are larger for ordinary rows.
        of_sklearn = single[0] == "scores" and any(tensor.name == "label" for tensor in description.outputs)
        return Chosen(single[0], "score", 1, -1.0 if of_sklearn else 1.0)
    same = [name for name, array in flat.items() if array.shape[1] == row_values]
    if len(same) == 1:
        return Chosen(same[0], "reconstruction", row_values)
    raise InputError(f"outputs {', '.join(flat)}: for an anomaly task one must be a single score a row or a reconstruction of the input")


def meant(output: NDArray[Any], signature: Signature, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The chosen output of rows x as what the trainer reads: probabilities [n, classes], or [n] values or scores."""
    flat = output.reshape(len(output), -1).astype(np.float64)
    if signature.meaning == "probabilities" and signature.kind == "skops":
        return flat  # scikit-learn's own sum to 1, and dividing once more would change their last bits
    if signature.meaning == "probabilities":
        clipped = np.maximum(flat, 0)
        return np.asarray(clipped / np.maximum(clipped.sum(axis=1, keepdims=True), 1e-12), np.float64)
    if signature.meaning == "logits":
        powers: NDArray[np.float64] = np.exp(flat - flat.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
    if signature.meaning in {"sigmoid", "logit"}:
        second: NDArray[np.float64] = flat[:, 0] if signature.meaning == "sigmoid" else np.exp(-np.logaddexp(0, -flat[:, 0]))
        return np.column_stack([1 - second, second])
    if signature.meaning == "reconstruction":
        return np.asarray(np.square(flat - x.reshape(len(x), -1)).mean(axis=1), np.float64)
    return np.asarray(signature.sign * flat[:, 0])
