"""The model card, filled from facts only: what is not recorded is said to be not recorded, never described in general words."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from edgefleet.report.markup import Html
from edgefleet.report.numbers import between, interval, number
from edgefleet.report.page import Section, page
from edgefleet.report.parts import banner, chip, pairs, paragraph, table
from trainer.report import run_report
from trainer.report.record import RunRecord, in_order, read_record

ABSENT: Final = "Not recorded."
_Rows = list[tuple[object, ...]]


def card_markdown(record: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        record: Plain values, `trainer.report.record.RunRecord`.

    Raises:
        ArtifactError: A field has the wrong type.
    """
    told = read_record(record)
    lines = [f"# Model card: {_plain(_title(told))}", ""]
    for title, header, rows in _parts(told):
        lines += [f"## {title}", "", *_markdown_table(header, rows), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def card_html(record: Mapping[str, Any]) -> str:
    """The card as one HTML file, the same facts as the Markdown one.

    Raises:
        ArtifactError: A field has the wrong type.
    """
    told = read_record(record)
    sections = []
    for title, header, rows in _parts(told):
        body = _table(header, rows) if header else pairs([(str(name), value) for name, value in rows])
        sections.append(Section(title, body if rows else paragraph(ABSENT)))
    top = banner(told.verdict or "no verdict", run_report.why(told))
    return page(f"Model card: {_title(told)}", sections, top=top)


def _table(header: Sequence[str], rows: _Rows) -> Html:
    numbers = [i for i in range(len(header)) if all(isinstance(row[i], int | float) for row in rows)]
    shown = [tuple(chip(str(cell)) if header[i] == "Verdict" else cell for i, cell in enumerate(row)) for row in rows]
    return table(header, shown, numbers=numbers)


def _title(told: RunRecord) -> str:
    name = told.project or str(told.goal.get("name") or "model")
    return f"{name}, {told.winner}" if told.winner else name


def _parts(told: RunRecord) -> list[tuple[str, tuple[str, ...], _Rows]]:
    """(title, header, rows); a part without a header holds pairs."""
    metrics = [
        (split, name, number(m.value), between(m.low, m.high), m.n)
        for split in in_order(told.metrics)
        for name, m in told.metrics[split].items()
    ]
    slices = [(f"{s.column} = {s.name}" if s.column else s.name, number(s.value), between(s.low, s.high), s.n) for s in told.slices]
    gates = [(gate.verdict, gate.gate, gate.sentence) for gate in told.judged]
    robust = [(item.kind, number(item.value), number(item.drop)) for item in told.robustness]
    return [
        ("What it is for", (), _purpose(told)),
        ("Data", (), _data(told)),
        ("Metrics", ("Split", "Metric", "Value", "95 % interval", "n"), list(metrics)),
        ("Slices", ("Slice", "Value", "95 % interval", "n"), list(slices)),
        ("Calibration", (), _calibration(told)),
        ("Robustness", ("Disturbance", told.metric or "Metric", "Drop"), list(robust)),
        ("Gates", ("Verdict", "Gate", "Why"), list(gates)),
        ("Overrides", ("Gate", "Reason"), [(o.gate, o.reason) for o in told.overrides] or [("none", "No gate was overruled.")]),
        (
            "What went wrong",
            ("Row", "True", "Answered", "Score"),
            [(e.row_id, e.label, e.answer, number(e.score)) for e in told.errors[:5]],
        ),
        ("Where it comes from", (), [(name, str(value)) for name, value in run_report.flatten(told.provenance)]),
        ("Do it again", (), [("Command", told.reproduce)] if told.reproduce else []),
    ]


def _purpose(told: RunRecord) -> _Rows:
    rows: _Rows = [("Question", told.question or ABSENT), ("Task", told.task or ABSENT), ("Criterion", told.criterion)]
    rows.append(("Verdict", told.verdict or ABSENT))
    chosen = told.chosen
    if chosen is not None and chosen.value is not None:
        rows.append(("Reached", f"{told.metric} {interval(chosen.value, chosen.low, chosen.high)} on {number(chosen.n)} validation rows"))
    if told.threshold is not None and told.threshold.value is not None:
        rows.append(("Decision threshold", number(told.threshold.value)))
    return rows


def _data(told: RunRecord) -> _Rows:
    what = told.data
    if what.rows is None:
        return []
    rows: _Rows = [
        ("Source", what.source or ABSENT),
        ("Rows", number(what.rows)),
        ("Rows that break the schema, left out", number(what.breaches)),
    ]
    rows += [("Inputs", number(what.inputs))] if what.inputs is not None else []
    rows += [(f"Rows for {split}", number(what.splits[split])) for split in in_order(what.splits)]
    rows += [("Digest", what.digest)] if what.digest else []
    return rows


def _calibration(told: RunRecord) -> _Rows:
    found = told.calibration
    if found is None:
        return []
    figures = (
        ("Expected calibration error", found.ece),
        ("Spiegelhalter's z", found.z),
        ("Slope", found.slope),
        ("Intercept", found.intercept),
    )
    return [(name, number(value)) for name, value in figures]


def _markdown_table(header: Sequence[str], rows: _Rows) -> list[str]:
    if not rows:
        return [ABSENT]
    if not header:
        return [f"- **{_plain(row[0])}**: {_plain(row[1])}" for row in rows]
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return lines + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(value: object) -> str:
    """Text that Markdown takes literally, on one line."""
    words = " ".join(str(value if value is not None else "–").split())  # noqa: RUF001  # the dash of an empty cell
    for sign in ("\\", "|", "<", "*", "_", "`", "["):
        words = words.replace(sign, f"\\{sign}")
    return words
