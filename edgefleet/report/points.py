"""Points: scatter plots, and dots with whiskers."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import interval, number
from edgefleet.report.svg import WIDTH, Scale, around, at, axes, figure, label, legend, name_width, path, plot_scales, polyline, short, tick

_ROW = 20.0
MAX_TIPS = 300  # points of a series beyond which they are one path without tooltips


@dataclass(frozen=True)
class Points:
    """One series of points.

    Attributes:
        name: For the legend.
        x: Values.
        y: Values.
        tips: Tooltips, or empty.
        joined: Whether a stepped line joins them, as on a Pareto front.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    tips: Sequence[str] = ()
    joined: bool = False


def scatter(
    title: str,
    series: Sequence[Points],
    x_label: str,
    y_label: str,
    *,
    diagonal: bool = False,
    log_x: bool = False,
    level: float | None = None,
) -> Html:
    """Points over two axes.

    Args:
        title: Of the chart.
        series: Up to three.
        x_label: Quantity with its unit.
        y_label: The same.
        diagonal: Both axes have the same limits and y = x is drawn.
        log_x: Logarithmic x; points at or below 0 are left out.
        level: A horizontal line there, or None.
    """
    series = [_finite(part, log_x) for part in series[:3]]
    x_limits = around([value for part in series for value in part.x], log=log_x)
    y_limits = around([value for part in series for value in part.y] + ([] if level is None else [level]))
    if diagonal:
        x_limits = y_limits = (min(x_limits[0], y_limits[0]), max(x_limits[1], y_limits[1]))
    x, y = plot_scales(x_limits, y_limits, log_x=log_x)
    pieces = [axes(x, y, x_label, y_label)]
    if diagonal:
        pieces.append(path(f"M{at(x.start)} {at(y.start)}L{at(x.end)} {at(y.end)}", "diagonal"))
    if level is not None:
        pieces.append(path(f"M{at(x.start)} {at(y(level))}H{at(x.end)}", "diagonal"))
    pieces += [_marks(part, i, x, y) for i, part in enumerate(series)]
    named = legend([(part.name, path(_mark(9, 5, i), f"f{i}")) for i, part in enumerate(series)]) if len(series) > 1 else EMPTY
    says = "; ".join(f"{part.name}: {len(part.x)} points" for part in series)
    return figure(title, join(*pieces), f"{says}.", legend=named)


def _finite(part: Points, log_x: bool) -> Points:
    keep = [i for i, (x, y) in enumerate(zip(part.x, part.y, strict=True)) if abs(x) < 1e300 and abs(y) < 1e300 and (x > 0 or not log_x)]
    tips = [part.tips[i] for i in keep] if part.tips else ()
    return Points(part.name, [part.x[i] for i in keep], [part.y[i] for i in keep], tips, part.joined)


def _marks(part: Points, index: int, x: Scale, y: Scale) -> Html:
    across, up = [x(value) for value in part.x], [y(value) for value in part.y]
    pieces = []
    if part.joined:
        order = sorted(range(len(across)), key=across.__getitem__)
        pieces.append(path(polyline([across[i] for i in order], [up[i] for i in order]), f"l{index}"))
    look = f"f{index} faint" if len(across) > 40 else f"f{index}"
    if part.tips and len(across) <= MAX_TIPS:
        marks = zip(across, up, part.tips, strict=True)
        pieces += [element("path", element("title", text(tip)), d=_mark(a, b, index), class_=look) for a, b, tip in marks]
    else:
        pieces.append(path("".join(_mark(a, b, index) for a, b in zip(across, up, strict=True)), look))
    return join(*pieces)


def _mark(x: float, y: float, index: int) -> str:
    """Circle, diamond, square: the shape names the series without its colour."""
    if index == 0:
        return f"M{at(x - 2.5)} {at(y)}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0"
    return f"M{at(x - 4)} {at(y)}l4 -4l4 4l-4 4z" if index == 1 else f"M{at(x - 2.5)} {at(y - 2.5)}h5v5h-5z"


@dataclass(frozen=True)
class Dot:
    """A value with its interval.

    Attributes:
        name: Row name.
        value: The value, or None: not known.
        low: Lower end, or None.
        high: Upper end, or None.
        note: Quiet text at the right, as n.
        bad: Drawn in the colour of a failed gate, with a cross.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    bad: bool = False


def intervals(title: str, items: Sequence[Dot], value_label: str, *, limit: float | None = None, limit_name: str = "limit") -> Html:
    """Dots with whiskers, one a row, against a limit."""
    left, right = name_width([item.name for item in items], 200), name_width([item.note for item in items], 90)
    height = len(items) * _ROW + 54
    ends = [end for item in items for end in (item.value, item.low, item.high) if end is not None]
    x = Scale(*around(ends + ([] if limit is None else [limit])), left, WIDTH - right)
    foot = height - BOTTOM_ROOM
    pieces = [path(f"M{at(x.start)} {at(foot)}H{at(x.end)}", "axis")]
    for value in x.ticks(4):
        pieces += [path(f"M{at(x(value))} 16V{at(foot)}", "rule"), label(x(value), foot + 14, tick(value), "mid quiet")]
    if limit is not None:
        turned = "limit end" if x(limit) > (x.start + x.end) / 2 else "limit"
        pieces += [path(f"M{at(x(limit))} 15V{at(foot)}", "limit"), label(x(limit), 11, f"{limit_name} {number(limit)}", turned)]
    for i, item in enumerate(items):
        pieces += _dot(item, i * _ROW + 26, x, left)
    pieces.append(label(x.end, height - 5, value_label, "end"))
    says = "; ".join(f"{item.name} {interval(item.value, item.low, item.high)}" for item in items[:20])
    return figure(title, join(*pieces), f"{says}.", height=height)


BOTTOM_ROOM = 36.0


def _dot(item: Dot, y: float, x: Scale, left: float) -> list[Html]:
    pieces = [label(left - 6, y + 4, short(item.name, left - 6), "end name"), label(x.end + 8, y + 4, item.note, "quiet")]
    look = "x" if item.bad else "0"
    if item.low is not None and item.high is not None:
        pieces.append(
            path(
                f"M{at(x(item.low))} {at(y)}H{at(x(item.high))}M{at(x(item.low))} {at(y - 3)}v6M{at(x(item.high))} {at(y - 3)}v6",
                f"l{look}",
            )
        )
    if item.value is not None:
        a = x(item.value)
        if item.bad:
            pieces.append(path(f"M{at(a - 4)} {at(y - 4)}l8 8m0 -8l-8 8", "lx"))
        else:
            circle = element("title", text(f"{item.name}: {interval(item.value, item.low, item.high)}"))
            pieces.append(element("circle", circle, cx=at(a), cy=at(y), r="3.5", class_=f"f{look}"))
    return pieces
