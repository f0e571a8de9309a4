"""Device cells of a wave: one SVG path per state, whatever the number of devices; and waves in miniature.

Columns fill top-down in the order of activation, so that a bad hour is a vertical band. Beyond TILE_FROM devices a tile stands for 25 or
125 of them, filled by share, and marked when it holds a failed or a silent one.
"""

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from fleet_server.page.charts import Chart, path, picture, point, rect, table
from fleet_server.page.states import LEGEND, WORST_FIRST, count_progress, counts_in_words
from fleet_server.read_models import Progress, WaveView

TILE_FROM: Final = 2_000
_FILLED: Final[tuple[Progress, ...]] = ("ok", "pending")
_MARKED: Final[tuple[Progress, ...]] = ("failed", "silent")
_TILE_ORDER: Final[tuple[Progress, ...]] = ("not-begun", *_FILLED, *_MARKED)
_ORDER: Final[tuple[Progress, ...]] = ("ok", "pending", "failed", "silent", "not-begun")


def wave_cells(wave: WaveView) -> Chart:
    """Cells of the devices that one wave adds."""
    states = [member.progress for member in wave.members]
    says = f"Wave {wave.number}: {counts_in_words(count_progress(states))}."
    return Chart(_tiles(states, says) if len(states) > TILE_FROM else _cells(states, says), says)


def member_table(waves: Sequence[WaveView]) -> Chart:
    """The text form of all waves: device by device, those that need a look first."""
    found = [(wave.number, member) for wave in waves for member in wave.members]
    found.sort(key=lambda pair: (WORST_FIRST.index(pair[1].progress), pair[0], pair[1].device_id))
    rows, left_out = table([(m.device_id, str(number), m.site, LEGEND[m.progress], m.reason) for number, m in found])
    return Chart(Markup(""), "Devices of all waves.", ("Device", "Wave", "Site", "State", "Why"), rows, left_out)


def _cells(states: Sequence[Progress], says: str) -> Markup:
    size, rows = _scale(len(states))
    pitch = size + max(2, size // 6)
    fills: dict[Progress, list[str]] = {state: [] for state in _ORDER}
    marks: dict[Progress, list[str]] = {state: [] for state in _ORDER}
    for i, state in enumerate(states):
        x, y = i // rows * pitch + 0.5, i % rows * pitch + 0.5
        fills[state].append(f"M{point(x)} {point(y)}h{size}v{size}h-{size}z")
        marks[state].append(_mark(state, x, y, size))
    width = max(1, math.ceil(len(states) / rows)) * pitch
    return picture(width, min(rows, max(1, len(states))) * pitch, _layers(fills, marks), says, "cells")


def _tiles(states: Sequence[Progress], says: str) -> Markup:
    per, size, rows = (25 if len(states) <= 25_000 else 125), 14, 10
    pitch = size + 2
    fills: dict[Progress, list[str]] = {state: [] for state in _ORDER}
    marks: dict[Progress, list[str]] = {state: [] for state in _ORDER}
    chunks = [states[i : i + per] for i in range(0, len(states), per)]
    for i, chunk in enumerate(chunks):
        x, y = i // rows * pitch + 0.5, i % rows * pitch + 0.5
        counts = count_progress(chunk)
        fills["not-begun"].append(f"M{point(x)} {point(y)}h{size}v{size}h-{size}z")
        bottom = y + size
        for state in _FILLED:
            height = size * counts[state] / len(chunk)
            if height:
                fills[state].append(f"M{point(x)} {point(bottom)}h{size}v-{point(height)}h-{size}z")
                bottom -= height
        for state in _MARKED:
            if counts[state]:
                fills[state].append(f"M{point(x + 3)} {point(y + 3)}h8v8h-8z")
                marks[state].append(_mark(state, x + 3, y + 3, 8))
                break
    ordered = {state: fills[state] for state in _TILE_ORDER}
    said = f"{says} One tile is {per} devices."
    return picture(math.ceil(len(chunks) / rows) * pitch, rows * pitch, _layers(ordered, marks), said, "cells")


def _layers(fills: dict[Progress, list[str]], marks: dict[Progress, list[str]]) -> list[str]:
    layers = [path(f"c-{state}", "".join(commands)) for state, commands in fills.items()]
    return layers + [path(f"m-{state}", "".join(commands)) for state, commands in marks.items()]


def _mark(state: Progress, x: float, y: float, size: int) -> str:
    middle, arm = size / 2, size * 0.24
    if state == "failed":
        left, right = point(x + middle - arm), point(x + middle + arm)
        top, bottom = point(y + middle - arm), point(y + middle + arm)
        return f"M{left} {top}L{right} {bottom}M{right} {top}L{left} {bottom}"
    if state == "silent":
        return f"M{point(x + middle - arm - 0.5)} {point(y + middle)}H{point(x + middle + arm + 0.5)}"
    if state == "pending":
        side = point(size / 3)
        return f"M{point(x + size / 3)} {point(y + size / 3)}h{side}v{side}h-{side}z"
    return ""


def _scale(devices: int) -> tuple[int, int]:
    """Side of a cell in pixels, and cells per column."""
    if devices <= 16:
        return 18, 2
    if devices <= 64:
        return 14, 4
    return (11, 8) if devices <= 400 else (9, 10)


def mini_waves(waves: Sequence[dict[Progress, int]]) -> Chart:
    """All waves of a rollout as one line of bars: widths by the square root of the devices, so that a first wave of one can be seen."""
    width, height, gap = 200.0, 10.0, 3.0
    roots = [math.sqrt(max(1, sum(wave.values()))) for wave in waves]
    unit = (width - gap * max(0, len(waves) - 1)) / sum(roots) if roots else 0.0
    body: list[str] = []
    x = 0.0
    said: list[str] = []
    for number, (wave, root) in enumerate(zip(waves, roots, strict=True), start=1):
        total, wide, left = max(1, sum(wave.values())), root * unit, x
        body.append(rect("c-not-begun", x + 0.5, 0.5, wide - 1, height - 1, ' rx="1.5"'))
        for state in ("ok", "failed", "silent", "pending"):
            part = wide * wave.get(state, 0) / total
            if part:
                body.append(rect(f"s-{state}", left, 0, part, height))
                left += part
        said.append(f"wave {number}: {counts_in_words(wave)}")
        x += wide + gap
    sentence = "; ".join(said) or "no wave"
    return Chart(picture(width, height, body, sentence, "mini"), sentence)
