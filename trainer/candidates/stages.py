"""Boosting in stages: the training curve, early stopping on validation rows, and a search that may stop a bad fit."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.candidates.fitted import Problem, Progress
from trainer.candidates.losses import loss

Curve = list[dict[str, float]]
# A search looks at the validation rows after so many trees; each look costs a prediction.
LOOK_EVERY: Final = 10


def fit_boosting(
    model: Any,
    z: NDArray[np.float32],
    label: NDArray[Any],
    weight: NDArray[np.float64] | None,
    problem: Problem,
    validation: tuple[NDArray[np.float32], NDArray[Any]] | None,
    progress: Progress | None,
) -> Curve:
    """Fit gradient boosting; with validation rows the curve holds their loss after every tree."""
    _in_stages(model, "n_estimators", lambda: model.fit(z, label, sample_weight=weight), problem, validation, progress)
    curve: Curve = [{"step": step, "loss": float(value)} for step, value in enumerate(model.train_score_, start=1)]
    if validation is not None:
        stages = model.staged_predict_proba if problem.task == "classification" else model.staged_predict
        for entry, predictions in zip(curve, stages(validation[0]), strict=True):
            entry["validation"] = loss(problem, predictions, validation[1])
    return curve


def fit_hist_boosting(
    model: Any,
    z: NDArray[np.float32],
    label: NDArray[Any],
    weight: NDArray[np.float64] | None,
    problem: Problem,
    validation: tuple[NDArray[np.float32], NDArray[Any]] | None,
    progress: Progress | None,
) -> Curve:
    """Fit histogram boosting; with validation rows it stops where their loss does not fall any more."""
    held = {} if validation is None else {"X_val": validation[0], "y_val": validation[1]}
    model.set_params(early_stopping=validation is not None)
    _in_stages(model, "max_iter", lambda: model.fit(z, label, sample_weight=weight, **held), problem, validation, progress)
    if validation is None:
        return []
    # scikit-learn stores the negative loss, first of the constant model before any tree.
    pairs = zip(model.train_score_[1:], model.validation_score_[1:], strict=True)
    return [{"step": step, "loss": -float(own), "validation": -float(held)} for step, (own, held) in enumerate(pairs, start=1)]


def _in_stages(
    model: Any,
    size: str,
    fit: Any,
    problem: Problem,
    validation: tuple[NDArray[np.float32], NDArray[Any]] | None,
    progress: Progress | None,
) -> None:
    """Fit at once, or in stages that `progress` is told of."""
    if progress is None or validation is None:
        fit()
        return
    total = int(getattr(model, size))
    model.set_params(warm_start=True)
    for stage in range(min(LOOK_EVERY, total), total + LOOK_EVERY, LOOK_EVERY):
        model.set_params(**{size: min(stage, total)})
        fit()
        predictions = model.predict_proba(validation[0]) if problem.task == "classification" else model.predict(validation[0])
        stopped_early = getattr(model, "n_iter_", stage) < min(stage, total)
        if not progress(min(stage, total), loss(problem, predictions, validation[1])) or stopped_early:
            break
    model.set_params(warm_start=False)
