"""The page at `/`: what this device is doing, made here, without a script, and with nothing to load. Every value is escaped."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Final

from device_agent.doors.http.counters import Counts
from device_agent.doors.http.page_style import STYLE
from device_agent.scorer import Scorer
from edgefleet import __version__
from edgefleet.manifest import Input

REFRESH_S: Final = 10
SHOWN_INPUTS: Final = 24
_BRAND: Final = (
    '<svg width="18" height="18" viewBox="0 0 18 18" aria-hidden="true"><path fill="#3AA583" d="M2 10h6v6H2z"/>'
    '<path fill="#3F86E0" d="M10 10h6v6h-6z"/><path fill="none" stroke="#868D98" stroke-width="1.4" d="M10.7 2.7h4.6v4.6h-4.6z"/></svg>'
)
_REASONS: Final = {
    "count": "Number of values",
    "type": "Kind of value",
    "missing": "Missing value",
    "infinite": "Infinite value",
    "range": "Out of range",
    "category": "Unknown category",
    "tensor": "Tensor that cannot be read",
    "shape": "Shape or names",
    "malformed": "Request that cannot be read",
    "body-size": "Body too large",
    "elements": "Too many values",
    "no-model": "No model",
    "runtime": "The model failed",
    "internal": "The door failed",
}


def render_page(counts: Counts, scorer: Scorer | None, version: str, facts: Mapping[str, str], uptime_s: float) -> str:
    """The whole document."""
    now = datetime.now(UTC)
    title = scorer.bundle.manifest.project if scorer else "No model yet"
    parts = [
        _verdict(scorer, version),
        _figures(counts, uptime_s),
        _card("Device", _facts(facts)) if facts else "",
        '<div class="two">',
        _card("Model", _facts(_model(scorer, version)) if scorer else "<p>Nothing is installed.</p>"),
        _card("Rejected", _rejected(counts)),
        "</div>",
        _inputs(scorer) if scorer else "",
        _asking(scorer) if scorer else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)} · edgefleet device</title><style>{STYLE}</style></head><body>"
        f'<header><span class="brand">{_BRAND}edgefleet</span><span class="crumb">Device</span>'
        f'<time datetime="{now.isoformat(timespec="seconds")}">As of {now:%H:%M:%S} UTC</time></header>'
        f'<main><h1>{escape(title)}</h1><p class="sub">What this device is doing. The page renews itself every {REFRESH_S} s.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _verdict(scorer: Scorer | None, version: str) -> str:
    if scorer is None:
        chip, text = '<span class="chip t-silent">Waiting</span>', "No model is installed yet. Rows are refused with 503."
    else:
        chip = '<span class="chip t-ok">Scoring</span>'
        text = f"Answers with variant {scorer.variant.name} of version {version}: {scorer.chosen_because}."
    return f'<section class="card verdict">{chip}<p class="sentence">{escape(text)}</p></section>'


def _figures(counts: Counts, uptime_s: float) -> str:
    rejected = sum(counts.rejected.values())
    since = f"rows in {_duration(uptime_s)}"
    figures = [
        ("Offered", f"{counts.offered:,}", since),
        ("Scored", f"{counts.scored:,}", _share(counts.scored, counts.offered)),
        ("Rejected", f"{rejected:,}", _share(rejected, counts.offered)),
        ("Shed", f"{counts.shed:,}", _share(counts.shed, counts.offered)),
        ("Latency p95", _milliseconds(counts.quantile_ms(0.95)), f"p50 {_milliseconds(counts.quantile_ms(0.5))}, per request"),
    ]
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd><dd>{note}</dd></div>" for name, value, note in figures)
    return f'<dl class="card figures">{cells}</dl>'


def _model(scorer: Scorer, version: str) -> dict[str, str]:
    manifest = scorer.bundle.manifest
    return {
        "Task": manifest.task,
        "Version": version,
        "Variant": f"{scorer.variant.name} ({scorer.variant.runtime})",
        "Inputs": f"{len(manifest.inputs)}" + (f", windows of {manifest.window_rows} rows" if manifest.window_rows > 1 else ""),
        "Classes": ", ".join(manifest.classes[:12]) + (" ..." if len(manifest.classes) > 12 else "") or "none",
        "Explains": scorer.variant.explain_method or "no" if scorer.can_explain else "no",
        "Bundle": scorer.bundle.digest[:16],
        "Model": scorer.digest[:16],
    }


def _rejected(counts: Counts) -> str:
    if not counts.rejected:
        return "<p>No row was rejected.</p>"
    rows = [(_REASONS.get(reason, reason), f"{count:,}") for reason, count in counts.rejected.most_common()]
    return _table(("Reason", "Rows"), rows, numbers=(1,))


def _inputs(scorer: Scorer) -> str:
    inputs = scorer.bundle.manifest.inputs
    rows = [(column.name, _accepts(column), "may be missing" if column.missing else "") for column in inputs[:SHOWN_INPUTS]]
    more = f'<p class="note">{len(inputs) - SHOWN_INPUTS} more inputs.</p>' if len(inputs) > SHOWN_INPUTS else ""
    return _card("Inputs", _table(("Name", "Accepts", ""), rows) + more)


def _accepts(column: Input) -> str:
    unit = f" {column.unit}" if column.unit else ""
    if column.kind == "category":
        return "one of " + ", ".join(column.categories[:6]) + (" ..." if len(column.categories) > 6 else "")
    if column.low is None and column.high is None:
        return f"a number{unit and f' ({column.unit})'}"
    low = "any" if column.low is None else f"{column.low:g}"
    high = "any" if column.high is None else f"{column.high:g}"
    outside = {"reject": "else refused", "clip": "else clipped", "count": "else counted"}[column.range_policy]
    return f"{low} to {high}{unit}, {outside}"


def _asking(scorer: Scorer) -> str:
    name = escape(scorer.bundle.manifest.project)
    links = " · ".join(
        f'<a href="{path}">{text}</a>'
        for path, text in (("/v2", "server"), (f"/v2/models/{name}", "model"), ("/metrics", "metrics"), ("/openapi.json", "OpenAPI"))
    )
    return _card("Asking", f"<p>Open Inference Protocol v2 and MLflow's <code>/invocations</code>: {links}</p>") + _footer()


def _footer() -> str:
    return f'<p class="note">edgefleet {escape(__version__)}</p>'


def _card(title: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{content}</section>'


def _facts(facts: Mapping[str, str]) -> str:
    return '<dl class="facts">' + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()) + "</dl>"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], numbers: tuple[int, ...] = ()) -> str:
    def cell(tag: str, i: int, text: str) -> str:
        kind = ' class="num"' if i in numbers else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(heads))
    body = "".join("<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} of offered" if whole else "none offered yet"


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "none yet"
    return "> 10 s" if value == float("inf") else f"≤ {value:g} ms"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
