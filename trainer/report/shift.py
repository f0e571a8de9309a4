"""Whether rows of one split, or of one time span, look like the others: effect sizes first, p-values against chance beside them.

The effect of a number is Kolmogorov and Smirnov's D, the largest gap of two distribution functions; of a category Cramer's V; both lie in
[0, 1]. No limit is put on them: how large a gap hurts is the gates' and the device's business. P-values assume independent rows and are
adjusted for the number of comparisons (Holm).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.intervals import holm

LEAST_ROWS = 20  # of either side: a gap of fewer rows says nothing


@dataclass(frozen=True)
class Shift:
    """One input compared between training rows and another split.

    Attributes:
        column: Index of the input.
        split: The other split.
        effect: D or V, in [0, 1].
        p: Adjusted p-value.
    """

    column: int
    split: str
    effect: float
    p: float


def split_shifts(x: NDArray[np.float32], split: NDArray[np.str_], is_category: list[bool]) -> list[Shift]:
    """Every input of validation and test rows against training rows, largest effect first.

    Args:
        x: [n, F]; missing values are left out of numbers, and are a category of their own in categories.
        split: [n] text.
        is_category: [F].
    """
    train = x[split == "train"]
    found: list[tuple[int, str, float, float]] = []
    for name in ("validation", "test"):
        other = x[split == name]
        for column in range(x.shape[1]):
            effect, p = gap(train[:, column], other[:, column], is_category[column])
            if np.isfinite(effect):
                found.append((column, name, effect, p))
    adjusted = holm([p for *_, p in found])
    shifts = [Shift(column, name, effect, p) for (column, name, effect, _), p in zip(found, adjusted, strict=True)]
    return sorted(shifts, key=lambda shift: -shift.effect)


def gap(a: NDArray[Any], b: NDArray[Any], category: bool) -> tuple[float, float]:
    """(effect size, p-value) of two samples; NaN where a side has fewer than LEAST_ROWS values.

    >>> gap(np.arange(100.0), np.arange(100.0) + 50, False)[0]
    0.5
    """
    if not category:
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if min(len(a), len(b)) < LEAST_ROWS:
        return float("nan"), float("nan")
    return _cramer(a, b) if category else _kolmogorov(a, b)


def _kolmogorov(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    from scipy.stats import ks_2samp

    result = ks_2samp(a, b, method="asymp")
    return float(result.statistic), float(result.pvalue)


def _cramer(a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
    from scipy.stats import chi2_contingency

    values = np.nan_to_num(np.concatenate([a, b]), nan=-2.0)
    _, index = np.unique(values, return_inverse=True)
    counts = np.stack([np.bincount(part, minlength=index.max() + 1) for part in (index[: len(a)], index[len(a) :])])
    if counts.shape[1] < 2:
        return 0.0, 1.0
    # With two rows in the table V is sqrt(chi square / n).
    result = chi2_contingency(counts, correction=False)
    return float(np.sqrt(result.statistic / counts.sum())), float(result.pvalue)


def time_effects(
    x: NDArray[np.float32], time: NDArray[np.float64], is_category: list[bool], spans: int = 8
) -> tuple[NDArray[Any], NDArray[Any]]:
    """How far each input's distribution in each span of time is from the first span's.

    Returns:
        ([F, spans - 1] effects, NaN where too few values; [spans + 1] ends of the spans, s). Spans hold equally many rows.
    """
    order = np.argsort(time, kind="stable")
    parts = np.array_split(order, spans)
    ends = np.array([time[part[0]] for part in parts] + [time[order[-1]]])
    effects = [[gap(x[parts[0], column], x[part, column], is_category[column])[0] for part in parts[1:]] for column in range(x.shape[1])]
    return np.array(effects), ends
