"""A variant against the original on the same rows: counts, errors and the paired change of the metric. Pure, for every task.

Classes: the answered class (by the package's threshold where it has one) and accuracy. Values: errors in units of the target's spread, and
the root mean square error. Anomaly scores: errors in units of the scores' spread, and the area under the ROC curve where the rows are
labelled. "Same answer" of a value or a score: within `Recipe.same_value` of the original, in those units.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.intervals import paired_drop
from converter.originals import Original
from edgefleet.delong import area
from edgefleet.intervals import Z_ONE_SIDED, Z_TWO_SIDED
from edgefleet.manifest import Task

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Below this difference of the best two probabilities, which of them is larger is decided by the last bits of float32.
TIE_MARGIN_FP32: Final = 1e-5
METRICS: Final[dict[Task, str]] = {"classification": "accuracy", "regression": "rmse", "anomaly": "roc_auc"}


@dataclass(frozen=True)
class Truth:
    """The original's answers and what is known of the rows.

    Attributes:
        task: Kind of prediction.
        original: Answers of the trained model.
        label: [n] class index, target, or 1 for a strange row.
        slices: [n] names of slices.
        threshold: See `PackageIndex.threshold`.
        positive: Class index that the threshold speaks of.
        spread: Unit of errors: 1 for probabilities, else the standard deviation of the original's values; see `spread_of`.
    """

    task: Task
    original: Original
    label: NDArray[Any]
    slices: NDArray[np.str_]
    threshold: float | None = None
    positive: int = 1
    spread: float = 1.0


@dataclass(frozen=True)
class Answers:
    """A variant's answers, row by row and as batches: probabilities [n, classes], else margins [n, 1]; NaN where a row was refused."""

    single: Floats
    batch: Floats


@dataclass(frozen=True)
class Drop:
    """How much worse the variant's metric is on some rows.

    Attributes:
        name: Which rows.
        n: How many.
        value: Of accuracy or area: original minus variant. Of the root mean square error: relative increase.
        low: One-sided 95 % lower bound.
        high: One-sided 95 % upper bound.
        shown: Two-sided 95 % interval.
        worse: Rows that only the original answers rightly (classes), else 0.
        better: Rows that only the variant answers rightly (classes), else 0.
    """

    name: str
    n: int
    value: float
    low: float
    high: float
    shown: tuple[float, float]
    worse: int = 0
    better: int = 0


@dataclass(frozen=True)
class Comparison:
    """A variant against the original on the parity rows.

    Attributes:
        task: Kind of prediction.
        n: Rows that the scorer answered.
        refused: Rows that it did not answer.
        agreed: Rows with the same answer, alone and in a batch.
        outside_ties: Rows where the original's best two probabilities differ by more than `TIE_MARGIN_FP32`; all rows of values.
        agreed_outside_ties: Those of them with the same answer.
        max_error: Largest absolute error of a probability (of a value: over the spread), single rows and batches.
        mean_error: Mean of the same over single rows.
        metric: Name of the metric.
        value: Of the variant; None where the rows do not say (no labels of both kinds).
        value_original: Of the original.
        overall: Paired change over all rows, None where the metric is unknown.
        slices: The same for each slice, empty when there is only one.
    """

    task: Task
    n: int
    refused: int
    agreed: int
    outside_ties: int
    agreed_outside_ties: int
    max_error: float
    mean_error: float
    metric: str
    value: float | None
    value_original: float | None
    overall: Drop | None
    slices: list[Drop]


def spread_of(task: Task, original: Original) -> float:
    """Unit of errors: 1 for probabilities, else the standard deviation of the original's values, their size where they are all equal."""
    if task == "classification" or len(original.margin) == 0:
        return 1.0
    deviation, size = float(original.margin.std()), float(np.abs(original.margin).max()) or 1.0
    # Equal values have a deviation of some last bits: that is no spread.
    return deviation if deviation > 1e-9 * size else size


def answered_class(probabilities: Floats, threshold: float | None, positive: int) -> NDArray[np.int64]:
    """[n] class index: the likeliest, or of two classes the positive one from its threshold on."""
    if threshold is None or probabilities.shape[1] != 2:
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    return np.where(probabilities[:, positive] >= threshold, positive, 1 - positive)


def compare(truth: Truth, answers: Answers, same_value: float) -> Comparison:
    """Counts and errors of a variant against the original.

    Args:
        truth: The original's side.
        answers: The variant's answers to the same rows.
        same_value: Values and scores this near (in units of the spread) are the same answer.
    """
    answered: Flags = np.asarray(np.isfinite(answers.single).all(axis=1) & np.isfinite(answers.batch).all(axis=1))
    classes = truth.task == "classification"
    theirs = (truth.original.probabilities if classes else truth.original.margin)[answered]
    single, batch = answers.single[answered], answers.batch[answered]
    errors = np.abs(single - theirs) / truth.spread
    batch_errors = np.abs(batch - theirs) / truth.spread
    if classes:
        decide = _decider(truth)
        # A batch may not answer otherwise than its rows do alone.
        same = (decide(single) == decide(theirs)) & (decide(batch) == decide(theirs))
        clear = _sure(theirs, truth, TIE_MARGIN_FP32)
    else:
        same = (errors.max(axis=1) <= same_value) & (batch_errors.max(axis=1) <= same_value)
        clear = np.ones(len(errors), bool)
    n = len(errors)
    metric = _metric(truth, answered, theirs, single)
    groups = truth.slices[answered]
    names = np.unique(groups)
    return Comparison(
        task=truth.task,
        n=n,
        refused=int((~answered).sum()),
        agreed=int(same.sum()),
        outside_ties=int(clear.sum()),
        agreed_outside_ties=int((same & clear).sum()),
        max_error=float(max(errors.max(), batch_errors.max())) if n else math.inf,
        mean_error=float(errors.mean()) if n else math.inf,
        metric=METRICS[truth.task],
        value=metric.value(single),
        value_original=metric.value(theirs),
        overall=metric.drop("all rows", np.ones(n, bool)),
        slices=[drop for name in names if (drop := metric.drop(str(name), groups == name)) is not None] if len(names) > 1 else [],
    )


def golden_failures(truth: Truth, answers: Answers, tie_margin: float) -> tuple[float, int]:
    """What the device's self-test will see: largest error on the golden rows (in spreads), and labels that differ outside ties."""
    classes = truth.task == "classification"
    theirs = truth.original.probabilities if classes else truth.original.margin
    if len(theirs) == 0:
        return 0.0, 0
    errors = np.nan_to_num(np.abs(answers.single - theirs) / truth.spread, nan=np.inf)
    if not classes:
        return float(errors.max()), 0
    decide = _decider(truth)
    flips = (decide(answers.single) != decide(theirs)) & _sure(theirs, truth, tie_margin)
    return float(errors.max()), int(flips.sum())


def _decider(truth: Truth) -> Callable[[Floats], NDArray[np.int64]]:
    return lambda shares: answered_class(shares, truth.threshold, truth.positive)


def _sure(theirs: Floats, truth: Truth, margin: float) -> Flags:
    """[n] whether the answered class is further than `margin` from the other: best from second best, or twice from the threshold."""
    if truth.threshold is not None and theirs.shape[1] == 2:
        return np.asarray(2 * np.abs(theirs[:, truth.positive] - truth.threshold) > margin)
    if theirs.shape[1] < 2:
        return np.ones(len(theirs), bool)
    best = np.sort(theirs, axis=1)
    return np.asarray(best[:, -1] - best[:, -2] > margin)


@dataclass(frozen=True)
class _Accuracy:
    right: NDArray[Any]
    original: Flags
    variant: Flags
    decide: Callable[[Floats], NDArray[np.int64]]

    def value(self, shares: Floats) -> float | None:
        return float((self.decide(shares) == self.right).mean()) if len(shares) else None

    def drop(self, name: str, rows: Flags) -> Drop | None:
        worse = int((self.original & ~self.variant)[rows].sum())
        better = int((self.variant & ~self.original)[rows].sum())
        n = int(rows.sum())
        low, high = paired_drop(worse, better, n)
        return Drop(name, n, (worse - better) / n if n else 0.0, low, high, paired_drop(worse, better, n, Z_TWO_SIDED), worse, better)


@dataclass(frozen=True)
class _SquaredError:
    target: Floats
    original: Floats
    variant: Floats
    spread: float

    def value(self, values: Floats) -> float | None:
        return float(np.sqrt(np.square(values[:, 0] - self.target).mean())) if len(values) else None

    def drop(self, name: str, rows: Flags) -> Drop | None:
        """Relative increase of the root mean square error, by the delta method on the paired mean squared errors.

        None where the original is right to the last bits of float32: what is relative to those says nothing.
        """
        before, after = np.square(self.original - self.target)[rows], np.square(self.variant - self.target)[rows]
        n, base = len(before), float(before.mean()) if len(before) else 0.0
        if n < 2 or base <= (TIE_MARGIN_FP32 * self.spread) ** 2:
            return None
        ratio = float(after.mean()) / base
        error = float((after - ratio * before).std(ddof=1)) / (base * math.sqrt(n))
        value = math.sqrt(ratio) - 1
        half = error / (2 * math.sqrt(ratio)) if ratio > 0 else 0.0  # no error in any row leaves nothing uncertain
        shown = (value - Z_TWO_SIDED * half, value + Z_TWO_SIDED * half)
        return Drop(name, n, value, value - Z_ONE_SIDED * half, value + Z_ONE_SIDED * half, shown)


@dataclass(frozen=True)
class _Area:
    strange: Flags
    original: Floats
    variant: Floats

    def value(self, scores: Floats) -> float | None:
        if not self._both(np.ones(len(scores), bool)):
            return None
        return area(scores[:, 0], self.strange).value

    def drop(self, name: str, rows: Flags) -> Drop | None:
        if not self._both(rows):
            return None
        difference = area(self.original[rows], self.strange[rows]).minus(area(self.variant[rows], self.strange[rows]))
        value, error = difference.value, difference.error
        if not math.isfinite(error):
            return None
        shown = (value - Z_TWO_SIDED * error, value + Z_TWO_SIDED * error)
        return Drop(name, int(rows.sum()), value, value - Z_ONE_SIDED * error, value + Z_ONE_SIDED * error, shown)

    def _both(self, rows: Flags) -> bool:
        return 0 < int(self.strange[rows].sum()) < int(rows.sum())


def _metric(truth: Truth, answered: Flags, theirs: Floats, single: Floats) -> _Accuracy | _SquaredError | _Area:
    label = truth.label[answered]
    if truth.task == "classification":
        decide = _decider(truth)
        return _Accuracy(label, decide(theirs) == label, decide(single) == label, decide)
    if truth.task == "regression":
        return _SquaredError(label.astype(np.float64), theirs[:, 0], single[:, 0], truth.spread)
    return _Area(label == 1, theirs[:, 0], single[:, 0])
