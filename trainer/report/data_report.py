"""The data report: what the rows are, before any model sees them. One HTML file; above 50,000 rows the pictures come from a sample."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.report.bars import categories, histogram
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import number, percent
from edgefleet.report.page import Section, page, write_page
from edgefleet.report.parts import figures, grid, note, pairs, table
from trainer.dataset import SPLITS, DataSet
from trainer.project import Project
from trainer.report import data_checks
from trainer.report.findings import Findings, find

if TYPE_CHECKING:
    import pandas

MOST_CHARTS: Final = 24
MOST_CELLS: Final = 30


def write_data_report(project: Project, table: "pandas.DataFrame", rows: DataSet, path: Path) -> Path:
    """Write the data report.

    Args:
        project: Its goal stands first, its schema names the inputs.
        table: The table as it was read, for the columns that are no inputs.
        rows: The rows that obey the schema.
        path: Of the HTML file; its folder is made.

    Returns:
        The path.
    """
    found = find(project, rows)
    sections = [
        Section("Rows and splits", _rows(found, table)),
        Section("Label", _label(found)),
        Section(
            "Target leakage suspects",
            data_checks.leaks(found),
            "What one input alone tells about the label on training rows; above .98 it nearly is the label.",
        ),
        Section("Copies across splits", data_checks.copies(found)),
        Section("Shift between splits", data_checks.shifts(found), _SHIFT_LEAD),
        Section("Shift over time", data_checks.over_time(found)),
        Section("Inputs", _inputs(found), "Grey area: training rows; solid line: validation; dashed line: test."),
        Section("Distributions", _distributions(found)),
        Section("Missing values", data_checks.missing(found)),
        Section("Correlation", data_checks.correlation(found)),
        Section("Columns that are no inputs", _others(found, table)),
    ]
    kept = [part for part in sections if part.body]
    sampled = f"pictures, shift and correlation from a sample of {number(len(found.some))} rows" if len(found.some) < len(rows) else ""
    subtitle = " · ".join(part for part in (f"{number(len(rows))} rows", f"{len(project.inputs)} inputs", sampled) if part)
    return write_page(path, page(f"{project.name}: data report", kept, top=_goal(project), subtitle=subtitle))


_SHIFT_LEAD: Final = (
    "Effect: largest gap of the distribution functions (numbers) or Cramer's V (categories), 0 alike to 1 apart. "
    "p is adjusted for all comparisons (Holm) and takes rows as independent: with many rows small effects are certain, and need not matter."
)


def _goal(project: Project) -> Html:
    goal = project.goal
    limits = [
        f"{goal.metric} {word} {limit:g}" for word, limit in (("at least", goal.minimum), ("at most", goal.maximum)) if limit is not None
    ]
    criterion = " and ".join(limits) or "none declared: nothing is blessed"
    said = pairs([("Question", goal.question), ("Criterion", criterion), ("Task", goal.task)])
    return Html(f'<section class="card" aria-label="Goal"><h2>Goal</h2>{said}</section>')


def _rows(found: Findings, whole: "pandas.DataFrame") -> Html:
    rows = found.rows
    shown = [
        ("rows in the source", number(len(whole))),
        ("rows or windows used", number(len(rows))),
        ("rows that break the schema", number(rows.breaches)),
    ]
    shown += [("inputs", number(len(found.names))), ("columns in the source", number(len(whole.columns)))]
    parts = []
    for name in SPLITS:
        here = rows.split == name
        groups = [len(np.unique(rows.group[here]))] if rows.group is not None else []
        parts.append((name, int(here.sum()), percent(float(here.mean())), *groups))
    header = ("Split", "Rows", "Share", *(["Groups"] if rows.group is not None else []))
    named = [note(f"Left out: {'; '.join(rows.named_breaches[:5])}.")] if rows.named_breaches else []
    splits = found.project.data.splits
    drawn = f", seed {splits.seed}" if splits.method in ("random", "group") else ""
    method = f"column {found.project.data.split}" if splits.method == "column" else f"{splits.method}{drawn}"
    digest = [note(f"Digest of the rows: {rows.digest}.")] if rows.digest else []
    return join(figures(shown), table(header, parts, numbers=(1, 2, 3), caption=f"Splits by {method}"), *named, *digest)


def _label(found: Findings) -> Html:
    rows = found.rows
    if not rows.classes:
        values = rows.label.astype(np.float64)
        low, high = float(values.min()), float(values.max())
        edges = np.linspace(low, high, 25) if high > low else np.array([low - 0.5, low + 0.5])
        series = [(name, np.histogram(part, edges)[0] / len(part)) for name in SPLITS if len(part := values[rows.split == name])]
        chart = histogram(
            "Target", [float(e) for e in edges], [(name, [float(s) for s in shares]) for name, shares in series], found.project.data.label
        )
        header, moments = ("Split", "Rows", "Mean", "Deviation", "Least", "Largest"), []
        for name in SPLITS:
            if len(part := values[rows.split == name]):
                moments.append((name, len(part), float(part.mean()), float(part.std()), float(part.min()), float(part.max())))
        return grid(chart, table(header, moments, numbers=range(1, 6)))
    counts = {name: np.bincount(rows.label[rows.split == name], minlength=len(rows.classes)) for name in SPLITS}
    present = [name for name in SPLITS if counts[name].sum()]
    order = np.argsort(-sum(counts.values()), kind="stable")[:MOST_CELLS]
    names = [rows.classes[i] for i in order]
    chart = categories("Classes", names, [(name, [float(counts[name][i] / counts[name].sum()) for i in order]) for name in present])
    listed = table(
        ("Class", *present), [(rows.classes[i], *(int(counts[name][i]) for name in present)) for i in order], numbers=range(1, 4)
    )
    absent = [f"{rows.classes[i]} has no {name} row" for i in range(len(rows.classes)) for name in present if not counts[name][i]]
    return join(grid(chart, listed), note(f"{'; '.join(absent[:10])}.") if absent else EMPTY)


def _inputs(found: Findings) -> Html:
    effect = {shift.column: shift.effect for shift in reversed(found.shifts)}
    rows = []
    for i, declared in enumerate(found.project.inputs):
        values = found.last[:, i]
        known = values[np.isfinite(values)].astype(np.float64)
        gone = percent(1 - len(known) / len(values)) if len(values) else ""
        kind = f"{len(declared.categories)} categories" if declared.kind == "category" else declared.unit or "number"
        moments: list[Any] = (
            [None] * 4 if declared.kind == "category" or not len(known) else [known.min(), known.mean(), known.max(), known.std()]
        )
        rows.append(
            (
                declared.name,
                kind,
                *[None if m is None else float(m) for m in moments],
                gone,
                _breaking(declared, known),
                effect.get(i),
                found.drawn[i].small(),
            )
        )
    header = ("Input", "Unit or kind", "Least", "Mean", "Largest", "Deviation", "Missing", "Out of range", "Shift", "Distribution")
    return table(header, rows, numbers=range(2, 9))


def _breaking(declared: Any, known: NDArray[np.float64]) -> str:
    """Share of values outside the declared range."""
    if declared.low is None and declared.high is None:
        return "no range"
    low, high = (-np.inf if declared.low is None else declared.low), (np.inf if declared.high is None else declared.high)
    return percent(float(((known < low) | (known > high)).mean()) if len(known) else 0.0)


def _distributions(found: Findings) -> Html:
    first = list(dict.fromkeys([shift.column for shift in found.shifts] + list(range(len(found.names)))))
    shown = sorted(first[:MOST_CHARTS]) if len(first) <= MOST_CHARTS else first[:MOST_CHARTS]
    lead = note(f"The {MOST_CHARTS} inputs with the largest shift between splits, of {len(first)}.") if len(first) > MOST_CHARTS else EMPTY
    return join(lead, grid(*(found.drawn[i].chart() for i in shown), small=True))


def _others(found: Findings, whole: "pandas.DataFrame") -> Html:
    data = found.project.data
    roles: dict[str | None, str] = {
        data.label: "label",
        **({data.split: "split"} if data.splits.method == "column" else {}),
        data.id: "row name",
        data.group: "group",
        data.time: "time",
        data.weight: "weight",
        data.slice: "slice",
    }
    roles |= dict.fromkeys([*data.slices, *found.project.gates.fairness], "slice")
    inputs = set(found.names)
    others = [str(name) for name in whole.columns if str(name) not in inputs]
    rows = [(name, roles.get(name, "not used"), str(whole[name].dtype), int(whole[name].isna().sum())) for name in others[:60]]
    return table(("Column", "Role", "Type", "Missing"), rows, numbers=(3,)) if rows else EMPTY
