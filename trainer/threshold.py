"""The decision threshold: chosen on validation rows by the declared costs of errors, or by the share of normal rows that may be flagged."""

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.intervals import wilson
from trainer.bootstrap import draws
from trainer.metrics import Floats, cost_matrix
from trainer.settings import Goal

RESAMPLES: Final = 1000
_CURVE_POINTS: Final = 200
_FEWEST: Final = 100
_BUDGET: Final = 200_000_000  # weights drawn in all, as for intervals
_ABOVE_ALL: Final = math.nextafter(1.0, 2.0)  # no probability reaches it: nothing is answered positive


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """A chosen threshold.

    Attributes:
        threshold: The positive class is answered from this probability on; just above 1 when it never pays to answer it.
        low: Lower end of the 95 % interval: where the best threshold of a resample of the rows falls.
        high: Upper end.
        cost: Mean cost a row at `threshold`, on the rows that chose it: a little too good.
        cost_at_half: Mean cost a row at .5, for comparison.
        false_positive: Cost of answering positive to another row.
        false_negative: Cost of missing a positive row.
        curve: [[threshold, mean cost], ...] by rising threshold, at most 200 points.
    """

    threshold: float
    low: float
    high: float
    cost: float
    cost_at_half: float
    false_positive: float
    false_negative: float
    curve: list[list[float]]


def binary_costs(goal: Goal, classes: Sequence[str], positive: int) -> tuple[float, float]:
    """(cost of a false positive, cost of a false negative) of two classes, 1 each where `goal.costs` does not say."""
    cost = cost_matrix(classes, goal)
    return float(cost[1 - positive, positive]), float(cost[positive, 1 - positive])


def choose_threshold(
    positive: NDArray[np.bool_],
    probability: Floats,
    false_positive: float,
    false_negative: float,
    *,
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Threshold:
    """The threshold of least mean cost; of equally good ones the middle of the widest run.

    Args:
        positive: [n] whether the row is of the positive class.
        probability: [n] its probability of the positive class, in [0, 1].
        false_positive: Cost of each false positive, at least 0.
        false_negative: Cost of each false negative, at least 0.
        groups: [n] what rows share: drawn together for the interval.
        seed: Of the resamples.
        resamples: For the interval; 0: none is measured, and both ends are the threshold.

    Raises:
        InputError: No rows, or a probability that is not in [0, 1].

    >>> found = choose_threshold(np.array([False, False, True, True]), np.array([0.1, 0.4, 0.6, 0.9]), 1.0, 1.0)
    >>> found.threshold, found.cost
    (0.5, 0.0)
    """
    n = len(positive)
    if n == 0 or not ((probability >= 0) & (probability <= 1)).all():
        raise InputError(f"{n} rows: a threshold is chosen on at least 1 row whose probabilities are in [0, 1]")
    order = np.argsort(probability, kind="stable")
    distinct, starts = np.unique(probability[order], return_index=True)
    # Cut j answers positive from distinct[j] on; the last cut answers nothing positive. Any threshold in (edge[j], edge[j + 1]] is cut j.
    edges = np.concatenate([[0.0], distinct, [_ABOVE_ALL]])
    missed, flagged = false_negative * positive[order], false_positive * ~positive[order]

    def costs(weights: Floats) -> Floats:
        below = np.add.reduceat(weights * missed, starts, axis=1).cumsum(axis=1)
        above = np.add.reduceat(weights * flagged, starts, axis=1)[:, ::-1].cumsum(axis=1)[:, ::-1]
        zero = np.zeros((len(weights), 1))
        mean: Floats = (np.hstack([zero, below]) + np.hstack([above, zero])) / weights.sum(axis=1, keepdims=True)
        return mean

    cost = costs(np.ones((1, n)))[0]
    best = _middle(cost, edges)
    drawn = []
    count = max(_FEWEST, min(resamples, _BUDGET // n)) if resamples else 0
    for weights in draws(np.random.default_rng(seed), n, None if groups is None else groups[order], count):
        drawn += [_middle(row, edges) for row in costs(weights)]
    low, high = np.quantile(drawn or [best], [0.025, 0.975]).tolist()
    shown = np.unique(np.linspace(0, len(cost) - 1, min(len(cost), _CURVE_POINTS)).round().astype(int))
    return Threshold(
        threshold=best,
        low=low,
        high=high,
        cost=float(cost.min()),
        cost_at_half=float(cost[np.searchsorted(distinct, 0.5)]),
        false_positive=false_positive,
        false_negative=false_negative,
        curve=[[float((edges[j] + edges[j + 1]) / 2), float(cost[j])] for j in shown],
    )


def anomaly_threshold(normal_scores: Floats, max_false_alarm_fraction: float) -> float:
    """The score from which a row is strange, so that at most this share of the normal rows given is flagged.

    Between the last normal row that may be flagged and the first that may not; just above the largest score when none may.

    Args:
        normal_scores: [n] scores of rows known to be normal, larger is stranger.
        max_false_alarm_fraction: In [0, 1).

    Raises:
        InputError: No rows, or a score that is not finite.

    >>> anomaly_threshold(np.array([1.0, 2.0, 3.0, 4.0]), 0.25)
    3.5
    """
    n = len(normal_scores)
    if n == 0 or not np.isfinite(normal_scores).all():
        raise InputError(f"{n} normal rows: an anomaly threshold needs at least 1, with finite scores")
    distinct, counts = np.unique(normal_scores, return_counts=True)
    flagged_from = counts[::-1].cumsum()[::-1]  # rows at or above each distinct score
    # A sum of shares may be a rounding error below the whole number that is meant: 0.1 * 30 rows are 3.
    allowed = flagged_from <= math.floor(max_false_alarm_fraction * n + 1e-9)
    if not allowed.any():
        return math.nextafter(float(distinct[-1]), math.inf)
    first = int(allowed.argmax())
    return float(distinct[0]) if first == 0 else _between(float(distinct[first - 1]), float(distinct[first]))


def false_alarms(normal_scores: Floats, threshold: float) -> dict[str, float]:
    """Share of normal rows flagged, with its 95 % Wilson interval: {value, low, high, n}."""
    flagged, n = int((normal_scores >= threshold).sum()), len(normal_scores)
    low, high = wilson(flagged, n)
    return {"value": flagged / n if n else 0.0, "low": low, "high": high, "n": n}


def _middle(cost: Floats, edges: Floats) -> float:
    """Middle of the widest run of cuts with the least cost."""
    least = cost <= cost.min() + 1e-12 * (1 + abs(float(cost.min())))  # sums in another order differ in their last bits
    change = np.flatnonzero(np.diff(np.concatenate([[False], least, [False]]).astype(np.int8)))
    first, last = change[::2], change[1::2]  # run i is cuts first[i] .. last[i] - 1
    widest = int((edges[last] - edges[first]).argmax())
    middle = _between(float(edges[first[widest]]), float(edges[last[widest]]))
    # Only the last cut answers nothing positive, also where the largest probability is 1.
    return max(middle, math.nextafter(float(edges[-2]), 2.0)) if first[widest] == len(cost) - 1 else middle


def _between(below: float, above: float) -> float:
    """The middle of (below, above]; of two neighbouring floats the middle is one of them, and must not be the lower one."""
    middle = (below + above) / 2
    return middle if middle > below else above
