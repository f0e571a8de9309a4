"""Charts of one line: evidence against its limit, and what is in the field."""

import math
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from fleet_server.page.charts import Chart, path, picture, point, rect
from fleet_server.page.figures import e_value

WIDTH: Final = 180
_LOW, _HIGH = -2.0, 6.0
FIELD_CLASSES: Final = 5


def evidence(value: float, limit: float, state: str) -> Markup:
    """An e-value on a log scale from 0.01 to a million; the zone of alarm is hatched."""
    at, line = _place(value), _place(limit)
    hatch = "".join(f"M{point(x)} 12l6 -8" for x in range(int(line) + 2, WIDTH - 6, 6))
    body = [
        rect("track", 0, 7, WIDTH, 2),
        path("hatch", hatch),
        path("limit", f"M{point(line)} 2v12"),
        f'<circle class="dot d-{"alarm" if state == "alarm" else "now"}" cx="{point(at)}" cy="8" r="4"/>',
    ]
    return picture(WIDTH, 16, body, f"Evidence {e_value(value)}, alarm at {e_value(limit)}.", "evidence")


def _place(value: float) -> float:
    if math.isnan(value):
        return 4.0
    power = math.log10(min(max(value, 10**_LOW), 10**_HIGH))
    return 4 + (power - _LOW) / (_HIGH - _LOW) * (WIDTH - 8)


def field_bar(releases: Sequence[tuple[str, int]]) -> Chart:
    """Devices by the release they attested, as one bar; beyond FIELD_CLASSES releases the rest is one part."""
    parts = list(releases[:FIELD_CLASSES])
    if len(releases) > FIELD_CLASSES:
        parts = [*parts[:-1], ("older", sum(count for _, count in releases[FIELD_CLASSES - 1 :]))]
    total = sum(count for _, count in parts)
    body, x = [], 0.0
    for i, (_, count) in enumerate(parts):
        wide = 600 * count / total if total else 0.0
        body.append(rect(f"f-{i}", x, 0, max(0.0, wide - 2), 20))
        x += wide
    says = ", ".join(f"{name} on {count:,}" for name, count in parts)
    says = f"Attested: {says} devices." if total else "No device has attested a release yet."
    rows = [(name, f"{count:,}") for name, count in parts]
    return Chart(picture(600, 20, body, says, "field", stretch=True), says, ("Release", "Devices"), rows)
