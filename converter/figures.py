"""The figures of a conversion as plain values: `--json` prints them, the terminal's tables and the HTML report are made of them. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from converter.budgets import Limits
from converter.conversion import VariantReport, finite
from converter.pareto import Point, Proposal, front, propose
from converter.profiles import PROFILES
from edgefleet.intervals import wilson


@dataclass(frozen=True)
class Outcome:
    """How every target of a conversion fared.

    Attributes:
        reports: One a target, refused ones included.
        front: Names of variants on the Pareto front of size, latency and metric; only variants of the bundle.
        proposals: The best variant for each class of devices.
        limits: What was declared.
        explained: Name of a variant to how the bundle explains it; variants without an explainer are missing.
        notes: Sentences of the writers.
        host: The machine that measured.
    """

    reports: Sequence[VariantReport]
    front: Sequence[str]
    proposals: Sequence[Proposal]
    limits: Limits
    explained: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    host: Mapping[str, Any] = field(default_factory=dict)


def outcome(
    reports: Sequence[VariantReport],
    limits: Limits,
    explained: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    host: Mapping[str, Any] | None = None,
    explain: bool = False,
) -> Outcome:
    """Front and proposals from the reports; see `Outcome` for the arguments.

    With `explain`, when the project asks for explanations, explained variants are proposed where one of them fits.
    """
    known = explained or {}
    points = [point for report in reports if report.kept and (point := _point(report, report.name in known)) is not None]
    return Outcome(reports, front(points), propose(points, explain), limits, known, notes, host or {})


def _point(report: VariantReport, explained: bool) -> Point | None:
    taken, found = report.taken, report.found
    if taken is None or found is None:
        return None
    estimates = {name: estimated for name, profile in PROFILES.items() if (estimated := taken.on(profile)) is not None}
    loss = math.nan if found.overall is None else max(0.0, found.overall.value)
    cost = taken.cost
    return Point(
        report.name, report.runtime, report.size_bytes, cost.latency_p50_ms, loss, found.max_error, cost.memory_peak_bytes, estimates,
        explained,
    )  # fmt: skip


def as_document(found: Outcome) -> dict[str, Any]:
    """Everything as one JSON document's part: `variants`, `front`, `proposals`, `profile`, `host`; None for a number that is not finite."""
    profile = found.limits.profile
    document: dict[str, Any] = finite({
        "variants": [_variant(report, found) for report in found.reports],
        "front": list(found.front),
        "proposals": [
            {
                "class": proposal.device_class.name,
                "variant": proposal.variant,
                "reason": proposal.reason,
                "explained": proposal.explained,
                "profile": proposal.device_class.profile,
                "estimate": None if proposal.estimate is None else asdict(proposal.estimate),
            }
            for proposal in found.proposals
        ],
        "profile": None if profile is None else asdict(profile),
        "host": dict(found.host),
    })  # fmt: skip
    return document


def _variant(report: VariantReport, outcome: Outcome) -> dict[str, Any]:
    cost, taken = report.cost, report.taken
    estimates = [] if taken is None else [estimated for profile in PROFILES.values() if (estimated := taken.on(profile)) is not None]
    return {
        "name": report.name,
        "runtime": report.runtime,
        "size_bytes": report.size_bytes,
        **_answers(report),
        "latency_p50_ms": cost.latency_p50_ms if cost else None,
        "latency_p95_ms": cost.latency_p95_ms if cost else None,
        "latency_p99_ms": cost.latency_p99_ms if cost else None,
        "batch_row_ms": cost.batch_row_ms if cost else None,
        "cold_start_ms": cost.cold_start_ms if cost else None,
        "memory_peak_bytes": cost.memory_peak_bytes if cost else None,
        "verdict": report.verdict,
        "kept": report.kept,
        "on_front": report.name in outcome.front,
        "reason": report.reason,
        "explained": outcome.explained.get(report.name),
        "fidelity": cost.fidelity if cost else None,
        "gates": [gate.as_entry() for gate in report.gates],
        "budgets": [asdict(budget) for budget in report.budgets],
        "estimates": [asdict(estimated) for estimated in estimates],
        "facts": report.facts or {},
    }


def _answers(report: VariantReport) -> dict[str, Any]:
    """How its answers compare with the original's; nothing is known of a variant that did not run."""
    found = report.found
    known = found is not None and found.n > 0
    agreement = wilson(found.agreed, found.n) if found is not None and known else None
    drop = found.overall if found is not None and known else None
    return {
        "agreement": found.agreed / found.n if found is not None and known else None,
        "agreement_low": agreement[0] if agreement else None,
        "agreement_high": agreement[1] if agreement else None,
        "max_error": found.max_error if found is not None and known else None,
        "mean_error": found.mean_error if found is not None and known else None,
        "metric": found.metric if found else None,
        "value": found.value if found is not None and known else None,
        "value_original": found.value_original if found is not None and known else None,
        "drop": drop.value if drop else None,
        "drop_low": drop.shown[0] if drop else None,
        "drop_high": drop.shown[1] if drop else None,
        "rows": found.n if found else 0,
    }
