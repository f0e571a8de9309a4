"""G5: every declared slice keeps its limit. G10: groups of people or things are treated alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from trainer.answers import STRANGE, Answers
from trainer.bootstrap import RESAMPLES, draws
from trainer.criteria import MIN_ROWS, Criteria, Verdict, at_most, finite
from trainer.dataset import DataSet
from trainer.gates.verdicts import Gate
from trainer.intervals import MIN_GROUPS
from trainer.metrics import Floats, not_finite, ratio
from trainer.slices import Slice, declared_slices, slice_verdicts

Rates = dict[str, tuple[Floats, Floats]]  # rate -> ([n] rows that count, [n] those of them that are hit)


def judge_slices(project: Criteria, rows: DataSet, answers: Answers) -> Gate:
    """G5: exact binomial test (errors of a regression: a test of the mean) with Holm's correction over all slices of all columns."""
    is_share = project.goal.task in ("classification", "anomaly")
    key, limit = ("slice_minimum", project.gates.slice_minimum) if is_share else ("slice_maximum", project.gates.slice_maximum)
    n = len(rows)
    if limit is None:
        return Gate(gate="G5", verdict="skipped", n=n, sentence=f"gates.{key} is not set.")
    if not_finite(answers):
        return Gate(gate="G5", verdict="inconclusive", n=n, limit=limit, sentence="Some answers are not finite numbers: see G4.")
    if project.goal.task == "anomaly" and answers.threshold is None:
        return Gate(gate="G5", verdict="skipped", n=n, limit=limit, sentence="The detector has no threshold yet: nothing is decided.")
    slices = declared_slices(rows, answers, limit, project.search.seed)
    if len(slices) < 2:
        return Gate(gate="G5", verdict="skipped", n=n, limit=limit, sentence="There is one slice only, and G4 judges it.")
    verdicts = slice_verdicts(slices, limit, is_share=is_share)
    verdict: Verdict = "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"
    worst = _worst(slices, verdicts, is_share=is_share)
    what, side = ("accuracy", "floor") if is_share else ("mean absolute error", "ceiling")
    where = f"{worst.name!r}" if len(rows.slices) == 1 else f"{worst.column} = {worst.name!r}"
    sentence = f"Worst of {len(slices)} slices is {where}: {what} {worst.value:.4g} [{worst.lower:.4g}, {worst.upper:.4g}]"
    sentence += f" on {worst.n} rows, {side} {limit:.4g}."
    if failed := verdicts.count("fail") - 1 if verdict == "fail" else 0:
        sentence += f" {failed} more fail."
    if few := [one.name for one in slices if not one.enough]:
        what = f"{MIN_ROWS} rows" if rows.group is None else f"{MIN_ROWS} rows or {MIN_GROUPS} groups"
        sentence += f" Under {what}: {', '.join(few[:5])}{', ...' if len(few) > 5 else ''}."
    return Gate(gate="G5", verdict=verdict, value=worst.value, limit=limit, n=worst.n, low=finite(worst.lower), high=finite(worst.upper),
                sentence=sentence)  # fmt: skip


def _worst(slices: list[Slice], verdicts: list[str], *, is_share: bool) -> Slice:
    """The one that decides: of the failed ones the least likely; else the one with the worst bound."""
    if failed := [one for one, verdict in zip(slices, verdicts, strict=True) if verdict == "fail"]:
        return min(failed, key=lambda one: one.p)
    return min(slices, key=lambda one: (one.lower, one.value) if is_share else (-one.upper, -one.value))


def judge_fairness(project: Criteria, rows: DataSet, answers: Answers) -> Gate:
    """G10: the largest gap between groups of true positive rate, false positive rate and selection rate, over all columns named.

    The bound is of a bootstrap whose rates are recentred at the groups' own, so that it covers all gaps at once: the largest of many gaps
    is above its truth even where groups are equal. Rates over fewer than 30 rows are named, not compared.
    """
    limit, n = project.gates.fairness_gap, len(rows)
    if not project.gates.fairness:
        return Gate(gate="G10", verdict="skipped", n=n, sentence="gates.fairness names no columns.")
    if reason := _unfit(project, rows, answers):
        return Gate(gate="G10", verdict="skipped", n=n, limit=limit, sentence=reason)
    best: tuple[float, float, float, str] | None = None
    most = float("inf") if limit is None else limit
    few: list[str] = []
    for column in project.gates.fairness:
        gap, named = largest_gap(rows, answers, fairness_groups(project, rows, column), project.search.seed)
        few += [f"{column} = {name}" for name in named]
        # A gap that is surely too large comes before one that may be larger.
        if gap is not None and (best is None or (gap[1] > most, gap[2]) > (best[1] > most, best[2])):
            best = (*gap[:3], f"{gap[3]} between {column} = {gap[4]} and {gap[5]}")
    unseen = f" Under {MIN_ROWS} rows, not compared: {', '.join(few[:8])}{', ...' if len(few) > 8 else ''}." if few else ""
    if best is None:
        return Gate(gate="G10", verdict="inconclusive", n=n, limit=limit, sentence=f"No two groups can be compared.{unseen}")
    value, lower, upper, where = best
    sentence = f"Largest gap is {value:.3f} [{lower:.3f}, {upper:.3f}] of {where}"
    if limit is None:
        sentence += f"; gates.fairness_gap is not set.{unseen}"
        return Gate(gate="G10", verdict="skipped", value=value, n=n, low=lower, high=upper, sentence=sentence)
    verdict = at_most(lower, upper, limit)
    if rows.group is not None and len(np.unique(rows.group)) < MIN_GROUPS:
        verdict, unseen = "inconclusive", f" Not judged: the rows are of fewer than {MIN_GROUPS} groups.{unseen}"
    return Gate(gate="G10", verdict=verdict, value=value, limit=limit, n=n, low=lower, high=upper,
                sentence=f"{sentence}, limit {limit:.3f}.{unseen}")  # fmt: skip


def fairness_groups(project: Criteria, rows: DataSet, column: str) -> NDArray[Any]:
    """[n] text of each row's group: a slice column, or a category input.

    Raises:
        ConfigError: Neither.
    """
    if column in rows.slices:
        return rows.slices[column]
    for place, one in enumerate(project.inputs):
        if one.name == column and one.kind == "category":
            codes = rows.x[..., place] if rows.x.ndim == 2 else rows.x[:, -1, place]
            names = np.array([*one.categories, "unseen"])
            return names[np.where(np.isnan(codes) | (codes < 0), len(one.categories), codes).astype(np.int64)]
    known = [*rows.slices, *(one.name for one in project.inputs if one.kind == "category")]
    raise ConfigError(f"gates.fairness names {column!r}; slice columns and category inputs are {', '.join(known) or 'none'}")


def largest_gap(
    rows: DataSet, answers: Answers, groups: NDArray[Any], seed: int
) -> tuple[tuple[float, float, float, str, str, str] | None, list[str]]:
    """The largest gap of one column.

    Returns:
        (gap, lower, upper, rate, highest group, lowest group), or None where nothing can be compared; names of groups left out somewhere.
    """
    names, index = np.unique(groups, return_inverse=True)
    is_group = (index.reshape(-1)[:, None] == np.arange(len(names))).astype(np.float64)
    positive = STRANGE if answers.probabilities is None else answers.positive
    flagged, true = answers.answers() == positive, rows.label == positive
    parts = {"true positive rate": true, "false positive rate": ~true, "selection rate": np.ones(len(rows), np.bool_)}
    few: set[str] = set()
    usable: list[tuple[str, NDArray[np.int64], Callable[[Floats], Floats]]] = []
    for rate, counted in parts.items():
        enough = is_group[counted].sum(axis=0) >= MIN_ROWS
        few |= set(names[~enough].tolist())
        if enough.sum() >= 2:
            usable.append((rate, np.flatnonzero(enough), _rates(is_group[:, enough] * counted[:, None], flagged)))
    if not usable:
        return None, sorted(few)
    ones = np.ones((1, len(rows)))
    value, where, spread = -1.0, ("", "", ""), 0.0
    centres = [rates(ones)[0] for _, _, rates in usable]
    for (rate, places, _), centre in zip(usable, centres, strict=True):
        if (gap := float(np.ptp(centre))) > value:
            value, where = gap, (rate, str(names[places[centre.argmax()]]), str(names[places[centre.argmin()]]))
    largest = []
    count = max(200, min(RESAMPLES, 200_000_000 // len(rows)))
    for weights in draws(np.random.default_rng(seed), len(rows), rows.group, count):
        moved = [rates(weights) - centre for (_, _, rates), centre in zip(usable, centres, strict=True)]
        largest.append(np.max([np.nanmax(one, axis=1) - np.nanmin(one, axis=1) for one in moved], axis=0))
    spread = float(np.quantile(np.concatenate(largest), 0.95))
    return (value, max(0.0, value - spread), min(1.0, value + spread), *where), sorted(few)


def _rates(member: Floats, flagged: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    hit = member * flagged[:, None]
    return lambda weights: ratio(weights @ hit, weights @ member)


def _unfit(project: Criteria, rows: DataSet, answers: Answers) -> str:
    if project.goal.task not in ("classification", "anomaly"):
        return "Fairness compares rates of a class, and this is a regression."
    if len(rows.classes) > 2:
        return f"Fairness compares rates of one class against the other, and there are {len(rows.classes)}."
    if project.goal.task == "anomaly" and answers.threshold is None:
        return "The detector has no threshold yet: nothing is decided."
    return "Some answers are not finite numbers: see G4." if not_finite(answers) else ""
