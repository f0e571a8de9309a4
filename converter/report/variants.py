"""The report's first tables: what each class of devices should take, and every variant with its costs and answers."""

from collections.abc import Sequence
from typing import Any

from converter.figures import Outcome
from converter.profiles import PROFILES
from converter.report.pareto_chart import Mark, pareto_chart
from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import ABSENT, duration, size
from edgefleet.report.parts import chip, table


def devices(found: Outcome) -> Html:
    """What each class of devices should take, and why."""
    rows = []
    for proposal in found.proposals:
        estimated = proposal.estimate
        rows.append(
            (
                proposal.device_class.title,
                element("b", text(proposal.variant)) if proposal.variant else "none",
                why(proposal.reason),
                found.explained.get(proposal.variant, "no") if proposal.variant else "",
                "" if estimated is None else f"about {duration(estimated.latency_p95_ms / 1e3)}",
                "" if estimated is None else f"about {size(estimated.memory_bytes)}" if estimated.memory_bytes is not None else "not known",
                PROFILES[proposal.device_class.profile].title,
            )
        )
    return table(("Device class", "Take", "Why", "Explained by", "p95, estimate", "Memory, estimate", "Estimated for"), rows)


def why(sentence: str) -> Html:
    """A sentence in a cell that is never squeezed to a column of words: the table scrolls instead."""
    return element("div", text(sentence), class_="why")


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
            *(time_ms(variant[name]) for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "batch_row_ms")),
            ABSENT if variant["value"] is None else f"{variant['value']:.4f}",
            _paired(variant),
        )
        for variant in listed
    ]
    change = "Rises by, %" if metric == "rmse" else "Drops by, points"
    header = ("Verdict", "Variant", "Front", "Size", "p50", "p95", "p99", "A row in a batch", metric, f"{change} (95 % interval)")
    return table(header, rows, numbers=range(3, 10), caption="Size, latency, metric")


def _paired(variant: dict[str, Any]) -> str:
    if variant["drop"] is None:
        return "not known" if variant["rows"] else ABSENT
    value, low, high = (100 * variant[name] for name in ("drop", "drop_low", "drop_high"))
    return f"{value:.2f} ({low:.2f} to {high:.2f})".replace("-", "\u2212")


def time_ms(value: float | None) -> str:
    """Milliseconds for people."""
    return duration(None if value is None else value / 1e3)


def _answers(ran: Sequence[dict[str, Any]]) -> Html:
    rows = [
        (
            variant["name"],
            _same(variant),
            variant["rows"],
            _error(variant["max_error"]),
            _error(variant["mean_error"]),
            size(variant["memory_peak_bytes"]),
            time_ms(variant["cold_start_ms"]),
            variant["explained"] or ABSENT,
        )
        for variant in ran
    ]
    header = ("Variant", "Same answer (95 %)", "Rows", "Largest error", "Mean error", "Peak memory", "Cold start", "Explained by")
    return table(header, rows, numbers=range(1, 7), caption="Answers, memory, start") if rows else EMPTY


def _same(variant: dict[str, Any]) -> str:
    if variant["agreement"] is None:
        return ABSENT
    share, low, high = (100 * variant[name] for name in ("agreement", "agreement_low", "agreement_high"))
    return f"{share:.2f}\u00a0% ({low:.2f} to {high:.2f})"


def _error(value: float | None) -> str:
    """Two digits and a power of ten: errors of different precisions are orders of magnitude apart."""
    return ABSENT if value is None else f"{value:.1e}".replace("e-0", "e\u2212").replace("e+00", "")
