"""The tables that `edgefleet convert` prints: what each variant costs and loses, how it answers, what each class of devices should take."""

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from converter.figures import Outcome, as_document
from converter.recipes import RECIPES
from edgefleet.report.table import table

_WIDTH: Final = 110


def outcome_text(found: Outcome) -> str:
    """All tables of a conversion, with the reasons of what was refused."""
    document = as_document(found)
    variants = document["variants"]
    parts = [_costs(variants), _answers(variants), _reasons(variants), _budgets(variants), _proposals(found)]
    return "\n\n".join(part for part in parts if part)


def targets_text(possible: Sequence[tuple[str, str | None]]) -> str:
    """Which targets a package can have: a line each, and why others are impossible, equal reasons together."""
    rows = [[name, RECIPES[name].runtime, RECIPES[name].source or "the model", _said(name, reason)] for name, reason in possible]
    listed = table(["target", "runtime", "made from", "possible"], rows)
    why: dict[str, list[str]] = {}
    for name, reason in possible:
        if reason is not None:
            why.setdefault(reason, []).append(name)
    reasons = [_wrapped(f"{', '.join(names)}: {reason}") for reason, names in why.items()]
    return "\n\n".join([listed, *(["Not possible:\n" + "\n".join(reasons)] if reasons else [])])


def _said(name: str, reason: str | None) -> str:
    if reason is not None:
        return "no"
    return "yes" if RECIPES[name].by_default else "yes, when it is named"


def _costs(variants: Sequence[dict[str, Any]]) -> str:
    """The Pareto table: size x latency x metric."""
    metric = next((variant["metric"] for variant in variants if variant["metric"]), None) or "metric"
    original = next((variant["value_original"] for variant in variants if variant["value_original"] is not None), None)
    drop = "rise, % [95 %]" if metric == "rmse" else "drop, points [95 %]"
    header = ["variant", "front", "size", "p50 ms", "p95 ms", "p99 ms", "batch ms/row", metric, drop, "verdict"]
    rows = [
        [
            variant["name"],
            "*" if variant["on_front"] else "",
            bytes_text(variant["size_bytes"] or None),
            *(_ms(variant[f"latency_{quantile}_ms"]) for quantile in ("p50", "p95", "p99")),
            _ms(variant["batch_row_ms"]),
            "-" if variant["value"] is None else f"{variant['value']:.4f}",
            _drop(variant),
            variant["verdict"] if variant["kept"] else f"refused: {variant['verdict']}",
        ]
        for variant in variants
    ]
    known = "" if original is None else f"; the trained model's {metric} is {original:.4f}"
    compared = "no other is smaller, faster and as good (c is measured otherwise and compared with no graph)"
    legend = f"* on the Pareto front: {compared}. Latencies were measured on this machine{known}."
    return f"{table(header, rows)}\n{_wrapped(legend, '')}"


def _answers(variants: Sequence[dict[str, Any]]) -> str:
    ran = [variant for variant in variants if variant["agreement"] is not None or variant["cold_start_ms"] is not None]
    header = ["variant", "same answer [95 %]", "rows", "max error", "mean error", "peak memory", "cold start ms", "explained"]
    rows = [
        [
            variant["name"],
            _agreement(variant),
            variant["rows"],
            _error(variant["max_error"]),
            _error(variant["mean_error"]),
            bytes_text(variant["memory_peak_bytes"]),
            "-" if variant["cold_start_ms"] is None else f"{variant['cold_start_ms']:.0f}",
            variant["explained"] or "-",
        ]
        for variant in ran
    ]
    return table(header, rows) if rows else ""


def _reasons(variants: Sequence[dict[str, Any]]) -> str:
    return "\n".join(_wrapped(f"{variant['name']}: {variant['reason']}") for variant in variants if variant["reason"])


def _budgets(variants: Sequence[dict[str, Any]]) -> str:
    """One line a variant, one column a budget."""
    judged = [variant for variant in variants if variant["budgets"]]
    if not judged:
        return ""
    # All variants are held against the same budgets.
    header = [f"{budget['name']}, limit {_amount(budget['limit'], budget)} ({_basis(budget)})" for budget in judged[0]["budgets"]]
    rows = [[variant["name"], *(f"{_amount(b['value'], b)} {b['verdict']}" for b in variant["budgets"])] for variant in judged]
    return table(["budgets", *header], rows)


def _basis(budget: dict[str, Any]) -> str:
    if budget["profile"]:
        return f"estimate for {budget['profile']}"
    return "counted" if budget["name"] == "size" else "measured here"


def _amount(value: float | None, budget: dict[str, Any]) -> str:
    if value is None:
        return "-"
    return f"{value:.4g} ms" if budget["unit"] == "ms" else bytes_text(value)


def _proposals(found: Outcome) -> str:
    rows = []
    for proposal in found.proposals:
        estimated = proposal.estimate
        rows.append(
            [
                proposal.device_class.title,
                proposal.variant or "none",
                "-" if proposal.variant is None else "yes" if proposal.explained else "no",
                "-" if estimated is None else f"~{_ms(estimated.latency_p95_ms)}",
                "-" if estimated is None else f"~{bytes_text(estimated.memory_bytes)}",
                proposal.device_class.profile,
            ]
        )
    listed = table(["device class", "take", "explained", "p95 ms (estimate)", "memory (estimate)", "estimated for"], rows)
    return "\n".join([listed, *(_wrapped(f"{proposal.device_class.title}: {proposal.reason}") for proposal in found.proposals)])


def _wrapped(line: str, indent: str = "    ") -> str:
    return textwrap.fill(line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def bytes_text(value: float | None) -> str:
    """Decimal units in plain letters.

    >>> [bytes_text(value) for value in (812, 15_632, 70_000_000, None)]
    ['812 B', '15.6 kB', '70 MB', '-']
    """
    if value is None:
        return "-"
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _agreement(variant: dict[str, Any]) -> str:
    if variant["agreement"] is None:
        return "-"
    return f"{100 * variant['agreement']:.2f} % [{100 * variant['agreement_low']:.2f}, {100 * variant['agreement_high']:.2f}]"


def _drop(variant: dict[str, Any]) -> str:
    if variant["drop"] is None:
        return "unknown" if variant["rows"] else "-"
    return f"{100 * variant['drop']:+.2f} [{100 * variant['drop_low']:+.2f}, {100 * variant['drop_high']:+.2f}]"
