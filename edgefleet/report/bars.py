"""Bars and histograms."""

from collections.abc import Sequence

from edgefleet.report.markup import EMPTY, Html, join, text
from edgefleet.report.numbers import number, percent
from edgefleet.report.svg import HEIGHT, WIDTH, Scale, at, axes, figure, label, legend, name_width, path, plot_scales, rect, short

_ROW = 20.0


def bars(title: str, items: Sequence[tuple[str, float, float | None, float | None]], value_label: str, says: str = "") -> Html:
    """Horizontal bars from 0 with optional whiskers.

    Args:
        title: Of the chart.
        items: (name, value, low, high), in order from the top; low and high are the interval's ends or None.
        value_label: What the length is, with its unit.
        says: The chart in words; the largest bar when empty.
    """
    left = name_width([item[0] for item in items], 150)
    height = len(items) * _ROW + 28
    ends = [end for _, value, low, high in items for end in (value, low, high) if end is not None]
    least, most = min(0.0, *ends, 0.0), max(0.0, *ends, 0.0)
    x = Scale(least, most if most > least else 1.0, left, WIDTH - 50)
    pieces = [path(f"M{at(x(0))} 2V{at(height - 24)}", "axis")]
    for i, (name, value, low, high) in enumerate(items):
        y = i * _ROW + 4
        pieces += [label(left - 6, y + 12, short(name, left - 6), "end name")]
        pieces.append(rect(min(x(0), x(value)), y + 2, abs(x(value) - x(0)), 12, "f0 faint", f"{name}: {number(value)}"))
        reach = x(value)
        if low is not None and high is not None:
            pieces.append(path(f"M{at(x(low))} {at(y + 8)}H{at(x(high))}m0 -3v6M{at(x(low))} {at(y + 5)}v6", "axis"))
            reach = max(reach, x(high))
        pieces.append(label(max(reach, x(0)) + 5, y + 12, number(value)))
    pieces.append(label(WIDTH - 50, height - 6, value_label, "end"))
    if not says and items:
        top = max(items, key=lambda item: item[1])
        says = f"{len(items)} bars, the largest {top[0]} with {number(top[1])}."
    return figure(title, join(*pieces), says, height=height)


def histogram(
    title: str,
    edges: Sequence[float],
    series: Sequence[tuple[str, Sequence[float]]],
    x_label: str,
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
) -> Html:
    """Shares of rows by bin: the first series as an area, up to two further ones as lines over it.

    Args:
        title: Of the chart.
        edges: [bins + 1] ascending.
        series: (name, [bins] shares of that series' rows).
        x_label: Quantity with its unit.
        width: Of the view box.
        height: Of the view box.
    """
    most = max((share for _, shares in series for share in shares), default=0.0)
    x, y = plot_scales((edges[0], edges[-1]), (0.0, most * 1.05 or 1.0), width=width, height=height)
    pieces = [outline(x, y, edges, shares, i) for i, (_, shares) in enumerate(series[:3])]
    body = join(axes(x, y, short(x_label, width - 70), "share of rows"), *pieces)
    return figure(title, body, _says(series, edges), width=width, height=height, legend=series_legend([name for name, _ in series[:3]]))


def outline(x: Scale, y: Scale, edges: Sequence[float], shares: Sequence[float], index: int) -> Html:
    """The steps of one series: filled for the first, a line for the others."""
    steps = "".join(f"L{at(x(edges[i]))} {at(y(share))}H{at(x(edges[i + 1]))}" for i, share in enumerate(shares))
    if index == 0:
        return path(f"M{at(x(edges[0]))} {at(y.start)}{steps}V{at(y.start)}Z", "fb")
    return path(f"M{at(x(edges[0]))} {at(y.start)}{steps}V{at(y.start)}", f"l{index - 1}")


def series_legend(names: Sequence[str]) -> Html:
    """Names of up to three series as `histogram` draws them; nothing for one."""
    if len(names) < 2:
        return EMPTY
    marks = [rect(0, 1, 18, 8, "fb"), *(path("M0 5H18", f"l{i}") for i in range(2))]
    return legend(list(zip(names, marks, strict=False)))


def sparkline(edges: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], says: str) -> Html:
    """A histogram without axes, for a table's cell."""
    most = max((share for _, shares in series for share in shares), default=0.0)
    x, y = Scale(edges[0], edges[-1], 0, 140), Scale(0, most or 1.0, 31, 1)
    body = join(*(outline(x, y, edges, shares, i) for i, (_, shares) in enumerate(series[:3])))
    return Html(f'<svg width="140" height="32" viewBox="0 0 140 32" role="img" aria-label="{text(says)}">{body}</svg>')


def categories(
    title: str,
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    width: float = WIDTH,
    value_label: str = "share of rows",
) -> Html:
    """Grouped horizontal bars: for each category one bar a series.

    Args:
        title: Of the chart.
        names: Categories, from the top.
        series: Up to three of (name, [categories] shares).
        width: Of the view box.
        value_label: What the length is.
    """
    series = series[:3]
    left = name_width(names, 130)
    row = 7.0 * len(series) + 8
    height = len(names) * row + 22
    most = max((share for _, shares in series for share in shares), default=0.0)
    x = Scale(0.0, most or 1.0, left, width - 52)
    looks = ("fb", "f0", "f1")
    pieces = [path(f"M{at(left)} 2V{at(len(names) * row + 2)}", "axis")]
    for i, name in enumerate(names):
        pieces.append(label(left - 6, i * row + row / 2 + 4, short(name, left - 6), "end name"))
        for k, (part, shares) in enumerate(series):
            y = i * row + 4 + 7 * k
            pieces.append(rect(left, y, x(shares[i]) - left, 6, looks[k], f"{name}, {part}: {percent(shares[i])}"))
        pieces.append(label(x(max(shares[i] for _, shares in series)) + 5, i * row + row / 2 + 4, percent(series[0][1][i]), "quiet"))
    pieces.append(label(width - 12, height - 6, f"{value_label}; figures: {series[0][0]}" if series else value_label, "end"))
    marks = [rect(0, 2, 18, 6, look) for look in looks]
    named = legend(list(zip([name for name, _ in series], marks, strict=False))) if len(series) > 1 else EMPTY
    says = "; ".join(f"{name} {percent(series[0][1][i])}" for i, name in enumerate(names[:12])) if series else ""
    return figure(title, join(*pieces), f"{says}.", width=width, height=height, legend=named)


def _says(series: Sequence[tuple[str, Sequence[float]]], edges: Sequence[float]) -> str:
    words = []
    for name, shares in series:
        if any(shares):
            i = max(range(len(shares)), key=shares.__getitem__)
            words.append(f"{name}: most rows, {percent(shares[i])}, from {number(edges[i])} to {number(edges[i + 1])}")
    return "; ".join(words) + "."
