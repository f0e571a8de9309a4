"""Charts as server-made SVG: attributes and classes only, so that the strict content security policy holds, and no script is needed.

Every chart is three things: a picture, one sentence that says the same, and a table of its numbers. Coordinates are rounded to a tenth
of a pixel; nothing here reads a clock or a database.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup, escape

MAX_TABLE_ROWS: Final = 60


@dataclass(frozen=True)
class Chart:
    """A picture with its text form.

    Attributes:
        svg: The picture; its accessible name is `says`.
        says: One sentence with the numbers that matter.
        columns: Heads of the table.
        rows: The numbers, at most MAX_TABLE_ROWS of them.
        left_out: Rows that the table does not show.
    """

    svg: Markup
    says: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    left_out: int = 0


def table(rows: Sequence[Sequence[str]]) -> tuple[Sequence[Sequence[str]], int]:
    """The rows that a text form shows, and how many it leaves out."""
    return rows[:MAX_TABLE_ROWS], max(0, len(rows) - MAX_TABLE_ROWS)


def picture(width: float, height: float, body: Iterable[str], says: str, css_class: str = "", *, stretch: bool = False) -> Markup:
    """An `<svg role="img">`; `body` is markup made by this package, `says` is escaped here.

    Args:
        width: In units of the view box; also the natural width in pixels unless stretched.
        height: The same.
        body: Elements.
        says: The accessible name.
        css_class: Class of the element.
        stretch: Fill the width it is given, whatever the proportions (bars without text).
    """
    measure = 'width="100%" preserveAspectRatio="none"' if stretch else f'width="{point(width)}"'
    return Markup(  # noqa: S704  # the body is numbers and class names of this package; what is data is escaped here
        f'<svg class="{escape(css_class)}" {measure} height="{point(height)}" viewBox="0 0 {point(width)} {point(height)}" role="img" '
        f'aria-label="{escape(says)}">{"".join(body)}</svg>'
    )


def rect(css_class: str, x: float, y: float, width: float, height: float, extra: str = "") -> str:
    """One rectangle; `css_class` and `extra` come from this package, never from data."""
    return f'<rect class="{css_class}" x="{point(x)}" y="{point(y)}" width="{point(width)}" height="{point(height)}"{extra}/>'


def path(css_class: str, commands: str) -> str:
    """One path; both arguments come from this package."""
    return f'<path class="{css_class}" d="{commands}"/>' if commands else ""


def point(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
