"""Slices of the rows: the declared ones, and the worst ones found by looking at ranges and categories of inputs, alone and in pairs.

A slice's value is its share of right answers, or its mean absolute error for a regression.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.delong import middle_ranks
from edgefleet.intervals import wilson
from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.bootstrap import bootstrap
from trainer.criteria import MIN_ROWS
from trainer.dataset import DataSet
from trainer.intervals import below_floor_p, design_effect, exact_bounds, few_groups, holm
from trainer.metrics import Floats, mean_of

SIGNIFICANT: Final = 0.05
_SEARCH_ROWS: Final = 50_000
_RANGES: Final = 10
_CATEGORIES: Final = 50
_PAIRED_INPUTS: Final = 12
_SHOWN: Final = 5
_OVERLAP: Final = 0.7


@dataclass(frozen=True)
class Slice:
    """One declared slice.

    Attributes:
        column: Slice column.
        name: Its value there.
        n: Rows.
        value: Share of right answers, or mean absolute error.
        low: Lower end of the two-sided 95 % interval, which is shown.
        high: Upper end.
        lower: One-sided 95 % lower bound, which gate G5 judges.
        upper: One-sided 95 % upper bound.
        p: Probability of a value so bad or worse if the slice were just at the limit; 1 without a limit.
        known: Whether there are groups enough to know how much alike rows cost; True where rows are not grouped.
    """

    column: str
    name: str
    n: int
    value: float
    low: float
    high: float
    lower: float
    upper: float
    p: float
    known: bool = True

    @property
    def enough(self) -> bool:
        """Whether it has the rows, and the groups, to be judged."""
        return self.n >= MIN_ROWS and self.known


@dataclass(frozen=True)
class _Cut:
    """One input cut into ranges or categories: [n] code of each row, and the name of each code."""

    inputs: tuple[str, ...]
    codes: NDArray[np.int64]
    names: list[str]


def row_losses(label: NDArray[Any], answers: Answers) -> tuple[Floats, bool]:
    """([n] loss, whether it is 1 for a wrong class rather than an absolute error)."""
    decided = answers.answers()
    if answers.probabilities is not None or answers.threshold is not None:
        return (decided != label).astype(np.float64), True
    return np.abs(decided - label).astype(np.float64), False


def declared_slices(rows: DataSet, answers: Answers, limit: float | None, seed: int) -> list[Slice]:
    """Every value of every declared slice column, in the order of columns and names.

    Args:
        rows: Rows with their slices and groups.
        answers: To the same rows.
        limit: Least share of right answers or largest mean absolute error, for `p`; None: no limit.
        seed: Of the resamples of errors.
    """
    losses, is_share = row_losses(rows.label, answers)
    measure = _share if is_share else _error
    found = []
    for column, names in rows.slices.items():
        for name in np.unique(names).tolist():
            here = names == name
            groups = None if rows.group is None else rows.group[here]
            found.append(measure(column, str(name), losses[here], groups, limit, seed))
    return found


def slice_verdicts(slices: Sequence[Slice], limit: float, *, is_share: bool) -> list[str]:
    """Fail where the test rejects a slice after Holm's correction over all; pass where its own one-sided bound keeps the limit.

    All must hold, so that passing needs no correction. Under 30 rows, or 10 groups where rows are grouped, neither pass nor fail.
    """
    adjusted = holm([one.p if one.enough else 1.0 for one in slices])
    verdicts = []
    for one, p in zip(slices, adjusted, strict=True):
        keeps = one.lower >= limit if is_share else one.upper <= limit
        verdicts.append("fail" if one.enough and p < SIGNIFICANT else "pass" if one.enough and keeps else "inconclusive")
    return verdicts


def worst_slices(rows: DataSet, answers: Answers, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """Slices that are worse than the rows as a whole, at most five, found by looking at them all.

    Every input is cut into ten ranges (or its categories, missing apart); the twelve inputs with the strongest effect also in pairs. Only
    slices of 30 rows and more that stay significant after Holm's correction over everything looked at are kept; one that mostly holds the
    rows of a stronger one is left out. At most 50,000 rows are searched; of a window its last row.

    Returns:
        [{column, name, n, value, low, high, verdict, p}], strongest first; values are measured on the rows that found the slice.

    Raises:
        Nothing: rows without inputs have no slices.
    """
    if len(rows) > _SEARCH_ROWS:
        index = np.sort(np.random.default_rng(0).choice(len(rows), _SEARCH_ROWS, replace=False))
        rows, answers = rows.take(index), answers.take(index)
    x = rows.x if rows.x.ndim == 2 else rows.x[:, -1]
    losses, is_share = row_losses(rows.label, answers)
    if len(rows) < 2 * MIN_ROWS or losses.min() == losses.max():
        return []
    worth = 1 / design_effect(losses, rows.group)
    score = losses if is_share else middle_ranks(losses)
    alone = [cut for j, column in enumerate(inputs) if (cut := _cut(column, x[:, j])) is not None]
    strengths = [_tail(score, cut, worth, is_share=is_share) for cut in alone]
    order = sorted(range(len(alone)), key=lambda i: float(strengths[i].min()))[:_PAIRED_INPUTS]
    pairs = [_both(alone[i], alone[j]) for i, j in itertools.combinations(sorted(order), 2)]
    cuts = alone + pairs
    tails = strengths + [_tail(score, cut, worth, is_share=is_share) for cut in pairs]
    looked_at = [(float(p), i, code) for i, tail in enumerate(tails) for code, p in enumerate(tail) if np.isfinite(p)]
    if not looked_at:
        return []
    adjusted = holm([p for p, _, _ in looked_at])
    ranked = sorted(zip(adjusted, looked_at, strict=True), key=lambda one: (one[0], one[1]))
    return _kept(ranked, cuts, losses, rows.group, is_share=is_share)


def _share(column: str, name: str, losses: Floats, groups: NDArray[Any] | None, limit: float | None, _seed: int) -> Slice:
    n, value = len(losses), 1 - float(losses.mean())
    worth = n / design_effect(losses, groups)
    low, high = wilson(value * worth, worth)
    lower, upper = exact_bounds(value * worth, worth)
    p = 1.0 if limit is None else below_floor_p(value * worth, worth, limit)
    return Slice(column, name, n, value, low, high, lower, upper, p, known=not few_groups(groups))


def _error(column: str, name: str, losses: Floats, groups: NDArray[Any] | None, limit: float | None, seed: int) -> Slice:
    n, value = len(losses), float(losses.mean())
    interval = bootstrap({"mae": mean_of(losses)}, n, groups, seed)["mae"]
    lower, upper = (0.0, np.inf) if interval.reason else (interval.lower, interval.upper)
    deviation = float(losses.std()) * np.sqrt(design_effect(losses, groups) / n)
    p = 1.0
    if limit is not None and deviation > 0:
        from scipy.special import ndtr

        p = float(ndtr((limit - value) / deviation))
    return Slice(column, name, n, value, max(0.0, interval.low), interval.high, lower, float(upper), p, known=not few_groups(groups))


def _cut(column: Input, values: NDArray[np.float32]) -> _Cut | None:
    """None where the input has one value only, or too many categories to look at."""
    missing = np.isnan(values)
    if column.kind == "category":
        names = [f"{column.name} = {text}" for text in column.categories]
        unseen = len(names)
        codes = np.where(missing, unseen + 1, np.where((values < 0) | (values >= unseen), unseen, values)).astype(np.int64)
        names += [f"{column.name} unseen", f"{column.name} missing"]
        if len(names) > _CATEGORIES:
            # The most frequent ones; the others are one slice.
            frequent = np.argsort(-np.bincount(codes, minlength=len(names)), kind="stable")[: _CATEGORIES - 1]
            place = np.full(len(names), _CATEGORIES - 1)
            place[frequent] = np.arange(len(frequent))
            codes, names = place[codes], [*(names[i] for i in frequent.tolist()), f"{column.name} other"]
    else:
        known = values[~missing]
        if len(known) == 0:
            return None
        edges = np.unique(np.quantile(known, np.arange(1, _RANGES) / _RANGES, method="inverted_cdf"))
        edges = edges[edges < known.max()]
        codes = np.searchsorted(edges, values, side="left").astype(np.int64)  # values up to and with the edge fall below it
        codes[missing] = len(edges) + 1
        bounds = [f"{edge:.4g}" for edge in edges.tolist()]
        names = [f"{low} < {column.name} <= {high}" for low, high in itertools.pairwise(bounds)]
        names = [f"{column.name} <= {bounds[0]}", *names, f"{column.name} > {bounds[-1]}"] if bounds else [f"{column.name} known"]
        names.append(f"{column.name} missing")
    return _Cut((column.name,), codes, names) if len(np.unique(codes)) > 1 else None


def _both(one: _Cut, other: _Cut) -> _Cut:
    names = [f"{a} and {b}" for a in one.names for b in other.names]
    return _Cut(one.inputs + other.inputs, one.codes * len(other.names) + other.codes, names)


def _tail(score: Floats, cut: _Cut, worth: float, *, is_share: bool) -> Floats:
    """[names] probability of so much loss in the slice if it were like all rows; infinite under 30 rows: not looked at."""
    from scipy.special import betainc, ndtr

    n = np.bincount(cut.codes, minlength=len(cut.names)).astype(np.float64)
    total = np.bincount(cut.codes, weights=score, minlength=len(cut.names))
    tail: Floats = np.full(len(n), np.inf)
    seen = (n >= MIN_ROWS) & (n < len(score))
    n, total = n[seen], total[seen]
    if is_share:
        wrong = total * worth
        tail[seen] = np.where(wrong > 0, betainc(np.maximum(wrong, 1e-9), n * worth - wrong + 1, score.mean()), 1.0)
    else:
        # Wilcoxon's rank sum: absolute errors have long tails.
        error = score.std() * np.sqrt((1 / n - 1 / len(score)) / worth)
        tail[seen] = ndtr(-(total / n - score.mean()) / error)
    return tail


def _kept(
    ranked: list[tuple[float, tuple[float, int, int]]], cuts: list[_Cut], losses: Floats, groups: NDArray[Any] | None, *, is_share: bool
) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    taken: list[NDArray[np.bool_]] = []
    for p, (_, cut, code) in ranked:
        if p >= SIGNIFICANT or len(kept) == _SHOWN:
            break
        here = cuts[cut].codes == code
        if any((here & other).sum() > _OVERLAP * min(here.sum(), other.sum()) for other in taken):
            continue
        taken.append(here)
        measure = _share if is_share else _error
        one = measure(", ".join(cuts[cut].inputs), cuts[cut].names[code], losses[here], None if groups is None else groups[here], None, 0)
        kept.append({"column": one.column, "name": one.name, "n": one.n, "value": one.value, "low": one.low, "high": one.high,
                     "verdict": "worse than all rows", "p": p})  # fmt: skip
    return kept
