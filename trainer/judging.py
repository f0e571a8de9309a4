"""A fitted candidate on the validation rows: calibrated, given its decision threshold, evaluated, judged by its gates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.steps import Steps
from trainer.answers import STRANGE, Answers
from trainer.calibration import calibrate, fit_calibrator
from trainer.candidates.fitted import Fitted, Predict
from trainer.dataset import DataSet
from trainer.evaluate import evaluate
from trainer.gates import Gate, judge_candidate
from trainer.project import Project
from trainer.robustness import measure_robustness
from trainer.threshold import RESAMPLES, anomaly_threshold, binary_costs, choose_threshold

Cleaned = Callable[[str], NDArray[np.float32]]


@dataclass(frozen=True)
class Judged:
    """What was found on the validation rows; `decision` turns the model's raw predictions into answers."""

    answers: Answers
    evaluation: dict[str, Any]
    gates: list[Gate]
    decision: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Everything but the answers as plain values."""
        return {"evaluation": self.evaluation, "gates": msgspec.to_builtins(self.gates), "decision": self.decision}


def judge(
    project: Project, rows: DataSet, fitted: Fitted, steps: Steps, champion: Answers | None, cleaned: Cleaned, *, baseline: bool
) -> Judged:
    """Judge one candidate.

    Args:
        project: The settings.
        rows: All rows, raw.
        fitted: The model.
        steps: Its cleaning.
        champion: The champion's answers to the validation rows, or None.
        cleaned: The cleaned rows of a split.
        baseline: A baseline is measured, not judged: it has no gates.
    """
    validation = rows.of("validation")
    predictions = fitted.predict(cleaned("validation"))
    decision = decide(project, rows, fitted.predict, predictions, cleaned)
    answers = to_answers(project, rows.classes, predictions, decision)
    evaluation = evaluate(project, validation, answers)
    if baseline:
        return Judged(answers, evaluation, [], decision)

    def predict(raw: NDArray[np.float32]) -> Answers:
        return to_answers(project, rows.classes, fitted.predict(steps.run(raw)), decision)

    robustness = measure_robustness(project, validation, answers, predict)
    gates = judge_candidate(project, validation, answers, predict, champion, robustness=robustness)
    return Judged(answers, {**evaluation, "robustness": robustness}, gates, decision)


def decide(
    project: Project,
    rows: DataSet,
    predict: Predict,
    predictions: NDArray[np.float64],
    cleaned: Cleaned,
    *,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Calibrator and decision threshold, fitted on the validation rows (anomaly: on the normal training rows' scores).

    Args:
        project: The settings.
        rows: All rows, raw.
        predict: The model.
        predictions: Its predictions for the validation rows.
        cleaned: The cleaned rows of a split.
        resamples: For the threshold's interval; 0 measures none, as a search needs none.
    """
    decision: dict[str, Any] = {"threshold": None, "calibrator": None}
    validation = rows.of("validation")
    if project.task == "anomaly":
        training = rows.of("train")
        normal = cleaned("train")[training.label != STRANGE]
        decision["threshold"] = anomaly_threshold(predict(normal), project.goal.max_false_alarm_fraction)
        return decision
    if project.task != "classification":
        return decision
    if project.gates.calibrate != "none":
        decision["calibrator"] = fit_calibrator(project.gates.calibrate, validation.label, predictions)
        predictions = calibrate(decision["calibrator"], predictions)
    if len(rows.classes) == 2 and project.goal.costs:
        positive = positive_index(project, rows.classes)
        false_positive, false_negative = binary_costs(project.goal, rows.classes, positive)
        chosen = choose_threshold(
            validation.label == positive,
            predictions[:, positive],
            false_positive,
            false_negative,
            groups=validation.group,
            seed=project.search.seed,
            resamples=resamples,
        )
        decision |= {"threshold": chosen.threshold, "chosen": msgspec.to_builtins(chosen)}
    return decision


def to_answers(project: Project, classes: Sequence[str], predictions: NDArray[np.float64], decision: dict[str, Any]) -> Answers:
    """A model's predictions as answers, with the decision's calibrator and threshold."""
    threshold = decision.get("threshold")
    if project.task != "classification":
        return Answers(value=predictions, threshold=threshold, positive=STRANGE)
    if (calibrator := decision.get("calibrator")) is not None:
        predictions = calibrate(calibrator, predictions)
    return Answers(probabilities=predictions, threshold=threshold, positive=positive_index(project, classes))


def positive_index(project: Project, classes: Sequence[str]) -> int:
    """Index of the class that binary metrics speak of: the goal's, else the last."""
    name = project.goal.positive
    return list(classes).index(name) if name in classes else len(classes) - 1
