"""The converter's gates C1 to C6 and X1: a verdict with value, limit, n, interval and one sentence. Pure.

Judged are one-sided 95 % bounds where rows are a sample. `inconclusive` means that the rows do not suffice to say yes or no.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from converter.intervals import paired_drop
from converter.parity import Comparison, Cost
from converter.recipes import Recipe
from edgefleet.intervals import Z_ONE_SIDED, wilson
from edgefleet.manifest import Override

Verdict = Literal["pass", "fail", "inconclusive", "skipped", "overridden"]

MAX_ERROR_FP32: Final = 1e-5
MEAN_ERROR_INT8: Final = 1e-2
AGREEMENT_INT8: Final = 0.98
MAX_DROP: Final = 0.01
MAX_EXPLAIN_GAP: Final = 1e-3
MIN_ROWS_FP32: Final = 30
# Without these three a variant is not proven; too few rows in a slice do not keep it out, a slice that is shown to be worse does.
_MUST_BE_SHOWN: Final = frozenset({"C1", "C2", "C3"})


@dataclass(frozen=True)
class Limits:
    """What the project declares beside the fixed limits; None means not declared.

    Attributes:
        size_bytes: Largest graph file.
        latency_p95_ms: Largest 95th percentile of one row on the converting machine.
        memory_bytes: Largest peak resident memory of a process that scores.
        allow_inconclusive: Gates that may be inconclusive: too few rows to prove or refute them do not keep a variant out.
    """

    size_bytes: int | None = None
    latency_p95_ms: float | None = None
    memory_bytes: int | None = None
    allow_inconclusive: frozenset[str] = frozenset()


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
        value = None if self.host_bound or self.value is None else float(f"{self.value:.2g}") if self.gate == "C2" else self.value
        sentence = "measured on the converting machine: see measured.json" if self.host_bound and self.value is not None else self.sentence
        return {
            "gate": self.gate, "variant": self.variant, "verdict": self.verdict, "value": value, "limit": self.limit, "n": self.n,
            "low": self.low, "high": self.high, "sentence": sentence,
        }  # fmt: skip


@dataclass(frozen=True)
class Golden:
    """What the self-test will see on the device: the largest error, and labels that differ outside ties."""

    max_error: float
    flips: int


def judge(recipe: Recipe, found: Comparison, golden: Golden, cost: Cost, size_bytes: int, limits: Limits) -> list[Gate]:
    """Every gate of one variant, in order."""
    gates = [
        _agreement(recipe, found),
        _error(recipe, found, golden),
        _drop(recipe, found),
        _worst_slice(found),
        _size(size_bytes, limits),
        _cost(cost, limits),
        _explanation(cost),
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
    failed = [gate for gate in gates if gate.verdict == "fail"]
    if failed:
        return "fail", "; ".join(f"{gate.gate}: {gate.sentence}" for gate in failed), False
    open_ones = [gate for gate in gates if gate.verdict == "inconclusive" and gate.gate in _MUST_BE_SHOWN]
    if open_ones:
        allowed = all(gate.gate in limits.allow_inconclusive for gate in open_ones)
        return "inconclusive", "; ".join(f"{gate.gate}: {gate.sentence}" for gate in open_ones), allowed
    return "pass", "", True


def _agreement(recipe: Recipe, found: Comparison) -> Gate:
    low, high = wilson(found.agreed, found.n)
    if recipe.precision == "fp32":
        differing = found.outside_ties - found.agreed_outside_ties
        verdict: Verdict = "fail" if differing or found.refused else "pass" if found.n >= MIN_ROWS_FP32 else "inconclusive"
        share = found.agreed_outside_ties / found.outside_ties if found.outside_ties else 1.0
        few = "" if found.n >= MIN_ROWS_FP32 else f"; at least {MIN_ROWS_FP32} rows are needed"
        sentence = f"{differing} of {found.outside_ties} rows outside ties have another class, {found.refused} were refused, limit 0{few}"
        return Gate("C1", verdict, sentence, share, 1.0, found.n, low, high)
    bound = wilson(found.agreed, found.n, Z_ONE_SIDED)
    verdict = "fail" if found.refused else _between(-bound[1], -bound[0], -AGREEMENT_INT8)
    share = found.agreed / found.n if found.n else 0.0
    sentence = f"same class on {found.agreed} of {found.n} rows, at least {100 * bound[0]:.1f} % (95 %), limit {100 * AGREEMENT_INT8:g} %"
    if verdict == "inconclusive":
        sentence += "; more parity rows are needed"
    return Gate("C1", verdict, sentence, share, AGREEMENT_INT8, found.n, low, high)


def _error(recipe: Recipe, found: Comparison, golden: Golden) -> Gate:
    fp32 = recipe.precision == "fp32"
    value, limit, kind = (found.max_error, MAX_ERROR_FP32, "largest") if fp32 else (found.mean_error, MEAN_ERROR_INT8, "mean")
    sentence = f"{kind} error of a probability {value:.2g}, limit {limit:g} (largest {found.max_error:.2g})"
    unfit = golden.max_error > recipe.tolerance.max_error or golden.flips > 0
    if unfit:
        sentence += (
            f"; on the golden rows {golden.max_error:.2g} and {golden.flips} other classes, "
            f"the device's self-test would refuse it above {recipe.tolerance.max_error:g} and 0"
        )
    verdict: Verdict = "fail" if not value <= limit or unfit else "pass"
    return Gate("C2", verdict, sentence, value if found.n else None, limit, found.n)


def _drop(recipe: Recipe, found: Comparison) -> Gate:
    pairs = found.overall
    shown_low, shown_high = paired_drop(pairs.worse, pairs.better, pairs.n, z=1.96)
    low, high = paired_drop(pairs.worse, pairs.better, pairs.n)
    if recipe.precision == "fp32" and found.agreed == found.n > 0:
        # Not a sample of something that might change: the C1 gate has shown that the two are the same function.
        return Gate("C3", "pass", f"the same class on all {pairs.n} rows: accuracy is unchanged", 0.0, MAX_DROP, pairs.n, 0.0, 0.0)
    verdict = _between(low, high, MAX_DROP)
    sentence = (
        f"accuracy drops by {100 * pairs.drop:.2f} points ({pairs.worse} rows worse, {pairs.better} better of {pairs.n}), "
        f"at most {100 * high:.2f} (95 %), limit {100 * MAX_DROP:g}"
    )
    return Gate("C3", verdict, sentence, pairs.drop, MAX_DROP, pairs.n, shown_low, shown_high)


def _worst_slice(found: Comparison) -> Gate:
    if not found.slices:
        return Gate("C4", "skipped", "the parity rows have no slices", limit=MAX_DROP)
    if found.agreed == found.n:
        return Gate("C4", "pass", "the same class on all rows: no slice changes", 0.0, MAX_DROP, found.n, 0.0, 0.0)
    bounds = {pairs.name: paired_drop(pairs.worse, pairs.better, pairs.n) for pairs in found.slices}
    worst = max(found.slices, key=lambda pairs: (pairs.drop, bounds[pairs.name][1]))
    low, high = bounds[worst.name]
    sentence = (
        f"worst slice {worst.name!r}: accuracy drops by {100 * worst.drop:.2f} points on {worst.n} rows, at most {100 * high:.2f} (95 %)"
    )
    if any(bounds[pairs.name][0] > MAX_DROP for pairs in found.slices):
        return Gate("C4", "fail", f"{sentence}; shown to be more than {100 * MAX_DROP:g}", worst.drop, MAX_DROP, worst.n, low, high)
    proven = all(bound[1] <= MAX_DROP for bound in bounds.values())
    verdict: Verdict = "pass" if proven else "inconclusive"
    return Gate("C4", verdict, sentence, worst.drop, MAX_DROP, worst.n, low, high)


def _size(size_bytes: int, limits: Limits) -> Gate:
    if limits.size_bytes is None:
        return Gate("C5", "skipped", "no size budget is declared", float(size_bytes))
    verdict: Verdict = "pass" if size_bytes <= limits.size_bytes else "fail"
    return Gate("C5", verdict, f"{size_bytes} bytes, limit {limits.size_bytes} bytes", float(size_bytes), float(limits.size_bytes))


def _cost(cost: Cost, limits: Limits) -> Gate:
    declared, worst = [], 0.0
    if limits.latency_p95_ms is not None:
        declared.append(f"p95 latency {cost.latency_p95_ms:.3f} ms, limit {limits.latency_p95_ms:g} ms")
        worst = max(worst, cost.latency_p95_ms / limits.latency_p95_ms)
    if limits.memory_bytes is not None:
        declared.append(f"peak memory {cost.memory_peak_bytes} bytes, limit {limits.memory_bytes} bytes")
        worst = max(worst, cost.memory_peak_bytes / limits.memory_bytes)
    if not declared:
        return Gate("C6", "skipped", "no latency or memory budget is declared")
    return Gate("C6", "pass" if worst <= 1 else "fail", ", ".join(declared), worst, 1.0, host_bound=True)


def _explanation(cost: Cost) -> Gate:
    if cost.explain_gap is None:
        return Gate("X1", "skipped", "the variant has no explainer")
    adds_up = cost.explain_gap <= MAX_EXPLAIN_GAP
    sentence = f"contributions add up to the margin within {MAX_EXPLAIN_GAP:g} of it"
    return Gate(
        "X1", "pass" if adds_up else "fail", sentence if adds_up else f"gap {cost.explain_gap:.2g}: not {sentence}", limit=MAX_EXPLAIN_GAP
    )


def _between(low: float, high: float, limit: float) -> Verdict:
    """Pass when the whole interval is inside the limit, fail when it is outside, else inconclusive."""
    return "pass" if high <= limit else "fail" if low > limit else "inconclusive"
