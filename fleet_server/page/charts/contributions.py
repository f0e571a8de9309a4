"""Why a model answered as it did: signed contributions as a heat map (two dimensions) or as bars.

Accent speaks for the answer, orange against it; strong cells also carry + or minus, so that colour is not needed. Intensity has five
steps of the largest contribution, which makes the map at most ten paths.
"""

from typing import Final

from markupsafe import Markup

from edgefleet.players import rows_back, segment_of_rows, strongest_when
from fleet_server.page.charts import Chart, path, picture, point, rect, table
from fleet_server.page.figures import signed
from fleet_server.read_models import ExplanationView

STEPS: Final = 5
MARK_FROM: Final = 3
MAX_SIDE: Final = 64
MAX_BARS: Final = 10
_MAP_PIXELS: Final = 208


def contributions(explanation: ExplanationView) -> Chart:
    """The picture that fits the shape of the row."""
    sides = [side for side in explanation.shape if side > 1]
    fits = len(sides) == 2 and sides[0] * sides[1] == len(explanation.contributions) and max(sides) <= MAX_SIDE
    says = spoken(explanation)
    named = [name + when for name, when in zip(explanation.names, _when(explanation), strict=True)]
    ranked = sorted(zip(named, explanation.contributions, strict=False), key=lambda pair: -abs(pair[1]))
    rows, left_out = table([(name, signed(value)) for name, value in ranked])
    svg = _map(explanation.contributions, sides[0], sides[1], says) if fits else _bars(ranked[:MAX_BARS], says)
    return Chart(svg, says, ("Input", "Contribution"), rows, left_out)


def spoken(explanation: ExplanationView) -> str:
    """The two inputs that spoke most for the answer and the one that spoke most against it."""
    ranked = sorted(zip(explanation.contributions, explanation.names, strict=False), key=lambda pair: -pair[0])
    for_it = [f"{name} ({signed(value)})" for value, name in ranked[:2] if value > 0]
    against = [f"{name} ({signed(value)})" for value, name in ranked[-1:] if value < 0]
    if not for_it and not against:
        return "No input moved this answer away from the base."
    said = f"{' and '.join(for_it)} spoke most for it" if for_it else "No input spoke for it"
    return said + (f", {against[0]} most against." if against else ", none against.")


def sums(explanation: ExplanationView) -> str:
    """Base, sum, margin, method and, when it is not nothing, the gap."""
    total = sum(explanation.contributions)
    gap = f", gap {signed(explanation.gap)}" if abs(explanation.gap) >= 0.005 else ""
    exact = "exact" if explanation.error is None or not any(explanation.error) else f"error up to \u00b1{max(explanation.error):.2f}"
    if explanation.method == "sampled" and explanation.error is None:
        exact = "error unknown"
    added = f"Base {signed(explanation.base)}, sum {signed(total)} = margin {signed(explanation.margin)}{gap}."
    return f"{added} Method {explanation.method}, {exact}, margin units."


def _when(explanation: ExplanationView) -> list[str]:
    """Of each input of a window in time segments, which rows did most of what it did; else nothing."""
    segments = explanation.segments
    if not segments or not explanation.shape or len(segments) > explanation.shape[0]:
        return [""] * len(explanation.names)
    back = rows_back(segment_of_rows(explanation.shape[0], len(segments)))
    return [f", {strongest_when(moved, back)}" for moved in zip(*segments, strict=True)]


def _map(values: list[float], rows: int, columns: int, says: str) -> Markup:
    pitch = _MAP_PIXELS / max(rows, columns)
    size = pitch - (2 if pitch > 8 else 0.5)
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    layers: dict[str, str] = {}
    marks = ""
    for i, value in enumerate(values):
        x, y = i % columns * pitch, i // columns * pitch
        step = round(STEPS * abs(value) / largest)
        side = "z" if step == 0 else f"{'p' if value > 0 else 'n'}{step}"
        layers[side] = layers.get(side, "") + f"M{point(x)} {point(y)}h{point(size)}v{point(size)}h-{point(size)}z"
        if step >= MARK_FROM and size >= 12:
            middle = size / 2
            marks += f"M{point(x + middle - 3)} {point(y + middle)}h6" + (
                f"M{point(x + middle)} {point(y + middle - 3)}v6" if value > 0 else ""
            )
    body = [path(f"heat h-{side}", commands) for side, commands in sorted(layers.items())] + [path("sign", marks)]
    return picture(columns * pitch, rows * pitch, body, says, "heatmap")


def _bars(ranked: list[tuple[str, float]], says: str) -> Markup:
    largest = max((abs(value) for _, value in ranked), default=0.0) or 1.0
    middle, reach, pitch = 104.0, 100.0, 18
    body = [path("axis", f"M{middle} 0V{max(1, len(ranked)) * pitch}")]
    for i, (_, value) in enumerate(ranked):
        wide = reach * abs(value) / largest
        body.append(rect(f"heat h-{'p' if value > 0 else 'n'}5", middle if value > 0 else middle - wide, i * pitch + 3, wide, 12))
    return picture(2 * middle, max(1, len(ranked)) * pitch, body, says, "signedbars")
