"""What a candidate is asked and what it hands back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Task

# z [n, ...] float32 to probabilities [n, classes] (classification), value [n] (regression) or score [n], larger = stranger (anomaly).
Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]
# (step, loss so far on the validation rows, smaller is better) -> whether to go on; a search prunes with it. The loss is the log loss of
# classes or the mean squared error of values or reconstructions: comparable between fits of one candidate at one step.
Progress = Callable[[int, float], bool]


@dataclass(frozen=True)
class Problem:
    """What a candidate shall learn.

    Attributes:
        task: Kind of prediction.
        classes: Number of classes; 0 for regression and anomaly.
        shape: Shape of one cleaned row as networks see it: (features,), (height, width) of an image, (rows, features) of a window.
        seed: Seed of everything random in the fit.
        jobs: Threads or processes a fit may use; the model's bytes do not depend on it. Histogram boosting of many values uses every core.
    """

    task: Task
    classes: int
    shape: tuple[int, ...]
    seed: int
    jobs: int = 1


@dataclass(frozen=True)
class Fitted:
    """A fitted model and its file.

    Attributes:
        name: Candidate name.
        family: What the model is, for the converter: `forest`, `boosting`, `hist_boosting`, `tree`, `linear`, `svm`, `mlp`,
            `isolation_forest`, `mahalanobis`, `constant` or `keras`.
        margin_kind: What the margin of its graph is.
        model: File name in the package.
        content: Bytes of that file; equal training gives equal bytes.
        predict: The file's own model as a function: what is judged is what is shipped.
        parameters: Settings and sizes, for the record.
        versions: Libraries that made it.
        curve: Training curve, one entry an epoch or round: {"step": 1, "loss": .., "validation": ..}; empty where there is none.
        importance: [features] float64 share of each cleaned column, or None where the model has none of its own.
        size_bytes: Estimate of the exported float32 model's size, before quantization; see `costs.py`.
        latency_us: Estimate of one answer's time on a small device, for comparing candidates, not for budgets; see `costs.py`.
    """

    name: str
    family: str
    margin_kind: str
    model: str
    content: bytes
    predict: Predict
    parameters: dict[str, Any]
    versions: dict[str, str]
    curve: list[dict[str, float]] = field(default_factory=list)
    importance: NDArray[np.float64] | None = None
    size_bytes: int = 0
    latency_us: float = 0.0
