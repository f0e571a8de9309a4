"""Lines with bands: training curves, reliability, costs by threshold."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgefleet.report.markup import EMPTY, Html, join
from edgefleet.report.numbers import number
from edgefleet.report.svg import Scale, around, at, axes, figure, label, legend, path, plot_scales, polyline


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: For the legend.
        x: Values, ascending.
        y: Values; NaN breaks the line.
        low: Lower end of the band, or empty.
        high: Upper end, or empty.
        dots: Whether each point is marked.
        drawn: Whether the points are joined.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    dots: bool = False
    drawn: bool = True


def lines(
    title: str,
    series: Sequence[Line],
    x_label: str,
    y_label: str,
    *,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    diagonal: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> Html:
    """Up to three lines over one axis.

    Args:
        title: Of the chart.
        series: The lines.
        x_label: Quantity with its unit.
        y_label: The same.
        x_limits: Of the axis; around the values by default.
        y_limits: The same.
        diagonal: Draws y = x.
        marks: Vertical lines with a name: (x, name).
    """
    series = series[:3]
    x_limits = x_limits or _tight([value for line in series for value in line.x])
    y_limits = y_limits or around([value for line in series for value in (*line.y, *line.low, *line.high)])
    x, y = plot_scales(x_limits, y_limits)
    pieces = [axes(x, y, x_label, y_label)]
    if diagonal:
        pieces.append(path(f"M{at(x(x.low))} {at(y(x.low))}L{at(x(x.high))} {at(y(x.high))}", "diagonal"))
    for i, line in enumerate(series):
        pieces += _line(line, i, x, y)
    for value, name in marks:
        right = x(value) < (x.start + x.end) / 2
        pieces += [path(f"M{at(x(value))} {at(y.start)}V{at(y.end)}", "limit")]
        pieces.append(label(x(value) + (5 if right else -5), y.end + 8, name, "limit" if right else "limit end"))
    named = legend([(line.name, _sample(line, i)) for i, line in enumerate(series)]) if len(series) > 1 else EMPTY
    says = "; ".join(f"{line.name} from {number(line.y[0])} to {number(line.y[-1])}" for line in series if line.y)
    return figure(title, join(*pieces), f"{says}.", legend=named)


def _line(line: Line, index: int, x: Scale, y: Scale) -> list[Html]:
    across = [x(value) for value in line.x]
    pieces = []
    if len(line.low):
        there = [x(v) for v in line.x] + [x(v) for v in reversed(line.x)]
        back = [y(v) for v in line.high] + [y(v) for v in reversed(line.low)]
        pieces.append(path(polyline(there, back) + "Z", f"f{index} soft"))
    if line.drawn:
        pieces.append(path(polyline(across, [y(v) if v == v else v for v in line.y]), f"l{index}"))
    if line.dots:
        dots = "".join(
            f"M{at(a - 2.5)} {at(y(v))}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0" for a, v in zip(across, line.y, strict=True) if v == v
        )
        pieces.append(path(dots, f"f{index}"))
    return pieces


def _sample(line: Line, index: int) -> Html:
    """The line in the legend."""
    return path("M0 5H18", f"l{index}") if line.drawn else path("M6.5 5a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0", f"f{index}")


def _tight(values: Sequence[float]) -> tuple[float, float]:
    """Limits without room: a line may touch the ends of its x axis."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
