"""Metrics, each written once as a function of row weights: all 1 is the value, how often each row was drawn is a bootstrap resample.

They equal scikit-learn's functions of the same name to 1e-12, with weights and ties; numpy only, because a cached repeat imports no more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from trainer.answers import STRANGE, Answers
from trainer.settings import Goal

Floats = NDArray[np.float64]
# Weights [resamples, n] to the metric of each resample; NaN where it is not defined (AUC of one class).
Replicate = Callable[[Floats], Floats]
Needs = Literal["decision", "probability", "rank", "target"]

TASK_NEEDS: Final[dict[str, tuple[Needs, ...]]] = {
    "classification": ("decision", "probability", "rank"),
    "anomaly": ("decision", "rank"),
    "regression": ("target",),
    "rul": ("target",),
}
_ANY_GOAL: Final = Goal(question="")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As in `goal.metric`.
        greater_is_better: Which limit judges it: `goal.minimum`, else `goal.maximum`.
        bounds: Least and largest value there can be.
        needs: What an answer must hold: a decided class, probabilities, something that ranks, or a number.
        prepare: (label, answers, classes, goal) to the function of weights.
    """

    name: str
    greater_is_better: bool
    bounds: tuple[float, float]
    needs: Needs
    prepare: Callable[[NDArray[Any], Answers, Sequence[str], Goal], Replicate]

    def replicate(self, label: NDArray[Any], answers: Answers, classes: Sequence[str] = (), goal: Goal = _ANY_GOAL) -> Replicate:
        """The metric of these rows as a function of weights [resamples, n].

        Raises:
            InputError: No rows, labels and answers of different length, or an answer that is not finite.
        """
        check_answers(label, answers)
        return self.prepare(label, answers, classes, goal)

    def __call__(
        self, label: NDArray[Any], answers: Answers, classes: Sequence[str] = (), goal: Goal = _ANY_GOAL, weight: Floats | None = None
    ) -> float:
        """The metric's value; NaN where it is not defined.

        Args:
            label: [n] as in `DataSet.label`.
            answers: To the same rows.
            classes: Class names by index; only `mean_cost` reads them.
            goal: Its costs; only `mean_cost` reads them.
            weight: [n] row weights, or None: all 1.
        """
        weights = np.ones(len(label)) if weight is None else np.asarray(weight, np.float64)
        return float(self.replicate(label, answers, classes, goal)(weights[None])[0])


def metrics_for(task: str, answers: Answers) -> list[str]:
    """Names of the metrics that fit a task; an anomaly detector without a threshold has decided nothing yet."""
    needs = [need for need in TASK_NEEDS[task] if need != "decision" or task != "anomaly" or answers.threshold is not None]
    return [name for name, metric in METRICS.items() if metric.needs in needs]


def check_answers(label: NDArray[Any], answers: Answers) -> None:
    """Raise InputError unless there is one finite answer a row."""
    given = answers.probabilities if answers.probabilities is not None else answers.answers()
    if len(label) == 0 or len(given) != len(label):
        raise InputError(f"{len(label)} labels and {len(given)} answers: a metric needs the same number of both, at least 1")
    if broken := not_finite(answers):
        raise InputError(f"{broken} of {len(label)} answers are not finite numbers: mend the candidate, no metric can judge them")


def not_finite(answers: Answers) -> int:
    """How many rows have an answer that is NaN or infinite."""
    given = answers.probabilities if answers.probabilities is not None else answers.value
    assert given is not None  # noqa: S101  # one of the two is there, by the rule of Answers
    return int((~np.isfinite(given.reshape(len(given), -1)).all(axis=1)).sum())


def cost_matrix(classes: Sequence[str], goal: Goal) -> Floats:
    """[true, answered] cost of each error: 0 where right, 1 where `goal.costs` does not say.

    Raises:
        ConfigError: `goal.costs` names a class that does not exist, or a cost below 0.
    """
    cost = 1.0 - np.eye(len(classes))
    index = {name: place for place, name in enumerate(classes)}
    for true, errors in goal.costs.items():
        for answered, value in errors.items():
            if true not in index or answered not in index:
                raise ConfigError(f"goal.costs.{true}.{answered}: the classes are {', '.join(classes)}")
            if not 0 <= value < float("inf"):
                raise ConfigError(f"goal.costs.{true}.{answered} = {value}: a cost is a finite number of at least 0")
            cost[index[true], index[answered]] = value
    return cost


def ratio(above: Floats, below: Floats) -> Floats:
    """Quotient, NaN where the divisor is 0."""
    quotient: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
    return quotient


def mean_of(loss: Floats) -> Replicate:
    """Weighted mean of a number a row."""
    return lambda weights: ratio(weights @ loss, weights.sum(axis=1))


def _probabilities(answers: Answers, name: str) -> Floats:
    if answers.probabilities is None:
        raise ConfigError(f"goal.metric = {name!r} needs probabilities, and this model answers with one number: choose another metric")
    return answers.probabilities


def _accuracy(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    return mean_of((answers.answers() == label).astype(np.float64))


def _counts(label: NDArray[Any], answers: Answers) -> tuple[int, Callable[[Floats], tuple[Floats, Floats, Floats]]]:
    """Number of classes, and weights to [resamples, classes] of right rows, rows and answers of each class."""
    answered = answers.answers().astype(np.int64)
    classes = max(int(label.max()), int(answered.max())) + 1
    if answers.probabilities is not None:
        classes = max(classes, answers.probabilities.shape[1])
    every = np.arange(classes)
    is_label = (label[:, None] == every).astype(np.float64)
    is_answer = (answered[:, None] == every).astype(np.float64)
    both = is_label * is_answer
    return classes, lambda weights: (weights @ both, weights @ is_label, weights @ is_answer)


def _balanced_accuracy(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    _, counts = _counts(label, answers)

    def replicate(weights: Floats) -> Floats:
        right, rows, _ = counts(weights)
        there = rows > 0  # a class without rows has no recall and does not count
        recall = np.divide(right, rows, out=np.zeros_like(right), where=there)
        return ratio(recall.sum(axis=1), there.sum(axis=1).astype(np.float64))

    return replicate


def _f1(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    """F1 of the positive class for two classes; for more the plain mean over classes that occur among labels or answers."""
    classes, counts = _counts(label, answers)
    binary = classes <= 2

    def replicate(weights: Floats) -> Floats:
        right, rows, answered = counts(weights)
        there = rows + answered > 0
        f1 = np.divide(2 * right, rows + answered, out=np.zeros_like(right), where=there)
        if binary:
            positive = STRANGE if answers.probabilities is None else answers.positive
            return f1[:, positive] if positive < classes else np.zeros(len(f1))
        return ratio(f1.sum(axis=1), there.sum(axis=1).astype(np.float64))

    return replicate


def one_against_rest(label: NDArray[Any], answers: Answers) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """(score, is the class) of the positive class for two classes and for anomalies, of every class for more."""
    if answers.probabilities is None:
        return [(answers.score, label == STRANGE)]
    if answers.probabilities.shape[1] == 2:
        return [(answers.score, label == answers.positive)]
    return [(answers.probabilities[:, k], label == k) for k in range(answers.probabilities.shape[1])]


def _ties(score: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Order of rising scores, and where each run of equal ones starts; None where all differ."""
    order = np.argsort(score, kind="stable")
    rising = score[order]
    starts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    return order, None if len(starts) == len(score) else starts


def _sums(values: Floats, starts: NDArray[np.int64] | None) -> Floats:
    return values if starts is None else np.add.reduceat(values, starts, axis=1)


def _area(score: Floats, positive: NDArray[np.bool_]) -> Replicate:
    order, starts = _ties(score)
    found = positive[order]

    def replicate(weights: Floats) -> Floats:
        ordered = weights[:, order]
        plus = _sums(ordered * found, starts)
        minus = _sums(ordered * ~found, starts)
        below = minus.cumsum(axis=1) - minus / 2  # a tie counts half
        return ratio((plus * below).sum(axis=1), plus.sum(axis=1) * minus.sum(axis=1))

    return replicate


def _precision_area(score: Floats, positive: NDArray[np.bool_]) -> Replicate:
    order, starts = _ties(-score)
    found = positive[order]

    def replicate(weights: Floats) -> Floats:
        ordered = weights[:, order]
        plus = _sums(ordered * found, starts)
        flagged = _sums(ordered, starts).cumsum(axis=1)
        precision = np.divide(plus.cumsum(axis=1), flagged, out=np.zeros_like(flagged), where=flagged > 0)
        return ratio((plus * precision).sum(axis=1), plus.sum(axis=1))

    return replicate


def _macro(curve: Callable[[Floats, NDArray[np.bool_]], Replicate]) -> Callable[..., Replicate]:
    def prepare(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
        parts = [curve(score, positive) for score, positive in one_against_rest(label, answers)]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)

    return prepare


def _log_loss(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    shares = _probabilities(answers, "log_loss")
    least = np.finfo(np.float64).eps  # scikit-learn's clip for float64
    return mean_of(-np.log(np.clip(shares[np.arange(len(label)), label], least, 1 - least)))


def _brier(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    """Two classes: squared error of the positive probability; more: summed over classes, so up to 2 (both as scikit-learn)."""
    shares = _probabilities(answers, "brier")
    squares = np.square(shares - (label[:, None] == np.arange(shares.shape[1])))
    return mean_of(squares[:, 1] if shares.shape[1] == 2 else squares.sum(axis=1))


def _mean_cost(label: NDArray[Any], answers: Answers, classes: Sequence[str], goal: Goal) -> Replicate:
    if not classes:
        raise ConfigError("goal.metric = 'mean_cost' needs class names: pass `classes`, index by index")
    return mean_of(cost_matrix(classes, goal)[label, answers.answers().astype(np.int64)])


def _root_mean_square(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    mean_square = mean_of(np.square(answers.answers() - label))
    return lambda weights: np.sqrt(mean_square(weights))


def _mean_absolute(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    return mean_of(np.abs(answers.answers() - label))


def _r2(label: NDArray[Any], answers: Answers, _classes: Sequence[str], _goal: Goal) -> Replicate:
    squares = np.square(answers.answers() - label)
    centred = label - label.mean()  # keeps a constant target exactly 0 and the sums small

    def replicate(weights: Floats) -> Floats:
        rows = weights.sum(axis=1)
        left = weights @ squares
        spread = weights @ np.square(centred) - ratio(np.square(weights @ centred), rows)
        constant = spread <= 0  # then scikit-learn says 1 for a perfect answer, else 0
        explained: Floats = 1 - np.divide(left, spread, out=np.zeros_like(left), where=~constant)
        return np.where(constant, (left == 0).astype(np.float64), explained)

    return replicate


_SHARE: Final = (0.0, 1.0)
_LOSS: Final = (0.0, float("inf"))
METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, _SHARE, "decision", _accuracy),
        Metric("balanced_accuracy", True, _SHARE, "decision", _balanced_accuracy),
        Metric("f1", True, _SHARE, "decision", _f1),
        Metric("auc", True, _SHARE, "rank", _macro(_area)),
        Metric("average_precision", True, _SHARE, "rank", _macro(_precision_area)),
        Metric("log_loss", False, _LOSS, "probability", _log_loss),
        Metric("brier", False, (0.0, 2.0), "probability", _brier),
        Metric("mean_cost", False, _LOSS, "decision", _mean_cost),
        Metric("rmse", False, _LOSS, "target", _root_mean_square),
        Metric("mae", False, _LOSS, "target", _mean_absolute),
        Metric("r2", True, (float("-inf"), 1.0), "target", _r2),
    )
}
