"""The report of one run: one HTML file, goal and verdict first, from one record of plain values."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import between, duration, interval, number
from edgefleet.report.page import Section, page, write_page
from edgefleet.report.parts import banner, chip, code, note, pairs, paragraph, table
from trainer.report import answers, choice
from trainer.report.record import GateNote, RunRecord, in_order, read_record

# The order in which verdicts matter: what stops the run stands first.
_ORDER: Final = ("fail", "inconclusive", "overridden", "pass", "skipped")


def write_run_report(record: Mapping[str, Any], path: Path) -> Path:
    """Write the report of a run.

    Args:
        record: Plain values, `trainer.report.record.RunRecord`; what is absent is named at the end of the report.
        path: Of the HTML file; its folder is made.

    Returns:
        The path.

    Raises:
        ArtifactError: A field has the wrong type.
    """
    return write_page(path, run_page(read_record(record)))


def run_page(record: RunRecord) -> Html:
    """The report as HTML."""
    bodies = [(title, body(record)) for title, body in _sections()]
    sections = [Section(title, body) for title, body in bodies if body]
    absent = [title.lower() for title, body in bodies if not body and title != "Overrides"]
    sections.append(Section("Do it again", _again(record, absent)))
    subtitle = " · ".join(part for part in (record.id and f"run {record.id}", _began(record.started_at), _took(record)) if part)
    return page(f"{record.project or record.goal.get('name') or 'Run'}: run report", sections, top=goal(record), subtitle=subtitle)


def _sections() -> list[tuple[str, Callable[[RunRecord], Html]]]:
    """Titles and bodies, in the order of the report."""
    return [
        ("Gates", all_gates),
        ("Data", data),
        ("Candidates", choice.candidates),
        ("Search", choice.search),
        ("Metrics of the winner", answers.metrics),
        ("Slices", answers.slices),
        ("Calibration", answers.calibration),
        ("Decision threshold", answers.threshold),
        ("Confusion", answers.confusion),
        ("Residuals", answers.residuals),
        ("Training curve", answers.curve),
        ("Errors, one by one", answers.errors),
        ("Importance of inputs", answers.importance),
        ("Robustness", answers.robustness),
        ("Budgets of the device", choice.budgets),
        ("Overrides", overrides),
        ("Provenance", lambda record: provenance(record.provenance)),
    ]


def goal(record: RunRecord) -> Html:
    """The goal, then the verdict."""
    chosen = record.chosen
    asked = pairs(
        [
            ("Question", record.question or "not recorded"),
            ("Criterion", record.criterion),
            ("Task", record.task or "not recorded"),
            *([("Winner", f"{chosen.name}: {record.metric} {interval(chosen.value, chosen.low, chosen.high)}")] if chosen else []),
        ]
    )
    return join(
        Html(f'<section class="card" aria-label="Goal"><h2>Goal</h2>{asked}</section>'), banner(record.verdict or "no verdict", why(record))
    )


def why(record: RunRecord) -> str:
    """The verdict in one sentence."""
    if record.reason:
        return record.reason
    stops = [gate for gate in record.judged if gate.verdict in ("fail", "inconclusive")]
    if stops:
        return f"{stops[0].gate} is {stops[0].verdict}: {stops[0].sentence}"
    judged = any(gate.verdict == "pass" for gate in record.judged)
    return "every gate that was judged passed." if judged else "no reason is recorded."


def _began(started_at: str) -> str:
    """An ISO time in UTC to the minute; another text as it is."""
    is_utc = started_at.endswith(("Z", "+00:00")) and len(started_at) >= len("2026-01-02T03:04Z")
    return f"began {started_at[:10]} {started_at[11:16]} UTC" if is_utc else started_at


def _took(record: RunRecord) -> str:
    return "" if record.seconds is None else f"took {duration(record.seconds)}"


def all_gates(record: RunRecord) -> Html:
    """The gates of the rows or of the winner; where nobody won, those of every candidate."""
    if record.judged:
        return gates(record.judged)
    every = [(candidate.name, candidate.gates) for candidate in record.candidates if candidate.gates]
    return join(*(piece for name, judged in every for piece in (element("h3", text(name)), gates(judged))))


def gates(judged: Sequence[GateNote]) -> Html:
    """Gates with sentences, those that stop the run first."""
    if not judged:
        return EMPTY
    rank = {verdict: i for i, verdict in enumerate(_ORDER)}
    ordered = sorted(judged, key=lambda gate: rank.get(gate.verdict, 0))
    rows = [
        (chip(gate.verdict), gate.gate, gate.value, gate.limit, gate.n or None, between(gate.low, gate.high), gate.sentence)
        for gate in ordered
    ]  # fmt: skip
    return table(("Verdict", "Gate", "Value", "Limit", "n", "Judged bounds", "Why"), rows, numbers=(2, 3, 4, 5))


def data(record: RunRecord) -> Html:
    """What the rows were."""
    what = record.data
    if what.rows is None and not what.source:
        return EMPTY
    splits = ", ".join(f"{name} {number(what.splits[name])}" for name in in_order(what.splits))
    items: list[tuple[str, object]] = [("Source", what.source or "not recorded")]
    items += [("Rows that obey the schema", what.rows), ("Rows left out", what.breaches)]
    items += [("Inputs", what.inputs)] if what.inputs is not None else []
    items += [("Splits", f"{splits} (by {what.method})" if what.method else splits)] if splits else []
    items += [("Groups", what.groups)] if what.groups is not None else []
    items += [("Rows an answer needs", what.window_rows)] if what.window_rows > 1 else []
    items += [("Digest", what.digest)] if what.digest else []
    named = [note(f"Left out: {'; '.join(what.named_breaches[:5])}.")] if what.named_breaches else []
    return join(pairs(items), *named, _classes(what.classes))


def _classes(classes: Mapping[str, Mapping[str, int]]) -> Html:
    if not classes:
        return EMPTY
    splits = in_order({split for counts in classes.values() for split in counts})
    rows = [(name, *(counts.get(split, 0) for split in splits)) for name, counts in list(classes.items())[:30]]
    more = note(f"{len(classes) - 30} further classes are not shown.") if len(classes) > 30 else EMPTY
    return join(table(("Class", *splits), rows, numbers=range(1, len(splits) + 1), caption="Rows by class"), more)


def overrides(record: RunRecord) -> Html:
    """Gates that a person overruled; they stay with the package."""
    if not record.overrides:
        return EMPTY
    return table(("Gate", "Reason"), [(join(chip("overridden"), Html(f" {gate.gate}")), gate.reason) for gate in record.overrides])


def provenance(values: Mapping[str, Any]) -> Html:
    """Plain values, nested ones with dots."""
    flat = flatten(values)
    return pairs([(name, _said(value)) for name, value in flat]) if flat else EMPTY


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def flatten(values: Mapping[str, Any], prefix: str = "", most: int = 120) -> list[tuple[str, Any]]:
    """(dotted name, value) of nested plain values, at most `most`; the settings (`project`) are left out: the run keeps them.

    >>> flatten({"versions": {"numpy": "2.0"}, "seed": 0})
    [('versions.numpy', '2.0'), ('seed', 0)]
    """
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found += flatten(value, f"{prefix}{name}.") if f"{prefix}{name}" != "project" else []
        elif value is not None and value not in ("", [], {}):
            found.append((f"{prefix}{name}", value))
    return found[:most]


def _again(record: RunRecord, absent: Sequence[str]) -> Html:
    line = code(record.reproduce) if record.reproduce else paragraph("No command line is recorded.")
    missing = note(f"Not in this run's record, therefore not shown: {', '.join(absent)}.") if absent else EMPTY
    return join(line, missing)
