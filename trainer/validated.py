"""A candidate after validation, and how its answers are kept between steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefleet.manifest import Override
from edgefleet.package import npz_bytes, read_npz
from edgefleet.steps import Steps
from trainer.answers import Answers
from trainer.candidates.fitted import Fitted
from trainer.gates import Gate


@dataclass(frozen=True)
class Validated:
    """A candidate after validation.

    Attributes:
        name: Candidate name.
        steps: Its cleaning.
        fitted: The model.
        answers: On the validation rows.
        metric: The goal's metric there: {value, low, high, n}.
        evaluation: Everything measured there, plain values.
        gates: All gates, people's overrides applied.
        overrides: The overrides that were needed.
        blocking: Gates that forbid a package.
        trials: Of its search, plain values; empty when nothing was searched.
        decision: Plain values: threshold, calibrator, cost curve.
        seconds: Time to fit and validate; of the cached run when it was cached.
    """

    name: str
    steps: Steps
    fitted: Fitted
    answers: Answers
    metric: dict[str, Any]
    evaluation: dict[str, Any]
    gates: list[Gate]
    overrides: list[Override]
    blocking: list[Gate]
    trials: list[dict[str, Any]]
    decision: dict[str, Any]
    seconds: float


def answers_bytes(answers: Answers) -> bytes:
    """Answers as an .npz, for the step cache."""
    arrays = {"probabilities": answers.probabilities, "value": answers.value}
    threshold = np.array([] if answers.threshold is None else [answers.threshold], np.float64)
    there = {name: array for name, array in arrays.items() if array is not None}
    return npz_bytes({**there, "threshold": threshold, "positive": np.array([answers.positive])})


def read_answers(content: bytes) -> Answers:
    """What `answers_bytes` wrote."""
    arrays = read_npz(content, (), "answers")
    threshold = arrays["threshold"]
    return Answers(
        probabilities=arrays.get("probabilities"),
        value=arrays.get("value"),
        positive=int(arrays["positive"][0]),
        threshold=float(threshold[0]) if len(threshold) else None,
    )
