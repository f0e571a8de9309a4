"""Intervals of metrics and of paired differences: Wilson for accuracy, DeLong for AUC, the BCa bootstrap for the rest.

Rows of one group are drawn together. Where an interval cannot be trusted (few rows, few groups, few positives, no spread) it says why in
`reason`, and no gate passes on it.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.delong import area
from edgefleet.intervals import Z_ONE_SIDED, Z_TWO_SIDED, wilson
from trainer.answers import Answers
from trainer.intervals import few_groups, few_rows, paired_difference, proportion, rows_for_noninferiority, worth_of_rarest
from trainer.metrics import METRICS, Floats, Replicate, cost_matrix, one_against_rest
from trainer.settings import Goal

RESAMPLES: Final = 2000
MIN_POSITIVES: Final = 50
_BLOCKS: Final = 200  # of the jackknife that estimates the skewness
_CELLS: Final = 100_000  # weights held at a time: 0.8 MB stay in the cache, four times as fast as 32 MB
_BUDGET: Final = 200_000_000  # weights drawn in all; above it there are fewer resamples, at least _FEWEST
_FEWEST: Final = 200
_NORMAL: Final = NormalDist()


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its bounds.

    Attributes:
        value: NaN where the metric is not defined.
        low: Lower end of the two-sided 95 % interval, which is shown.
        high: Upper end.
        lower: One-sided 95 % lower bound, which gates judge.
        upper: One-sided 95 % upper bound.
        n: Rows.
        method: `wilson`, `delong`, `bootstrap` or `none`.
        reason: Why the bounds must not pass a gate; empty where they may.
        rows_needed: For paired accuracy: rows that would settle equal models with power 80 %; 0 elsewhere.
    """

    value: float
    low: float
    high: float
    lower: float
    upper: float
    n: int
    method: str
    reason: str = ""
    rows_needed: int = 0


def metric_interval(
    metric: str, label: NDArray[Any], answers: Answers, groups: NDArray[Any] | None, goal: Goal, seed: int, classes: Sequence[str] = ()
) -> Interval:
    """A metric with its interval.

    Args:
        metric: Name, as in `goal.metric`.
        label: [n] as in `DataSet.label`.
        answers: To the same rows.
        groups: [n] what rows share, or None.
        goal: For `mean_cost`: its costs.
        seed: Of the resamples.
        classes: For `mean_cost`: class names by index.
    """
    return metric_intervals([metric], label, answers, groups, goal, seed, classes)[metric]


def metric_intervals(
    names: Sequence[str],
    label: NDArray[Any],
    answers: Answers,
    groups: NDArray[Any] | None,
    goal: Goal,
    seed: int,
    classes: Sequence[str] = (),
) -> dict[str, Interval]:
    """Several metrics of the same rows; those that need it share one set of resamples."""
    replicates = {name: METRICS[name].replicate(label, answers, classes, goal) for name in names}
    found: dict[str, Interval] = {}
    for name in names:
        if name == "accuracy":
            found[name] = _accuracy(answers.answers() == label, groups)
        elif reason := _too_few(name, label, answers):
            value = float(replicates[name](np.ones((1, len(label))))[0])
            found[name] = _open(value, METRICS[name].bounds, len(label), reason)
        elif name == "auc" and groups is None and len(parts := one_against_rest(label, answers)) == 1:
            found[name] = _delong(*parts[0])
    left = {name: replicate for name, replicate in replicates.items() if name not in found}
    for name, interval in bootstrap(left, len(label), groups, seed).items():
        found[name] = _inside(interval, METRICS[name].bounds) if interval.low < interval.high else _flat(interval, label, groups, name)
    return {name: found[name] for name in names}


def paired_interval(
    metric: str,
    label: NDArray[Any],
    new: Answers,
    old: Answers,
    groups: NDArray[Any] | None,
    goal: Goal,
    seed: int,
    classes: Sequence[str] = (),
    margin: float = 0.01,
) -> Interval:
    """How much better `new` is than `old` on the same rows: positive is better, for losses too.

    Accuracy: smoothed paired proportions; AUC of two classes without groups: DeLong; others: BCa bootstrap of rows or groups drawn for both
    models together.

    Args:
        metric: Name.
        label: [n] labels.
        new: Answers of the one.
        old: Answers of the other.
        groups: [n] what rows share, or None.
        goal: For costs.
        seed: Of the resamples.
        classes: Class names by index.
        margin: For `rows_needed` only.
    """
    entry = METRICS[metric]
    sign = 1.0 if entry.greater_is_better else -1.0
    first, second = (entry.replicate(label, answers, classes, goal) for answers in (new, old))
    n = len(label)
    reason = few_groups(groups)
    if metric == "accuracy":
        delta = paired_difference(new.answers() == label, old.answers() == label, groups)
        half = (delta.upper - delta.value) / Z_ONE_SIDED * Z_TWO_SIDED
        needed = rows_for_noninferiority(delta.discordant_fraction, margin, delta.design_effect) if margin > 0 else 0
        shown = {"value": delta.value, "low": delta.value - half, "high": delta.value + half}
        method = "wald with half a row in each cell"
        return Interval(**shown, lower=delta.lower, upper=delta.upper, n=n, method=method, reason=reason, rows_needed=needed)
    if rare := _too_few(metric, label, new):
        ones = np.ones((1, n))
        return _open(sign * float((first(ones) - second(ones))[0]), (-math.inf, math.inf), n, rare)
    if _same(new, old):
        few = reason or few_rows(n)
        return Interval(value=0.0, low=0.0, high=0.0, lower=0.0, upper=0.0, n=n, method="equal answers", reason=few)
    if metric == "auc" and groups is None and len(parts := one_against_rest(label, new)) == 1:
        score, positive = parts[0]
        difference = area(score, positive).minus(area(one_against_rest(label, old)[0][0], positive))
        return _normal(difference.value, difference.error, n, "delong")
    found = bootstrap({metric: lambda weights: sign * (first(weights) - second(weights))}, n, groups, seed)[metric]
    if entry.needs == "decision" and found.low == found.high and math.isfinite(found.low):
        dearest = float(cost_matrix(classes, goal).max()) if metric == "mean_cost" else 1.0
        return _flat_pair(found, worth_of_rarest(label, groups), dearest)
    return found


def bootstrap(replicates: dict[str, Replicate], n: int, groups: NDArray[Any] | None, seed: int) -> dict[str, Interval]:
    """Bias-corrected and accelerated bootstrap of functions of row weights.

    2,000 resamples; above 100,000 rows fewer, at least 200. Under 1,000 resamples (above 200,000 rows) the interval is the normal one of
    their standard error.

    Reference:
        Efron (1987), equations 3.1 and 7.3; the acceleration by a jackknife over at most 200 blocks of rows or groups.
    """
    if not replicates:
        return {}
    rng = np.random.default_rng(seed)
    index = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    units = int(index.max()) + 1
    ones = np.ones((1, n))
    if units == 1:
        reason = few_groups(groups) if n > 1 else few_rows(n)
        return {name: _open(float(replicate(ones)[0]), (-math.inf, math.inf), n, reason) for name, replicate in replicates.items()}
    few = few_rows(n) or few_groups(groups)
    count = max(_FEWEST, min(RESAMPLES, _BUDGET // n))
    drawn: dict[str, list[Floats]] = {name: [] for name in replicates}
    for weights in draws(rng, n, groups, count):
        for name, replicate in replicates.items():
            drawn[name].append(replicate(weights))
    block = rng.permutation(units)[index] % min(units, _BLOCKS)
    left_out: dict[str, list[Floats]] = {name: [] for name in replicates}
    # The normal interval of many rows needs no skewness.
    blocks = np.arange(int(block.max()) + 1 if count >= RESAMPLES / 2 else 1)
    for start in range(0, len(blocks), step := max(1, _CELLS // n)):
        weights = (block[None] != blocks[start : start + step, None]).astype(np.float64)
        for name, replicate in replicates.items():
            left_out[name].append(replicate(weights))
    return {
        name: _accelerated(float(replicate(ones)[0]), np.concatenate(drawn[name]), np.concatenate(left_out[name]), n, few)
        for name, replicate in replicates.items()
    }


def draws(rng: np.random.Generator, n: int, groups: NDArray[Any] | None, count: int) -> Iterator[Floats]:
    """Blocks [some, n], `count` lines in all: how often each of n rows was drawn with replacement, rows of one group together."""
    index = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    units = n if index is None else int(index.max()) + 1
    for start in range(0, count, step := max(1, _CELLS // n)):
        lines = min(step, count - start)
        drawn = rng.integers(units, size=(lines, units), dtype=np.int64) + units * np.arange(lines)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=lines * units).reshape(lines, units).astype(np.float64)
        yield weights if index is None else weights[:, index]


def _accelerated(value: float, drawn: Floats, left_out: Floats, n: int, reason: str) -> Interval:
    defined = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or len(defined) < 0.95 * len(drawn):
        return _open(value, (-math.inf, math.inf), n, reason or "the metric is not defined in every resample: a class has too few rows")
    if len(drawn) < RESAMPLES / 2:
        return msgspec.structs.replace(_normal(value, float(defined.std(ddof=1)), n, "bootstrap"), reason=reason)
    below = (float((defined < value).sum()) + 0.5 * float((defined == value).sum())) / len(defined)
    bias = _NORMAL.inv_cdf(min(max(below, 0.5 / len(defined)), 1 - 0.5 / len(defined)))
    influence = left_out[np.isfinite(left_out)]
    influence = influence.mean() - influence if len(influence) else np.zeros(1)
    spread = float(np.square(influence).sum()) ** 1.5
    acceleration = float((influence**3).sum()) / (6 * spread) if spread > 0 else 0.0
    shares = []
    for z in (-Z_TWO_SIDED, Z_TWO_SIDED, -Z_ONE_SIDED, Z_ONE_SIDED):
        shifted = bias + z
        shares.append(_NORMAL.cdf(bias + shifted / max(0.1, 1 - acceleration * shifted)))
    low, high, lower, upper = np.quantile(defined, shares).tolist()
    return Interval(value=value, low=low, high=high, lower=lower, upper=upper, n=n, method="bootstrap", reason=reason)


def _accuracy(right: NDArray[np.bool_], groups: NDArray[Any] | None) -> Interval:
    share = proportion(right, groups)
    bounds = {name: getattr(share, name) for name in ("value", "low", "high", "lower", "upper", "n")}
    return Interval(**bounds, method="wilson", reason=few_groups(groups))


def _delong(score: Floats, positive: NDArray[np.bool_]) -> Interval:
    """On the logit scale, so that the bounds stay inside (0, 1) and cover near 1."""
    found = area(score, positive)
    n, value = len(score), found.value
    if found.error == 0 or not 0 < value < 1:
        # Perfect order has no variance to measure; as many right rows as there are of the rarer kind bound it instead.
        rarer = min(int(positive.sum()), int((~positive).sum()))
        share = proportion(np.full(rarer, value > 0.5))
        return Interval(value=value, low=share.low, high=share.high, lower=share.lower, upper=share.upper, n=n, method="delong")
    centre, error = math.log(value / (1 - value)), found.error / (value * (1 - value))
    bounds = [1 / (1 + math.exp(-(centre + z * error))) for z in (-Z_TWO_SIDED, Z_TWO_SIDED, -Z_ONE_SIDED, Z_ONE_SIDED)]
    return Interval(value=value, low=bounds[0], high=bounds[1], lower=bounds[2], upper=bounds[3], n=n, method="delong")


def _normal(value: float, error: float, n: int, method: str) -> Interval:
    return Interval(
        value=value,
        low=value - Z_TWO_SIDED * error,
        high=value + Z_TWO_SIDED * error,
        lower=value - Z_ONE_SIDED * error,
        upper=value + Z_ONE_SIDED * error,
        n=n,
        method=method,
    )


def _open(value: float, bounds: tuple[float, float], n: int, reason: str) -> Interval:
    """Bounds that say nothing."""
    low, high = bounds
    return Interval(value=value, low=low, high=high, lower=low, upper=high, n=n, method="none", reason=reason)


def _inside(interval: Interval, bounds: tuple[float, float]) -> Interval:
    clipped = {name: min(max(getattr(interval, name), bounds[0]), bounds[1]) for name in ("low", "high", "lower", "upper")}
    return msgspec.structs.replace(interval, **clipped)


def _flat(interval: Interval, label: NDArray[Any], groups: NDArray[Any] | None, name: str) -> Interval:
    """No resample differs. All rows right is bounded by the rows of the rarest class; anything else is left open."""
    if name in ("f1", "balanced_accuracy") and interval.value == 1:
        share = proportion(np.full(worth_of_rarest(label, groups), True))
        return msgspec.structs.replace(interval, low=share.low, high=1.0, lower=share.lower, upper=1.0)
    bounds = METRICS[name].bounds
    return _open(
        interval.value, bounds, interval.n, interval.reason or "every resample gives the same value: there is no spread to judge by"
    )


def _flat_pair(found: Interval, worth: int, dearest: float) -> Interval:
    """No row was decided differently: of the rarest class's rows so many others still may be, at the dearest error each."""
    half, one_sided = (dearest * wilson(0, worth, z)[1] for z in (Z_TWO_SIDED, Z_ONE_SIDED))
    low, high, value = found.value - half, found.value + half, found.value
    return msgspec.structs.replace(found, low=low, high=high, lower=value - one_sided, upper=value + one_sided)


def _too_few(metric: str, label: NDArray[Any], answers: Answers) -> str:
    if metric not in ("auc", "average_precision"):
        return ""
    counts = [(int(positive.sum()), int((~positive).sum())) for _, positive in one_against_rest(label, answers)]
    least = min(min(pair) for pair in counts)
    return f"the rarest class has {least} rows, fewer than {MIN_POSITIVES}" if least < MIN_POSITIVES else ""


def _same(new: Answers, old: Answers) -> bool:
    one, other = ((a.probabilities if a.probabilities is not None else a.value) for a in (new, old))
    return bool(np.array_equal(new.answers(), old.answers()) and np.array_equal(one, other))  # type: ignore[arg-type]  # one of two is there
