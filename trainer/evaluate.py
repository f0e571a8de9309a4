"""Everything measured of one model on one set of rows, as plain values for the package, the record and the report."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.bootstrap import Interval, metric_intervals
from trainer.calibration import calibration
from trainer.criteria import MIN_ROWS, Criteria, finite
from trainer.dataset import DataSet
from trainer.metrics import metrics_for
from trainer.slices import declared_slices, row_losses, slice_verdicts, worst_slices

RESIDUALS: Final = 500
ERRORS: Final = 12
_INPUTS: Final = 30  # shown of each error


def evaluate(project: Criteria, rows: DataSet, answers: Answers) -> dict[str, Any]:
    """Measure a model on rows it has not learnt from.

    Args:
        project: Goal, limits and inputs.
        rows: Rows of one split.
        answers: The model's to them.

    Returns:
        metrics: {name: {value, low, high, n, method, reason}} of every metric that fits the task, 95 % intervals; `value` is None where it
            is not defined, ends are None where nothing bounds them.
        slices: [{column, name, n, value, low, high, verdict}]: declared ones, then the worst ones found (with `p`).
        calibration: See `trainer.calibration.calibration`; {} without probabilities.
        confusion: {classes, counts[true][answered]}; {} for numbers.
        residuals: {predicted, actual}, at most 500 rows, evenly taken; {} for classes.
        errors: The twelve worst rows, worst first: [{row_id, label, answer, score, inputs}].

    Raises:
        InputError: No rows, or answers that are not finite numbers.
    """
    goal, seed = project.goal, project.search.seed
    intervals = metric_intervals(metrics_for(goal.task, answers), rows.label, answers, rows.group, goal, seed, rows.classes)
    decides = goal.task == "classification" or (goal.task == "anomaly" and answers.threshold is not None)
    is_number = goal.task in ("regression", "rul")
    return {
        "metrics": {name: _plain(interval) for name, interval in intervals.items()},
        "slices": _slices(project, rows, answers) if decides or is_number else [],
        "calibration": calibration(rows.label, answers, rows.group) if answers.probabilities is not None else {},
        "confusion": _confusion(rows, answers) if decides else {},
        "residuals": _residuals(rows, answers) if is_number else {},
        "errors": _errors(rows, answers, project.inputs, is_number=is_number),
    }


def _plain(interval: Interval) -> dict[str, Any]:
    return {
        "value": finite(interval.value),
        "low": finite(interval.low),
        "high": finite(interval.high),
        "n": interval.n,
        "method": interval.method,
        "reason": interval.reason,
    }


def _slices(project: Criteria, rows: DataSet, answers: Answers) -> list[dict[str, Any]]:
    is_share = row_losses(rows.label, answers)[1]
    limit = project.gates.slice_minimum if is_share else project.gates.slice_maximum
    declared = declared_slices(rows, answers, limit, project.search.seed)
    if limit is None:
        verdicts = ["" if one.n >= MIN_ROWS else f"under {MIN_ROWS} rows" for one in declared]
    else:
        verdicts = slice_verdicts(declared, limit, is_share=is_share)
    shown = [
        {"column": one.column, "name": one.name, "n": one.n, "value": one.value, "low": finite(one.low), "high": finite(one.high),
         "verdict": verdict}
        for one, verdict in zip(declared, verdicts, strict=True)
    ]  # fmt: skip
    return shown + worst_slices(rows, answers, project.inputs)


def _confusion(rows: DataSet, answers: Answers) -> dict[str, Any]:
    classes = len(rows.classes)
    pairs = rows.label * classes + answers.answers().astype(np.int64)
    return {"classes": list(rows.classes), "counts": np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).tolist()}


def _residuals(rows: DataSet, answers: Answers) -> dict[str, Any]:
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), RESIDUALS)).round().astype(int))
    return {"predicted": answers.answers()[some].tolist(), "actual": rows.label[some].tolist()}


def _errors(rows: DataSet, answers: Answers, inputs: Sequence[Input], *, is_number: bool) -> list[dict[str, Any]]:
    """Classes: least probability for the truth among wrong answers. Anomalies: the most misplaced rank. Numbers: the largest error."""
    decided = answers.answers()
    if is_number:
        badness, wrong = np.abs(decided - rows.label), decided != rows.label
        score: NDArray[np.float64] = np.abs(decided - rows.label)
    elif answers.probabilities is not None:
        every = np.arange(len(rows))
        badness, wrong = 1 - answers.probabilities[every, rows.label], decided != rows.label
        score = answers.probabilities[every, decided]
    else:
        place = answers.score.argsort().argsort() / max(1, len(rows) - 1)
        badness = np.where(rows.label == 1, 1 - place, place)
        wrong = decided != rows.label if answers.threshold is not None else badness > 0.5
        score = answers.score
    order = np.argsort(-np.where(wrong, badness, -1.0), kind="stable")[: min(ERRORS, int(wrong.sum()))]
    return [
        {
            "row_id": str(rows.row_id[i]),
            "label": float(rows.label[i]) if is_number else rows.classes[int(rows.label[i])],
            "answer": _answer(rows, answers, decided[i], is_number=is_number),
            "score": float(score[i]),
            "inputs": _shown(rows.x[i], inputs),
        }
        for i in order.tolist()
    ]


def _answer(rows: DataSet, answers: Answers, decided: Any, *, is_number: bool) -> float | str:
    if is_number:
        return float(decided)
    return rows.classes[int(decided)] if answers.probabilities is not None or answers.threshold is not None else "undecided"


def _shown(x: NDArray[np.float32], inputs: Sequence[Input]) -> dict[str, Any]:
    """Values of the first inputs, of a window its last row's; categories by name, missing as None."""
    last = x if x.ndim == 1 else x[-1]
    shown: dict[str, Any] = {}
    for column, value in list(zip(inputs, last.tolist(), strict=True))[:_INPUTS]:
        if column.kind == "category":
            known = value == value and 0 <= value < len(column.categories)
            shown[column.name] = column.categories[int(value)] if known else None
        else:
            shown[column.name] = value if value == value else None
    return shown
