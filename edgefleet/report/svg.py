"""What every chart shares: scales, ticks, axes, and the figure around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import number

WIDTH: Final = 400
HEIGHT: Final = 230
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 10.0, 36.0
_SIGN_WIDTH: Final = 6.4  # of an average sign of the 11 px type, in a wide system font


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic scale from values to places.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Place of `low`, in SVG units.
        end: Place of `high`.
        log: Logarithmic; values must be over 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Place of a value; values outside are put on the edge."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = math.log10(max(value, self.low)) if self.log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """About `count` round values within the scale.

        >>> Scale(0.0, 4e-14, 0, 1).ticks(4)
        [0.0, 1e-14, 2e-14, 3e-14, 4e-14]
        """
        if self.log:
            powers = range(math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9) + 1)
            tens = [10.0**power for power in powers]
            return tens[:: max(1, len(tens) // count)] if len(tens) > 1 else [self.low, self.high]
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Sequence[float], *, zero: bool = False, log: bool = False) -> tuple[float, float]:
    """Limits that hold all finite values with some room; (0, 1) where there is none."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not finite:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(finite), max(finite)
    if log:
        return low / 1.3, high * 1.3
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return (low if zero and low == 0 else low - room), (high if zero and high == 0 else high + room)


def at(value: float) -> str:
    """A coordinate, one decimal.

    >>> at(12.04), at(3.0)
    ('12', '3')
    """
    return f"{value:.1f}".removesuffix(".0")


def tick(value: float) -> str:
    """A tick's figure, without the zeros that `number` keeps for precision.

    >>> tick(0.25), tick(20000.0)
    ('0.25', '20,000')
    """
    written = number(value, 4)
    mantissa, e, exponent = written.partition("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa) + e + exponent


def label(x: float, y: float, words: str, css: str = "") -> Html:
    """Text at a place; `css` may hold `mid`, `end`, `name`, `quiet`."""
    return element("text", text(words), x=at(x), y=at(y), class_=css or None)


def rect(x: float, y: float, width: float, height: float, css: str, tip: str = "") -> Html:
    """A bar with a tooltip."""
    inside = element("title", text(tip)) if tip else EMPTY
    return element("rect", inside, x=at(x), y=at(y), width=at(max(0.0, width)), height=at(max(0.0, height)), class_=css)


def path(commands: str, css: str) -> Html:
    """A path."""
    return element("path", d=commands, class_=css)


def polyline(x: Sequence[float], y: Sequence[float]) -> str:
    """Path commands through points already in places; a point that is not finite breaks the line."""
    commands, pen = [], "M"
    for place_x, place_y in zip(x, y, strict=True):
        if math.isfinite(place_x) and math.isfinite(place_y):
            commands.append(f"{pen}{at(place_x)} {at(place_y)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(commands)


def axes(x: Scale, y: Scale, x_label: str, y_label: str, *, x_ticks: bool = True) -> Html:
    """Rules, tick labels and axis names; the y name stands above its axis, readable without turning."""
    pieces: list[Html] = []
    for value in y.ticks(4):
        pieces += [path(f"M{at(x.start)} {at(y(value))}H{at(x.end)}", "rule"), label(x.start - 6, y(value) + 4, tick(value), "end quiet")]
    pieces.append(path(f"M{at(x.start)} {at(y.start)}H{at(x.end)}", "axis"))
    for value in x.ticks(5) if x_ticks else []:
        pieces += [path(f"M{at(x(value))} {at(y.start)}v4", "axis"), label(x(value), y.start + 16, tick(value), "mid quiet")]
    pieces.append(label(x.end, y.start + 31, x_label, "end"))
    pieces.append(label(2, y.end - 8, y_label))
    return join(*pieces)


def plot_scales(
    x: tuple[float, float],
    y: tuple[float, float],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    log_x: bool = False,
    log_y: bool = False,
) -> tuple[Scale, Scale]:
    """Scales of a plot of the usual margins; y grows upwards."""
    across = Scale(*x, LEFT, width - RIGHT, log=log_x)
    return across, Scale(*y, height - BOTTOM, TOP + 14, log=log_y)


def figure(
    title: str, body: Html, says: str, *, width: float = WIDTH, height: float = HEIGHT, legend: Html = EMPTY, wide: bool = False
) -> Html:
    """A chart with its title.

    Args:
        title: Shown above.
        body: Inside of the SVG.
        says: The chart in words, for those who do not see it.
        width: Of the view box.
        height: Of the view box.
        legend: What the marks are.
        wide: Takes the page's whole width and scrolls inside itself on a narrow window.
    """
    drawing = element("svg", body, viewBox=f"0 0 {at(width)} {at(height)}", role="img", aria_label=f"{title}. {says}")
    caption = element("figcaption", text(title), legend)
    return element("figure", caption, drawing, class_="wide" if wide else None, tabindex="0" if wide else None)


def legend(items: Sequence[tuple[str, Html]]) -> Html:
    """Names of marks: (name, a mark drawn in a box of 18 x 10)."""
    marks = [
        element("li", Html(f'<svg width="18" height="10" viewBox="0 0 18 10" aria-hidden="true">{mark}</svg>'), text(name))
        for name, mark in items
    ]  # fmt: skip
    return element("ul", *marks, class_="legend")


def short(words: str, width: float) -> str:
    """Text cut to a width in SVG units, with an ellipsis.

    >>> short("temperature of the bearing", 64)
    'temperatu…'
    """
    most = max(1, int(width / _SIGN_WIDTH))
    return words if len(words) <= most else words[: most - 1] + "…"


def name_width(names: Sequence[str], most: float) -> float:
    """Room for row names left of a chart."""
    return min(most, max((len(name) for name in names), default=0) * _SIGN_WIDTH + 12)
