"""The converter's gates C1 to C6 and X1 to X4: a verdict with value, limit, n, interval and one sentence. Pure.

Judged are one-sided 95 % bounds where rows are a sample. `inconclusive` means that the rows do not suffice to say yes or no.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from converter.budgets import Budget, Taken, budgets
from converter.budgets import Limits as Limits
from converter.comparing import Comparison, Drop
from converter.explain.fidelity import Judged, judge_fidelity
from converter.parity import Cost
from converter.recipes import Recipe
from edgefleet.intervals import Z_ONE_SIDED, wilson
from edgefleet.manifest import Override

Verdict = Literal["pass", "fail", "inconclusive", "skipped", "overridden"]

MIN_ROWS_FP32: Final = 30
# Without these three a variant is not proven; too few rows in a slice do not keep it out, a slice that is shown to be worse does.
_MUST_BE_SHOWN: Final = frozenset({"C1", "C2", "C3"})
_ERROR_OF: Final = {
    "classification": "a probability",
    "regression": "a value, in its standard deviations",
    "anomaly": "a score, in its standard deviations",
}
_POINTS: Final = {
    "cosine_low": "cosine to",
    "top3_low": "share of the three strongest inputs shared with",
    "segment_cosine_low": "cosine of the time segments to",
    "segment_within_low": "cosine of what time segments say beyond the channels to",
}
_SAME: Final = {"classification": "class", "regression": "value", "anomaly": "score"}


@dataclass(frozen=True)
class Gate:
    """One verdict; `host_bound` values stay out of the bundle's listed files, which must not depend on clock or host."""

    gate: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    limit: float | None = None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    variant: str = ""
    host_bound: bool = field(default=False, compare=False)

    def as_entry(self) -> dict[str, Any]:
        """The entry in gates.json; errors are rounded, because their last digits differ from one CPU to another."""
        value = (
            None if self.host_bound or self.value is None else float(f"{self.value:.2g}") if self.gate in ("C2", "X2", "X4") else self.value
        )
        sentence = "measured on the converting machine: see measured.json" if self.host_bound else self.sentence
        return {
            "gate": self.gate, "variant": self.variant, "verdict": self.verdict, "value": value, "limit": self.limit, "n": self.n,
            "low": self.low, "high": self.high, "sentence": sentence,
        }  # fmt: skip


@dataclass(frozen=True)
class Golden:
    """What the self-test will see on the device: the largest error, and labels that differ outside ties."""

    max_error: float
    flips: int


def judge(
    recipe: Recipe, found: Comparison, golden: Golden, cost: Cost, size_bytes: int, limits: Limits, facts: Mapping[str, Any] | None = None
) -> list[Gate]:
    """Every gate of one variant, in order; `facts` are what its writer said."""
    declared = budgets(Taken(recipe.runtime, size_bytes, cost, facts), limits)
    gates = [
        _agreement(recipe, found),
        _error(recipe, found, golden),
        _drop(recipe, found),
        _worst_slice(recipe, found),
        _size(size_bytes, declared),
        _cost(declared),
        *_explanation(cost),
    ]
    return [replace(gate, variant=recipe.target) for gate in gates]


def overrule(gates: list[Gate], overrides: list[Override]) -> list[Gate]:
    """The gates with failed ones marked `overridden` where a person overruled them by name in the package."""
    reasons = {override.gate: override.reason for override in overrides}
    return [
        replace(gate, verdict="overridden", sentence=f"{gate.sentence}; overruled: {reasons[gate.gate]}")
        if gate.verdict in ("fail", "inconclusive") and gate.gate in reasons
        else gate
        for gate in gates
    ]


def decide(gates: list[Gate], limits: Limits) -> tuple[Literal["pass", "fail", "inconclusive"], str, bool]:
    """(verdict of the variant, reason, whether it goes into the bundle)."""
    # An explanation that fails is left out; the variant itself is none the worse for it.
    failed = [gate for gate in gates if gate.verdict == "fail" and not gate.gate.startswith("X")]
    if failed:
        return "fail", "; ".join(f"{gate.gate}: {gate.sentence}" for gate in failed), False
    open_ones = [gate for gate in gates if gate.verdict == "inconclusive" and gate.gate in _MUST_BE_SHOWN]
    if open_ones:
        allowed = all(gate.gate in limits.allow_inconclusive for gate in open_ones)
        return "inconclusive", "; ".join(f"{gate.gate}: {gate.sentence}" for gate in open_ones), allowed
    return "pass", "", True


def _agreement(recipe: Recipe, found: Comparison) -> Gate:
    low, high = wilson(found.agreed, found.n)
    same, limit = _SAME[found.task], recipe.bounds.agreement
    if limit is None:
        differing = found.outside_ties - found.agreed_outside_ties
        verdict: Verdict = "fail" if differing or found.refused else "pass" if found.n >= MIN_ROWS_FP32 else "inconclusive"
        share = found.agreed_outside_ties / found.outside_ties if found.outside_ties else 1.0
        few = "" if found.n >= MIN_ROWS_FP32 else f"; at least {MIN_ROWS_FP32} rows are needed"
        where = " outside ties" if found.task == "classification" else ""
        sentence = f"{differing} of {found.outside_ties} rows{where} have another {same}, {found.refused} were refused, limit 0{few}"
        return Gate("C1", verdict, sentence, share, 1.0, found.n, low, high)
    bound = wilson(found.agreed, found.n, Z_ONE_SIDED)
    verdict = "fail" if found.refused else _between(-bound[1], -bound[0], -limit)
    share = found.agreed / found.n if found.n else 0.0
    sentence = f"same {same} on {found.agreed} of {found.n} rows, at least {100 * bound[0]:.1f} % (95 %), limit {100 * limit:g} %"
    if found.task != "classification":
        sentence += f" (same: within {recipe.bounds.same_value:g} standard deviations)"
    if found.refused:
        sentence += f"; {found.refused} rows were refused"
    elif verdict == "inconclusive":
        sentence += "; more parity rows are needed"
    return Gate("C1", verdict, sentence, share, limit, found.n, low, high)


def _error(recipe: Recipe, found: Comparison, golden: Golden) -> Gate:
    bounds, tolerance = recipe.bounds, recipe.tolerance().max_error
    by_mean = bounds.mean_error is not None
    value, limit = (found.mean_error, bounds.mean_error) if by_mean else (found.max_error, bounds.max_error)
    assert limit is not None  # noqa: S101  # each precision has one of the two
    kind = "mean" if by_mean else "largest"
    sentence = f"{kind} error of {_ERROR_OF[found.task]} {value:.2g}, limit {limit:g} (largest {found.max_error:.2g})"
    unfit = golden.max_error > tolerance or golden.flips > 0
    if unfit:
        sentence += (
            f"; on the golden rows {golden.max_error:.2g} and {golden.flips} other classes, "
            f"the device's self-test would refuse it above {tolerance:g} and 0"
        )
    verdict: Verdict = "fail" if not value <= limit or unfit else "pass"
    return Gate("C2", verdict, sentence, value if found.n else None, limit, found.n)


def _drop(recipe: Recipe, found: Comparison) -> Gate:
    limit, drop = recipe.bounds.max_drop, found.overall
    if recipe.bounds.agreement is None and found.agreed == found.n > 0:
        # Not a sample of something that might change: the C1 gate has shown that the two are the same function.
        text = f"the same {_SAME[found.task]} on all {found.n} rows: {_metric(found)} is unchanged"
        return Gate("C3", "pass", text, 0.0, limit, found.n, 0.0, 0.0)
    if drop is None:
        return Gate(
            "C3", "inconclusive", f"the parity rows do not say what {_metric(found)} is; give labelled rows of each kind", limit=limit
        )
    sentence = f"{_dropped(found, drop)}, at most {_points(found, drop.high)} (95 %), limit {_points(found, limit)}"
    return Gate("C3", _between(drop.low, drop.high, limit), sentence, drop.value, limit, drop.n, *drop.shown)


def _worst_slice(recipe: Recipe, found: Comparison) -> Gate:
    limit = recipe.bounds.max_drop
    if not found.slices:
        return Gate("C4", "skipped", "the parity rows have no slices", limit=limit)
    # Values that are only near the original's may still be worse in a slice, equal classes or the same function may not.
    if found.agreed == found.n and (found.task == "classification" or recipe.bounds.agreement is None):
        return Gate("C4", "pass", f"the same {_SAME[found.task]} on all rows: no slice changes", 0.0, limit, found.n, 0.0, 0.0)
    # A slice that is shown to be worse decides, though a small one may look worse still.
    worst = max(found.slices, key=lambda drop: (drop.low > limit, drop.value, drop.high))
    sentence = f"worst slice {worst.name!r}: {_dropped(found, worst)}, at most {_points(found, worst.high)} (95 %)"
    if worst.low > limit:
        return Gate(
            "C4", "fail", f"{sentence}; shown to be more than {_points(found, limit)}", worst.value, limit, worst.n, worst.low, worst.high
        )
    proven = all(drop.high <= limit for drop in found.slices)
    return Gate("C4", "pass" if proven else "inconclusive", sentence, worst.value, limit, worst.n, worst.low, worst.high)


def _metric(found: Comparison) -> str:
    return {"accuracy": "accuracy", "rmse": "the root mean square error", "roc_auc": "the area under the ROC curve"}[found.metric]


def _dropped(found: Comparison, drop: Drop) -> str:
    if found.metric == "accuracy":
        return f"accuracy drops by {_points(found, drop.value)} ({drop.worse} rows worse, {drop.better} better of {drop.n})"
    if found.metric == "rmse":
        return f"the root mean square error grows by {_points(found, drop.value)} on {drop.n} rows"
    return f"the area under the ROC curve drops by {_points(found, drop.value)} on {drop.n} rows"


def _points(found: Comparison, value: float) -> str:
    return f"{100 * value:.3g} {'%' if found.metric == 'rmse' else 'points'}"


def _size(size_bytes: int, declared: list[Budget]) -> Gate:
    budget = next((budget for budget in declared if budget.name == "size"), None)
    if budget is None:
        return Gate("C5", "skipped", "no size budget is declared", float(size_bytes))
    return Gate("C5", budget.verdict, budget.sentence, budget.value, budget.limit)


def _cost(declared: list[Budget]) -> Gate:
    """Latency and memory as one gate: value and limit are of what is used most of its budget."""
    judged = [budget for budget in declared if budget.name != "size"]
    if not judged:
        return Gate("C6", "skipped", "no latency or memory budget is declared")
    sentence = ", ".join(budget.sentence for budget in judged)
    if all(budget.verdict == "skipped" for budget in judged):
        return Gate("C6", "skipped", sentence)
    worst = max(math.inf if budget.value is None else budget.value / budget.limit for budget in judged)
    verdict: Verdict = "fail" if any(budget.verdict == "fail" for budget in judged) else "pass"
    # The share of a budget whose value nobody knows is no number.
    return Gate("C6", verdict, sentence, worst if math.isfinite(worst) else None, 1.0, host_bound=True)


def _explanation(cost: Cost) -> list[Gate]:
    if cost.explain_gap is None:
        return [Gate("X1", "skipped", "the variant has no explainer")]
    step = (cost.fidelity or {}).get("answer_step", 0.0)
    return [_judged(found, step) for found in judge_fidelity(cost.explain_gap, cost.fidelity, cost.explain_difference)]


def _judged(found: Judged, answer_step: float) -> Gate:
    verdict: Verdict = "pass" if found.ok else "fail"
    if found.gate == "X1":
        but = f", but for the steps of {answer_step:.2g} to which the variant rounds it" if answer_step else ""
        # A gap within the limit is a last bit, which differs from one processor to another.
        good = f"contributions add up to the margin within {found.limit:g} of it{but}"
        bad = f"contributions miss the margin by {found.value:.2g} of it{but}, limit {found.limit:g}"
        return Gate("X1", verdict, good if found.ok else bad, limit=found.limit)
    if found.gate == "X3":
        good = f"as a graph or in C it is the exact explanation within {found.limit:g} of a row's largest contribution"
        bad = f"as a graph or in C it misses the exact one by {found.value:.2g} of a row's largest contribution, limit {found.limit:g}"
        return Gate("X3", verdict, good if found.ok else bad, limit=found.limit)
    sentence = (
        f"{_POINTS[found.name]} a long run of Shapley values through this variant: at least {found.value:.3f} (95 %), limit {found.limit:g}"
    )
    return Gate(found.gate, verdict, sentence, found.value, found.limit)


def _between(low: float, high: float, limit: float) -> Verdict:
    """Pass when the whole interval is inside the limit, fail when it is outside, else inconclusive."""
    return "pass" if high <= limit else "fail" if low > limit else "inconclusive"
