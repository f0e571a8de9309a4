"""Confidence bounds of proportions and of paired differences.

Rows of one group (one scan, one patient) are alike, so n rows say less than n independent ones: every bound takes an effective number of
rows, n divided by the design effect.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.intervals import Z_ONE_SIDED, Z_TWO_SIDED, wilson
from trainer.criteria import MIN_ROWS

MIN_GROUPS: Final = 10
_Z_POWER: Final = 0.8416212335729143  # normal quantile .80


@dataclass(frozen=True)
class Proportion:
    """A share with its intervals, all in [0, 1].

    Attributes:
        value: The share.
        n: Rows.
        effective_n: Rows that count as independent, at most n.
        low: Lower end of the two-sided 95 % Wilson interval.
        high: Upper end.
        lower: One-sided 95 % lower bound.
        upper: One-sided 95 % upper bound.
    """

    value: float
    n: int
    effective_n: float
    low: float
    high: float
    lower: float
    upper: float


@dataclass(frozen=True)
class PairedDifference:
    """New minus old share of right answers on the same rows.

    Attributes:
        value: The smoothed difference.
        lower: One-sided 95 % lower bound.
        upper: One-sided 95 % upper bound.
        n: Rows.
        design_effect: What alike rows cost.
        discordant_fraction: Share of rows where exactly one of the two is right.
    """

    value: float
    lower: float
    upper: float
    n: int
    design_effect: float
    discordant_fraction: float


def proportion(right: NDArray[np.bool_], groups: NDArray[Any] | None = None) -> Proportion:
    """Share of True with Wilson intervals, widened by the design effect of `groups`."""
    n = len(right)
    if n == 0:
        return Proportion(value=0.0, n=0, effective_n=0.0, low=0.0, high=1.0, lower=0.0, upper=1.0)
    value = float(right.mean())
    effective = n / design_effect(right.astype(np.float64), groups)
    low, high = wilson(value * effective, effective, Z_TWO_SIDED)
    lower, upper = wilson(value * effective, effective, Z_ONE_SIDED)
    return Proportion(value=value, n=n, effective_n=effective, low=low, high=high, lower=lower, upper=upper)


def design_effect(values: NDArray[np.float64], groups: NDArray[Any] | None) -> float:
    """How many rows one independent row is worth, at least 1.

    The variance of the mean that allows rows of a group to be alike, divided by the variance that takes all rows as independent. 1 without
    groups. When all values are equal neither variance is known: then each group counts as one row.

    Reference:
        Kish (1965), section 5.4; the group variance is the linearised one with the factor G / (G - 1).

    >>> design_effect(np.array([1.0, 1.0, 0.0, 0.0]), np.array(["a", "a", "b", "b"]))
    4.0
    """
    if groups is None or len(values) == 0:
        return 1.0
    deviation = values - values.mean()
    independent = float(np.square(deviation).sum())
    _, index = np.unique(groups, return_inverse=True)
    totals = np.bincount(index, weights=deviation)
    if independent == 0 or len(totals) < 2:
        return len(values) / len(totals)
    return max(1.0, float(np.square(totals).sum()) * len(totals) / (len(totals) - 1) / independent)


def worth_of_rarest(label: NDArray[Any], groups: NDArray[Any] | None) -> int:
    """Rows of the rarest class, each group counting as one, at least 1."""
    rarest = int(np.unique(label, return_counts=True)[1].min())
    return max(1, math.floor(rarest / design_effect(np.ones(len(label)), groups)))


def few_rows(n: int) -> str:
    """Why so many rows are too few for an interval by resampling; empty where they are enough."""
    return "" if n >= MIN_ROWS else f"{n} row{' is' if n == 1 else 's are'} fewer than {MIN_ROWS}"


def few_groups(groups: NDArray[Any] | None) -> str:
    """Why the scatter between so few groups is not known; empty where it is, and where rows are not grouped."""
    if groups is None or len(groups) < 2 or (count := len(np.unique(groups))) >= MIN_GROUPS:
        return ""
    return "all rows are of one group" if count == 1 else f"{count} groups are fewer than {MIN_GROUPS}"


def paired_difference(new: NDArray[np.bool_], old: NDArray[np.bool_], groups: NDArray[Any] | None = None) -> PairedDifference:
    """Difference of two models' shares of right answers on the same rows.

    (b - c) / n, where b rows are right only with the new model and c only with the old one; half a row is added to each of the four cells.

    Reference:
        Bonett and Price (2012) add this to Wald's interval; the bound is d - 1.645 se.

    >>> new, old = np.array([True] * 90 + [False] * 10), np.array([True] * 85 + [False] * 15)
    >>> round(paired_difference(new, old).value, 4)  # (5.5 - 0.5) / 102
    0.049
    """
    n = len(new)
    b, c = float((new & ~old).sum()) + 0.5, float((old & ~new).sum()) + 0.5
    total = n + 2
    effect = design_effect(new.astype(np.float64) - old.astype(np.float64), groups)
    value = (b - c) / total
    error = math.sqrt(((b + c) - (b - c) ** 2 / total) * effect) / total
    discordant = (b + c - 1) / n if n else 0.0
    return PairedDifference(
        value=value,
        lower=value - Z_ONE_SIDED * error,
        upper=value + Z_ONE_SIDED * error,
        n=n,
        design_effect=effect,
        discordant_fraction=discordant,
    )


def rows_for_noninferiority(discordant_fraction: float, margin: float, effect: float = 1.0) -> int:
    """Rows that pass equal models with a power of 80 %.

    >>> rows_for_noninferiority(0.05, 0.01)
    3092
    """
    return math.ceil(discordant_fraction * ((Z_ONE_SIDED + _Z_POWER) / margin) ** 2 * effect)


def exact_bounds(successes: float, n: float) -> tuple[float, float]:
    """One-sided 95 % bounds of Clopper and Pearson (1934): each is exact, neither is too narrow.

    >>> [round(bound, 4) for bound in exact_bounds(8, 10)]
    [0.4931, 0.9632]
    """
    from scipy.stats import beta

    lower = 0.0 if successes <= 0 else float(beta.ppf(0.05, successes, n - successes + 1))
    upper = 1.0 if successes >= n else float(beta.ppf(0.95, successes + 1, n - successes))
    return lower, upper


def below_floor_p(successes: float, n: float, floor: float) -> float:
    """P(so few successes or fewer | the true share is `floor`): small means below the floor.

    >>> round(below_floor_p(7, 10, 0.9), 4)
    0.0702
    """
    from scipy.stats import beta

    # The binomial's distribution function through the beta's, which also takes an effective (fractional) number of rows.
    return 1.0 if successes >= n else float(beta.sf(floor, successes + 1, n - successes))


def holm(p_values: list[float]) -> list[float]:
    """P-values adjusted for looking at all of them (Holm 1979).

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
