"""Sections of the data report that look for trouble: leakage, copies, shift, missing values, inputs that say the same."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.report.bars import categories
from edgefleet.report.heat import heat
from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import number, percent
from edgefleet.report.parts import chip, grid, note, paragraph, table
from trainer.dataset import SPLITS
from trainer.report.associations import rank_correlations
from trainer.report.copies import count_copies, missing_together
from trainer.report.findings import Findings
from trainer.report.shift import time_effects

MOST_CELLS = 30
_DATES_FROM_S: Final = 315_532_800.0  # 1980
_DATES_TO_S: Final = 32_503_680_000.0  # 3000


def leaks(found: Findings) -> Html:
    """Which input alone nearly is the label."""
    suspects = [item for item in found.told if item.suspect]
    names = ", ".join(found.names[item.column] for item in suspects)
    said = f"None of {len(found.names)} inputs tells the label alone."
    if suspects:
        said = f"{len(suspects)} of {len(found.names)} inputs nearly are the label: {names}. Would they be known when the answer is needed?"
    shown = found.told[: max(10, len(suspects[:30]))]
    rows = [(found.names[item.column], item.measure, item.value, item.by, chip("suspect") if item.suspect else EMPTY) for item in shown]
    return join(
        paragraph(said), table(("Input", "Measure", "Value", "Told by", ""), rows, numbers=(2,), caption=f"The strongest {len(shown)}")
    )


def copies(found: Findings) -> Html:
    """Rows that are there more than once."""
    copies = count_copies(found.rows)
    rows = [
        (f"{b} rows that also stand in {a}", count, percent(count / max(1, int((found.rows.split == b).sum()))))
        for (a, b), count in copies.across.items()
    ]
    rows += [
        (f"{name} rows that repeat another {name} row", count, percent(count / int((found.rows.split == name).sum())))
        for name, count in copies.within.items()
    ]
    bad = sum(count for (a, _), count in copies.across.items() if a == "train")
    said = (
        f"{number(bad)} validation and test rows have the very inputs of a training row."
        if bad
        else "No validation or test row has the inputs of a training row."
    )
    also = f" {number(copies.contradicting)} rows have inputs that stand there with another label too." if copies.contradicting else ""
    return join(paragraph(said + also), table(("Rows", "Count", "Share"), rows, numbers=(1, 2)))


def shifts(found: Findings) -> Html:
    """Which inputs differ most between splits."""
    if not found.shifts:
        return paragraph("There are too few rows of one split to compare.")
    sure = sum(shift.p < 0.05 for shift in found.shifts)
    said = paragraph(
        f"{sure} of {len(found.shifts)} comparisons differ beyond chance (adjusted p below 0.05); "
        f"the largest effect is {number(found.shifts[0].effect)}."
    )
    shown = found.shifts[:12]
    rows = [
        (
            found.names[s.column],
            s.split,
            s.effect,
            "below 0.001" if s.p < 0.001 else number(s.p),
            chip("shifted") if s.p < 0.05 else EMPTY,
        )
        for s in shown
    ]
    return join(said, table(("Input", "Split", "Effect", "p", ""), rows, numbers=(2, 3), caption=f"The largest {len(shown)}"))


def over_time(found: Findings) -> Html:
    """Which inputs wander with time; empty without a time column."""
    if found.rows.time is None or len(found.rows) < 200:
        return EMPTY
    time = found.rows.time[found.some]
    effects, ends = time_effects(found.last[found.some], time, found.is_category)
    worst = np.nan_to_num(effects, nan=0.0).max(axis=1)
    order = np.argsort(-worst, kind="stable")[:20]
    columns = moments(ends)[1:-1]
    says = f"The largest change is {found.names[order[0]]}, effect {number(float(worst[order[0]]))}."
    chart = heat("Effect against the first eighth of the rows", [found.names[i] for i in order], columns, effects[order].tolist(),
                 column_label="span of time begins at", says=says)  # fmt: skip
    return join(paragraph(f"{says} Seven later spans of equally many rows are compared with the first."), grid(chart))


def moments(times_s: NDArray[np.float64]) -> list[str]:
    """Times as a chart names them: dates where they are seconds since 1970 (all after 1980), else numbers.

    >>> moments(np.array([1.6e9, 1.7e9])), moments(np.array([29.0, 59.0]))
    (['2020-09-13', '2023-11-14'], ['29', '59'])
    """
    if times_s.min() < _DATES_FROM_S or times_s.max() >= _DATES_TO_S:
        return [number(float(time)) for time in times_s]
    digits = len("2020-09-13") if np.ptp(times_s) > 30 * 86_400 else len("2020-09-13 12:26")
    return [datetime.fromtimestamp(float(time), UTC).isoformat(" ")[:digits] for time in times_s]


def missing(found: Findings) -> Html:
    """How much is missing, where, and what is missing together."""
    share = np.isnan(found.last).mean(axis=0)
    if not share.any():
        return paragraph("No value is missing.")
    order = [int(i) for i in np.argsort(-share, kind="stable") if share[i]][:20]
    by_split = {name: np.isnan(found.last[found.rows.split == name]).mean(axis=0) for name in SPLITS if (found.rows.split == name).any()}
    chart = categories(
        "Missing by split", [found.names[i] for i in order], [(name, [float(s[i]) for i in order]) for name, s in by_split.items()]
    )
    sample = found.last[found.some]
    together = [(names, percent(count / len(sample))) for names, count in missing_together(sample, found.names)]
    return grid(chart, table(("Missing together", "Share of rows"), together, numbers=(1,)))


def correlation(found: Findings) -> Html:
    """How number inputs go together."""
    numbers = [item.column for item in found.told if not found.is_category[item.column]]
    shown = sorted(numbers[:MOST_CELLS])
    if len(shown) < 2:
        return EMPTY
    matrix = rank_correlations(found.last[found.some][:, shown])
    names = [found.names[i] for i in shown]
    above = [(abs(matrix[i, j]), i, j) for i in range(len(shown)) for j in range(i) if np.isfinite(matrix[i, j])]
    strongest = sorted(above, reverse=True)[:8]
    says = (
        f"The strongest pair is {names[strongest[0][1]]} and {names[strongest[0][2]]}, {number(float(matrix[strongest[0][1:]]))}."
        if strongest
        else "No pair varies."
    )
    lead = note(
        f"The {len(shown)} of {len(numbers)} number inputs that tell most about the label."
        if len(numbers) > len(shown)
        else "All number inputs."
    )
    chart = heat("Rank correlation (Spearman)", names, names, matrix.tolist(), figures=len(shown) <= 20, says=says)
    pairs_ = table(
        ("Strongest pairs", "", "Correlation"), [(names[i], names[j], float(matrix[i, j])) for _, i, j in strongest], numbers=(2,)
    )
    return join(lead, paragraph(says), *((chart, pairs_) if len(shown) > 12 else (grid(chart, pairs_),)))
