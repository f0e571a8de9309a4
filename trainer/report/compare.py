"""Runs side by side: verdicts, the goal's metric, every other metric, and the settings that differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgefleet.errors import InputError
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import duration, interval, number
from edgefleet.report.page import Section, page, write_page
from edgefleet.report.parts import chip, grid, note, paragraph, table
from edgefleet.report.points import Dot, intervals
from trainer.report.record import RunRecord, in_order, read_record
from trainer.report.run_report import flatten

MOST_RUNS = 8
_MOST_DIFFERENCES = 80


def write_comparison(records: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Write the comparison of two to eight runs.

    Args:
        records: Plain values, `trainer.report.record.RunRecord`, in the order of the columns.
        path: Of the HTML file; its folder is made.

    Returns:
        The path.

    Raises:
        InputError: Fewer than two runs or more than eight.
        ArtifactError: A record has a field of the wrong type.
    """
    if not 2 <= len(records) <= MOST_RUNS:
        raise InputError(f"{len(records)} runs cannot be put side by side; name 2 to {MOST_RUNS}")
    runs = [read_record(record) for record in records]
    names = _names(runs)
    sections = [
        Section("Verdicts", _verdicts(runs, names)),
        Section("Goal's metric", _goal_metric(runs, names)),
        Section("Metrics", _metrics(runs, names)),
        Section("Gates", _gates(runs, names)),
        Section("What differs", _differences(records, names), "Settings, data and versions; what is equal everywhere is left out."),
    ]
    return write_page(path, page("Runs compared", [part for part in sections if part.body], subtitle=", ".join(names)))


def _names(runs: Sequence[RunRecord]) -> list[str]:
    plain = [run.id or run.project or "run" for run in runs]
    return [f"{name} ({i})" if plain.count(name) > 1 else name for i, name in enumerate(plain, 1)]


def _verdicts(runs: Sequence[RunRecord], names: Sequence[str]) -> Html:
    rows = [
        (name, chip(run.verdict or "no verdict"), run.criterion, run.winner or None, run.reason, duration(run.seconds))
        for name, run in zip(names, runs, strict=True)
    ]
    return table(("Run", "Verdict", "Criterion", "Winner", "Why", "Time"), rows)


def _goal_metric(runs: Sequence[RunRecord], names: Sequence[str]) -> Html:
    metrics = {run.metric for run in runs}
    if len(metrics) > 1:
        return paragraph(f"The runs have different goals ({', '.join(sorted(metrics))}); their values are not put on one axis.")
    chosen = [(name, run.chosen) for name, run in zip(names, runs, strict=True)]
    dots = [Dot(f"{name}: {best.name}", best.value, best.low, best.high, f"n = {number(best.n)}") for name, best in chosen if best]
    if not dots:
        return EMPTY
    limit = runs[0].minimum if runs[0].minimum is not None else runs[0].maximum
    same = len({run.data.digest for run in runs}) == 1 and runs[0].data.digest
    said = "Overlapping intervals do not prove equality: gate G7 compares two models on the same rows." if same else (
        "The runs saw different rows, or did not record which: differences may come from the rows alone.")  # fmt: skip
    return join(
        grid(intervals(f"{runs[0].metric}, validation rows", dots, "95 % interval", limit=limit, limit_name="criterion")), note(said)
    )


def _metrics(runs: Sequence[RunRecord], names: Sequence[str]) -> Html:
    keys = list(dict.fromkeys((split, name) for run in runs for split in in_order(run.metrics) for name in run.metrics[split]))
    rows = []
    for split, name in keys:
        measures = [run.metrics.get(split, {}).get(name) for run in runs]
        rows.append((f"{name}, {split}", *(None if m is None else interval(m.value, m.low, m.high) for m in measures)))
    return table(("Metric (95 % interval)", *names), rows, numbers=range(1, len(names) + 1)) if rows else EMPTY


def _gates(runs: Sequence[RunRecord], names: Sequence[str]) -> Html:
    keys = sorted({gate.gate for run in runs for gate in run.judged}, key=lambda gate: (len(gate), gate))
    verdicts = [{gate.gate: gate.verdict for gate in run.judged} for run in runs]
    rows = [(key, *(chip(by[key]) if key in by else None for by in verdicts)) for key in keys]
    return table(("Gate", *names), rows) if rows else EMPTY


def _differences(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Html:
    """Every recorded setting that is not the same in all runs."""
    parts = ("goal", "data", "settings", "provenance", "environment", "versions", "seeds")
    flat = [dict(flatten({part: record[part] for part in parts if record.get(part)}, most=2000)) for record in records]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    differ = [key for key in keys if len({str(values.get(key)) for values in flat}) > 1]
    if not differ:
        return paragraph("No recorded setting, data digest or version differs.")
    rows = [(key, *(str(values[key]) if key in values else None for values in flat)) for key in differ[:_MOST_DIFFERENCES]]
    more = note(f"{len(differ) - len(rows)} further differences are not shown.") if len(differ) > len(rows) else EMPTY
    return join(table(("What", *names), rows), more)
