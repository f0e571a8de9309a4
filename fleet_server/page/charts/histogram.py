"""One input of one device: the reference as a line, the rows of now as bars."""

from typing import Final

from fleet_server.page.charts import Chart, path, picture, point, rect, table
from fleet_server.read_drift import Histogram

WIDTH: Final = 208
HEIGHT: Final = 66
BASE: Final = 62
MAX_CELLS: Final = 40


def histogram(values: Histogram, state: str = "quiet") -> Chart:
    """Shares per cell; `state` is the drift state of the input and colours the bars."""
    cells, reference, current = values.cells[:MAX_CELLS], values.reference[:MAX_CELLS], values.current[:MAX_CELLS]
    top = max([*reference, *current, 1e-9])
    step = WIDTH / max(1, len(cells))
    bars, line = [], ""
    for i, (was, now) in enumerate(zip(reference, current, strict=False)):
        height = (BASE - 4) * now / top
        if height > 0:
            bars.append(
                rect(f"bar b-{state if state in {'alarm', 'watching'} else 'quiet'}", i * step + 1, BASE - height, step - 2, height)
            )
        level = point(BASE - (BASE - 4) * was / top)
        line += f"{'L' if line else 'M'}{point(i * step)} {level}H{point((i + 1) * step)}"
    says = _sentence(values)
    body = [*bars, path("ref", line), path("axis", f"M0 {BASE + 0.5}H{WIDTH}")]
    rows, left_out = table([(name, _share(was), _share(now)) for name, was, now in zip(cells, reference, current, strict=False)])
    return Chart(picture(WIDTH, HEIGHT, body, f"{values.feature}: {says}", "histogram"), says, ("Cell", "Reference", "Now"), rows, left_out)


def _sentence(values: Histogram) -> str:
    if not values.cells or values.n == 0:
        return "No row yet."
    moves = [now - was for was, now in zip(values.reference, values.current, strict=False)]
    if not moves:
        return "No cell to compare."
    # Total variation: the share of rows that would have to move to another cell.
    moved = sum(abs(move) for move in moves) / 2
    grown = max(range(len(moves)), key=lambda i: moves[i])
    was, now = values.reference[grown], values.current[grown]
    return f"{_share(moved)} of {values.n:,} rows lie in another cell, most in {values.cells[grown]}: {_share(was)} to {_share(now)}."


def _share(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.1f}\u00a0%" if percent < 10 else f"{percent:.0f}\u00a0%"
