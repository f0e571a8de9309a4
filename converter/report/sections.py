"""The report's further tables: reasons, budgets, gates, slices, explanations, calibration rows, precision, estimates."""

from typing import Any, Final

from converter.budgets import Budget
from converter.figures import Outcome
from converter.gates import Gate
from converter.profiles import PROFILES
from converter.report.variants import time_ms, why
from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import ABSENT, between, duration, number, percent, size
from edgefleet.report.parts import chip, note, pairs, paragraph, table

_MOST_SLICES: Final = 12


def refused(found: Outcome) -> Html:
    """Why variants are not in the bundle, or what stays open."""
    rows = [
        (chip("refused" if not report.kept else report.verdict), report.name, why(report.reason))
        for report in found.reports
        if report.reason
    ]
    return table(("Verdict", "Variant", "Why"), rows) if rows else EMPTY


def declared_budgets(found: Outcome) -> Html:
    """The device's budgets against what each variant takes: one line a variant, one column a budget."""
    judged = [report for report in found.reports if report.budgets]
    if not judged:
        return paragraph("The project declares no budget in [device]: nothing is compared.")
    # All variants are held against the same budgets.
    header = [f"{b.name}, limit {_amount(b.limit, b.unit)} ({_basis(b)})" for b in judged[0].budgets]
    rows = [
        (
            report.name,
            *(
                join(chip(budget.verdict), text("" if budget.value is None else f" {_amount(budget.value, budget.unit)}"))
                for budget in report.budgets
            ),
        )
        for report in judged
    ]
    return table(("Variant", *header), rows)


def _basis(budget: Budget) -> str:
    if budget.profile:
        return f"estimate for {budget.profile}"
    return "counted" if budget.name == "size" else "measured here"


def _amount(value: float, unit: str) -> str:
    return size(value) if unit == "bytes" else duration(value / 1e3)


def gates(found: Outcome) -> Html:
    """Every gate of every variant."""
    parts = [
        join(element("h3", text(report.name)), table(("Verdict", "Gate", "Value", "Limit", "n", "95 % interval", "Why"), [
            _gate(gate) for gate in report.gates], numbers=(2, 3, 4, 5)))
        for report in found.reports if report.gates
    ]  # fmt: skip
    return join(*parts)


def _gate(gate: Gate) -> tuple[object, ...]:
    return chip(gate.verdict), gate.gate, gate.value, gate.limit, gate.n, between(gate.low, gate.high), why(gate.sentence)


def slices(found: Outcome) -> Html:
    """The change of the metric in every slice, the worst first."""
    rows = [
        (
            report.name,
            drop.name,
            drop.n,
            f"{100 * drop.value:.2f}".replace("-", "\u2212"),
            between(100 * drop.shown[0], 100 * drop.shown[1]),
        )
        for report in found.reports
        if report.found is not None and any(part.value or part.worse or part.better for part in report.found.slices)
        for drop in sorted(report.found.slices, key=lambda drop: -drop.value)[:_MOST_SLICES]
    ]
    unit = "%" if any(report.found is not None and report.found.metric == "rmse" for report in found.reports) else "points"
    return table(("Variant", "Slice", "n", f"Worse by, {unit}", "95 % interval"), rows, numbers=(2, 3, 4)) if rows else EMPTY


def fidelity(found: Outcome) -> Html:
    """How true the explanations are, measured with the device's explainer on each variant."""
    in_segments = any("segment_cosine_low" in ((report.cost and report.cost.fidelity) or {}) for report in found.reports)
    rows = []
    for report in found.reports:
        cost = report.cost
        if cost is None or cost.explain_gap is None:
            continue
        figures = cost.fidelity or {}
        rows.append(
            (
                chip("pass" if report.explained else "refused"),
                report.name,
                found.explained.get(report.name, "left out" if report.kept else ABSENT),
                cost.explain_gap,
                figures.get("cosine_low"),
                figures.get("top3_low"),
                *((figures.get("segment_cosine_low"), figures.get("segment_within_low")) if in_segments else ()),
                figures.get("r2"),
                figures.get("covered"),
                figures.get("rows"),
            )
        )
    header = (
        "Verdict",
        "Variant",
        "Method",
        "Gap of the sum",
        "Cosine, at least",
        "Top 3 shared, at least",
        *(("Cosine of time segments, at least", "Beyond the channels, at least") if in_segments else ()),
        "R²",
        "Inside the bars",
        "Rows",
    )
    words = note("Methods that are exact, or show their own error bars, are judged by the gap alone; bounds are one-sided, 95 %.")
    return join(table(header, rows, numbers=range(3, len(header))), words) if rows else EMPTY


def calibration(found: Outcome) -> Html:
    """The rows that ranges of integer activations came from."""
    chosen = [(report.name, facts) for report in found.reports if (facts := (report.facts or {}).get("calibration"))]
    rows = [
        (name, told["rows"], told["available"], told["unusable"], told["extremes"], told["inputs_covered"], told["constant_inputs"])
        for name, told in chosen
    ]
    if not rows:
        return EMPTY
    header = ("Variant", "Rows taken", "Available", "Unusable", "With an extreme", "Inputs whose both ends are covered", "Constant inputs")
    strata = chosen[0][1]["strata"]
    listed = table(("Stratum", "Rows"), list(strata.items())[:20], numbers=(1,), caption=f"Taken from each stratum ({chosen[0][0]})")
    more = note(f"{len(strata) - 20} further strata are not shown.") if len(strata) > 20 else EMPTY
    return join(table(header, rows, numbers=range(1, 7)), listed if strata else EMPTY, more)


def mixed(found: Outcome) -> Html:
    """What keeping layers float cost."""
    sizes = {report.name: report.size_bytes for report in found.reports}
    rows = []
    for report in found.reports:
        facts = report.facts or {}
        kept = facts.get("float_layers")
        if "quantized_layers" not in facts:
            continue
        source = report.name.partition("-")[0] + "-fp32"
        share = percent(report.size_bytes / sizes[source]) if sizes.get(source) else ABSENT
        rows.append((report.name, facts["quantized_layers"], ", ".join(kept or []) or "none", size(report.size_bytes), share))
    if not rows:
        return EMPTY
    return table(("Variant", "Layers reduced", "Layers kept float", "Size", "Of the fp32 file"), rows, numbers=(1, 3, 4))


def estimates(document: dict[str, Any]) -> Html:
    """Every variant of the bundle on every device profile: estimates."""
    rows = []
    for variant in document["variants"]:
        told = {estimated["profile"]: estimated for estimated in variant["estimates"]}
        if variant["kept"] and told:
            memory = next(iter(told.values()))["memory_bytes"]
            cells = [_estimated(told.get(name)) for name in PROFILES]
            rows.append((variant["name"], "not known" if memory is None else f"about {size(memory)}", *cells))
    header = ("Variant", "Memory, estimate", *(f"{name} (x {profile.cpu_factor:g})" for name, profile in PROFILES.items()))
    lead = "p95 of one row, estimated: this machine's time times the factor, right within about a factor of two. Measure on the device."
    return join(table(header, rows, numbers=range(1, len(header))), note(lead)) if rows else EMPTY


def _estimated(told: dict[str, Any] | None) -> str:
    if told is None:
        return ABSENT
    return "does not fit" if told["misfit"] else f"about {time_ms(told['latency_p95_ms'])}"


def host(found: Outcome) -> Html:
    """Where it was measured."""
    return pairs([(name.replace("_", " "), number(value) if isinstance(value, int) else str(value)) for name, value in found.host.items()])
