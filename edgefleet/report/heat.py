"""Heat maps: correlation (two signs) and confusion (one)."""

import math
from collections.abc import Sequence

from edgefleet.report.markup import Html, element, join, text
from edgefleet.report.numbers import number
from edgefleet.report.svg import WIDTH, at, figure, label, name_width, short

_DARK = 0.66  # opacity from which a cell's figure is written in the surface's colour


def heat(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    shades: Sequence[Sequence[float]] | None = None,
    figures: bool = True,
    row_label: str = "",
    column_label: str = "",
    says: str = "",
) -> Html:
    """Cells shaded by value: accent for positive, orange for negative, both by strength.

    Args:
        title: Of the chart.
        rows: Row names.
        columns: Column names, written upright where they are too long for a cell.
        values: [rows][columns], shown in tooltips and, with `figures`, in the cells; NaN is left blank.
        shades: [rows][columns] in [-1, 1]; the values by default.
        figures: Whether values are written into the cells.
        row_label: What rows are.
        column_label: What columns are.
        says: The chart in words.
    """
    shades = values if shades is None else shades
    wide = len(columns) > 12
    width = 860.0 if wide else float(WIDTH)
    left = name_width([*rows, row_label], 200 if wide else 120)
    side = min(64.0, (width - left - 8) / max(1, len(columns)))
    tall = min(side, 26.0) if wide else min(side, 34.0)
    upright = max((len(name) for name in columns), default=0) * 6.2 > side - 4
    top = (name_width(columns, 130) if upright else 16.0) + (16 if column_label else 0)
    pieces = [label(left, 11, column_label)] if column_label else []
    pieces += [label(left - 6, top - 5, row_label, "end")] if row_label else []
    # Names of cells smaller than the type would lie over each other: every so-many-th is shown, the tooltips have all.
    each_column, each_row = math.ceil(12 / side), math.ceil(12 / tall)
    for j, name in enumerate(columns):
        if j % each_column:
            continue
        x = left + side * (j + 0.5)
        if upright:
            words = text(short(name, 120))
            pieces.append(element("text", words, transform=f"translate({at(x + 4)} {at(top - 4)}) rotate(-90)", class_="name"))
        else:
            pieces.append(label(x, top - 5, name, "mid name"))
    for i, name in enumerate(rows):
        y = top + tall * i
        pieces += [label(left - 6, y + tall / 2 + 4, short(name, left - 8), "end name")] if i % each_row == 0 else []
        for j, value in enumerate(values[i]):
            pieces += _cell(left + side * j, y, side, tall, value, shades[i][j], f"{name}, {columns[j]}", figures)
    return figure(
        title, join(*pieces), says or f"{len(rows)} by {len(columns)} cells.", width=width, height=top + tall * len(rows) + 6, wide=wide
    )


def _cell(x: float, y: float, side: float, tall: float, value: float, shade: float, name: str, figures: bool) -> list[Html]:
    if not math.isfinite(value):
        return []
    strength = min(1.0, abs(shade)) if math.isfinite(shade) else 0.0
    tip = element("title", text(f"{name}: {number(value)}"))
    box = {"x": at(x), "y": at(y), "width": at(side - 1.5), "height": at(tall - 1.5), "fill_opacity": f"{0.04 + 0.96 * strength:.2f}"}
    pieces = [element("rect", tip, class_="f0" if shade >= 0 else "f1", **box)]
    if figures and side >= 20:
        pieces.append(label(x + side / 2 - 0.75, y + tall / 2 + 4, _figure(value), "mid on" if strength > _DARK else "mid name"))
    return pieces


def _figure(value: float) -> str:
    """At most two decimals: more digits of a small share would reach into the next cell; the tooltip has them."""
    rounded = round(value, 2)
    return number(rounded, 1 if abs(rounded) < 0.1 else 2)
