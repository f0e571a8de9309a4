"""Size against latency of every variant that ran: the shape says whether it is on the front, label and colour what the metric loses."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.report.markup import Html, element, join, text
from edgefleet.report.numbers import duration, size
from edgefleet.report.svg import Scale, around, at, figure, label, legend, path

WIDTH: Final = 720.0
HEIGHT: Final = 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 16.0, 28.0, 40.0
_SIGN: Final = 6.3  # width of an average sign of the 11 px type
_LINE: Final = 13.0

State = Literal["front", "beaten", "refused"]


@dataclass(frozen=True)
class Mark:
    """One variant.

    Attributes:
        name: Shown beside the mark.
        size_bytes: Across.
        latency_ms: Up: median of one row.
        state: On the front, in the bundle but beaten, or refused.
        worse: Whether the metric was lower than the original's; None where the rows do not say.
        loss: The metric's drop in words.
    """

    name: str
    size_bytes: float
    latency_ms: float
    state: State
    worse: bool | None
    loss: str


def pareto_chart(marks: Sequence[Mark]) -> Html:
    """The plot, both axes logarithmic; marks without a finite place are left out."""
    marks = [mark for mark in marks if mark.size_bytes > 0 and 0 < mark.latency_ms < math.inf]
    x = Scale(*_limits([mark.size_bytes for mark in marks]), _LEFT, WIDTH - _RIGHT, log=True)
    y = Scale(*_limits([mark.latency_ms for mark in marks]), HEIGHT - _BOTTOM, _TOP, log=True)
    pieces = _axes(x, y)
    taken = [(x(mark.size_bytes) - 6, y(mark.latency_ms) - 6, x(mark.size_bytes) + 6, y(mark.latency_ms) + 6) for mark in marks]
    order = sorted(marks, key=lambda mark: (mark.state != "front", mark.size_bytes))
    # Leads from names to marks lie under the marks.
    pieces += [piece for mark in order for piece in _name(mark, x(mark.size_bytes), y(mark.latency_ms), taken)]
    for mark in order:
        tip = element("title", text(_tip(mark)))
        pieces.append(element("path", tip, d=_shape(mark.state, x(mark.size_bytes), y(mark.latency_ms)), class_=_look(mark)))
    drawn = figure("Size, latency and metric", join(*pieces), _says(marks), width=WIDTH, height=HEIGHT, legend=_legend(marks), wide=True)
    return element("div", drawn, class_="plot")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """With room on both sides for marks; a single value gets a decade."""
    low, high = around(values, log=True)
    if high < 2 * low:
        middle = math.sqrt(low * high)
        return middle / 2, middle * 2
    return low / 1.15, high * 1.15


def _ticks(scale: Scale) -> list[float]:
    """1, 2 and 5 of each power of ten, thinned until at most eight are left."""
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [value for value in found if scale.low <= value <= scale.high]
        if len(inside) <= 8:
            return inside
    return inside[:: math.ceil(len(inside) / 8)]


def _axes(x: Scale, y: Scale) -> list[Html]:
    pieces = []
    for value in _ticks(y):
        pieces += [
            path(f"M{at(x.start)} {at(y(value))}H{at(x.end)}", "rule"),
            label(x.start - 6, y(value) + 4, duration(float(f"{value / 1e3:.3g}")), "end quiet"),
        ]
    pieces.append(path(f"M{at(x.start)} {at(y.start)}H{at(x.end)}", "axis"))
    for value in _ticks(x):
        pieces += [
            path(f"M{at(x(value))} {at(y.start)}v4", "axis"),
            label(x(value), y.start + 16, size(round(value)), "mid quiet"),
        ]
    pieces.append(label(x.end, y.start + 33, "size of the graph, logarithmic", "end"))
    pieces.append(label(2, 12, "median time of one row on the converting machine, logarithmic"))
    return pieces


def _shape(state: State, x: float, y: float) -> str:
    """A filled circle on the front, a ring beside it, a cross for refused ones."""
    if state == "refused":
        return f"M{at(x - 4.5)} {at(y - 4.5)}l9 9m0 -9l-9 9"
    if state == "front":
        return f"M{at(x - 5)} {at(y)}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0"
    return f"M{at(x - 4)} {at(y)}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0"


def _look(mark: Mark) -> str:
    """Solid strokes: the dashes of a chart's second line would eat a ring."""
    if mark.state == "refused":
        return "lx"
    if mark.state == "front":
        return "f1" if mark.worse else "f0"
    return "r1" if mark.worse else "l0"


def _name(mark: Mark, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> list[Html]:
    """The name and the loss in one line at the nearest free place around the mark; the tooltip has them where none is free."""
    words = f"{mark.name} {mark.loss}".strip()
    width = len(words) * _SIGN
    for step in range(6):
        for down in (0,) if step == 0 else (-step, step):
            for css, place in (("name", x + 9), ("end name", x - 9)):
                left = place if css == "name" else place - width
                baseline = y + 4 + down * _LINE
                box = (left, baseline - 9, left + width, baseline + 3)
                inside = box[0] >= _LEFT + 2 and box[2] <= WIDTH - 4 and box[1] >= _TOP - 8 and box[3] <= HEIGHT - _BOTTOM - 2
                if not inside or any(_overlap(box, other) for other in taken):
                    continue
                taken.append(box)
                edge = place - 2 if css == "name" else place + 2
                lead = [path(f"M{at(x)} {at(y)}L{at(edge)} {at(baseline - 4)}", "axis")] if step else []
                return [*lead, label(place, baseline, words, css)]
    return []


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _tip(mark: Mark) -> str:
    state = {"front": "on the front", "beaten": "in the bundle", "refused": "refused"}[mark.state]
    return f"{mark.name}: {size(mark.size_bytes)}, {duration(mark.latency_ms / 1e3)}, {mark.loss}, {state}"


def _legend(marks: Sequence[Mark]) -> Html:
    samples: list[tuple[str, Html]] = []
    kinds = {(mark.state, bool(mark.worse)) for mark in marks}
    words = {"front": "on the Pareto front", "beaten": "in the bundle, beaten by another", "refused": "refused"}
    for state in ("front", "beaten", "refused"):
        for worse in (False, True):
            if (state, worse) not in kinds or (state == "refused" and worse and (state, False) in kinds):
                continue
            sample = Mark("", 1, 1, state, worse, "")
            metric = "" if state == "refused" else ", metric lower" if worse else ", metric not lower"
            samples.append((words[state] + metric, path(_shape(state, 9, 5), _look(sample))))
    return legend(samples)


def _says(marks: Sequence[Mark]) -> str:
    return "; ".join(_tip(mark) for mark in marks) + "."
