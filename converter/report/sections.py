"""The report's tables: variants, gates, budgets, devices, explanations, calibration rows, mixed precision."""

from collections.abc import Sequence
from typing import Any, Final

from converter.figures import Outcome
from converter.gates import Gate
from converter.profiles import CLASSES, PROFILES
from converter.report.pareto_chart import Mark, pareto_chart
from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import ABSENT, between, duration, number, percent, size
from edgefleet.report.parts import chip, note, pairs, paragraph, table

_MOST_SLICES: Final = 12


def devices(found: Outcome) -> Html:
    """What each class of devices should take, and why."""
    rows = []
    for proposal in found.proposals:
        estimated = proposal.estimate
        rows.append(
            (
                proposal.device_class.title,
                element("b", text(proposal.variant)) if proposal.variant else "none",
                "" if estimated is None else f"about {duration(estimated.latency_p95_ms / 1e3)}",
                "" if estimated is None else f"about {size(estimated.memory_bytes)}" if estimated.memory_bytes is not None else "not known",
                PROFILES[proposal.device_class.profile].title,
                proposal.reason,
            )
        )
    return table(("Device class", "Take", "p95, estimate", "Memory, estimate", "Estimated for", "Why"), rows)


def variants(document: dict[str, Any]) -> Html:
    """The plot, then cost and answers of every variant."""
    ran = [variant for variant in document["variants"] if variant["latency_p50_ms"] is not None]
    chart = pareto_chart([_mark(variant) for variant in ran]) if ran else EMPTY
    return join(chart, _costs(document["variants"]), _answers(ran))


def _mark(variant: dict[str, Any]) -> Mark:
    state = "refused" if not variant["kept"] else "front" if variant["on_front"] else "beaten"
    worse = None if variant["drop"] is None else variant["drop"] > 0
    return Mark(variant["name"], variant["size_bytes"], variant["latency_p50_ms"], state, worse, _lost(variant))  # type: ignore[arg-type]


def _lost(variant: dict[str, Any]) -> str:
    """The change of the metric as a word for the plot: minus is worse."""
    drop = variant["drop"]
    if drop is None:
        return ""
    if drop == 0:
        return "±0"
    sign = "\u2212" if drop > 0 else "+"
    if variant["metric"] == "rmse":
        sign = "+" if drop > 0 else "\u2212"
    return f"{sign}{abs(100 * drop):.2g} {_unit(variant)}"


def _unit(variant: dict[str, Any]) -> str:
    return "%" if variant["metric"] == "rmse" else "points"


def _costs(listed: Sequence[dict[str, Any]]) -> Html:
    metric = next((variant["metric"] for variant in listed if variant["metric"]), None) or "metric"
    rows = [
        (
            chip(variant["verdict"] if variant["kept"] else "refused"),
            variant["name"],
            "yes" if variant["on_front"] else "",
            size(variant["size_bytes"] or None),
            *(_time(variant[name]) for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "batch_row_ms")),
            ABSENT if variant["value"] is None else f"{variant['value']:.4f}",
            _paired(variant),
        )
        for variant in listed
    ]
    change = "Rises by" if metric == "rmse" else "Drops by"
    header = ("Verdict", "Variant", "Front", "Size", "p50", "p95", "p99", "A row in a batch", metric, f"{change} (95 %)")
    return table(header, rows, numbers=range(3, 10), caption="Size, latency, metric")


def _paired(variant: dict[str, Any]) -> str:
    if variant["drop"] is None:
        return "not known" if variant["rows"] else ABSENT
    value, low, high = (100 * variant[name] for name in ("drop", "drop_low", "drop_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f}) {_unit(variant)}".replace("-", "\u2212")


def _time(value: float | None) -> str:
    return duration(None if value is None else value / 1e3)


def _answers(ran: Sequence[dict[str, Any]]) -> Html:
    rows = [
        (
            variant["name"],
            _same(variant),
            variant["rows"],
            variant["max_error"],
            variant["mean_error"],
            size(variant["memory_peak_bytes"]),
            _time(variant["cold_start_ms"]),
            variant["explained"] or ABSENT,
        )
        for variant in ran
    ]
    header = ("Variant", "Same answer (95 %)", "Rows", "Largest error", "Mean error", "Peak memory", "Cold start", "Explained by")
    return table(header, rows, numbers=range(1, 7), caption="Answers, memory, start") if rows else EMPTY


def _same(variant: dict[str, Any]) -> str:
    if variant["agreement"] is None:
        return ABSENT
    return f"{percent(variant['agreement'])} ({percent(variant['agreement_low'])} to {percent(variant['agreement_high'])})"


def refused(found: Outcome) -> Html:
    """Why variants are not in the bundle, or what stays open."""
    rows = [
        (chip("refused" if not report.kept else report.verdict), report.name, report.reason) for report in found.reports if report.reason
    ]
    return table(("Verdict", "Variant", "Why"), rows) if rows else EMPTY


def declared_budgets(found: Outcome) -> Html:
    """The device's budgets against what each variant takes."""
    rows = [
        (
            chip(budget.verdict),
            report.name,
            budget.name,
            ABSENT if budget.value is None else _amount(budget.value, budget.unit),
            _amount(budget.limit, budget.unit),
            f"estimate for {budget.profile}" if budget.profile else "counted" if budget.name == "size" else "measured here",
        )
        for report in found.reports
        for budget in report.budgets
    ]
    if not rows:
        return paragraph("The project declares no budget in [device]: nothing is compared.")
    return table(("Verdict", "Variant", "Budget", "Value", "Limit", "The value is"), rows, numbers=(3, 4))


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
    return chip(gate.verdict), gate.gate, gate.value, gate.limit, gate.n, between(gate.low, gate.high), gate.sentence


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
        "R²",
        "Inside the bars",
        "Rows",
    )
    words = note("Methods that are exact, or show their own error bars, are judged by the gap alone; bounds are one-sided, 95 %.")
    return join(table(header, rows, numbers=range(3, 9)), words) if rows else EMPTY


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
    rows = [
        (
            profile.title,
            CLASSES[profile.device_class].title,
            f"{profile.cpu_factor:g} x",
            variant["name"],
            f"about {_time(told['latency_p50_ms'])}",
            f"about {_time(told['latency_p95_ms'])}",
            ABSENT if told["memory_bytes"] is None else f"about {size(told['memory_bytes'])}",
            told["misfit"] or "fits",
        )
        for profile in PROFILES.values()
        for variant in document["variants"]
        if variant["kept"]
        for told in variant["estimates"]
        if told["profile"] == profile.name
    ]
    header = ("Device", "Class", "Slower by", "Variant", "p50, estimate", "p95, estimate", "Memory, estimate", "Room")
    words = note("Times are this machine's times the factor, right within about a factor of two: measure on the device before you promise.")
    return join(table(header, rows, numbers=(2, 4, 5, 6)), words) if rows else EMPTY


def host(found: Outcome) -> Html:
    """Where it was measured."""
    return pairs([(name.replace("_", " "), number(value) if isinstance(value, int) else str(value)) for name, value in found.host.items()])
