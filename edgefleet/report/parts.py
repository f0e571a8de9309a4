"""Pieces of a report that are no charts: tables, verdict chips, pairs, notes."""

from collections.abc import Sequence
from typing import Final

from edgefleet.report.markup import EMPTY, Html, element, join, text
from edgefleet.report.numbers import number

# Verdict word to colour class and shape; a word not named here is shown grey with a dash: a report never hides one.
_LOOKS: Final = {
    "pass": ("ok", "tick"), "blessed": ("ok", "tick"), "packaged": ("ok", "tick"), "yes": ("ok", "tick"),
    "fail": ("failed", "cross"), "failed": ("failed", "cross"), "no": ("failed", "cross"), "refused": ("failed", "cross"),
    "inconclusive": ("silent", "bars"), "overridden": ("silent", "mark"), "suspect": ("silent", "mark"), "shifted": ("silent", "mark"),
    "first": ("pending", "ring"), "running": ("pending", "ring"),
}  # fmt: skip
_SHAPES: Final = {
    "tick": '<path d="M2 6.5l3 3L10 3"/>',
    "cross": '<path d="M2.5 2.5l7 7m0-7l-7 7"/>',
    "bars": '<path d="M4 2.5v7m4-7v7"/>',
    "mark": '<path d="M6 2v5m0 2.6v.1"/>',
    "ring": '<circle cx="6" cy="6" r="3.5"/>',
    "dash": '<path d="M2.5 6h7"/>',
}


def chip(verdict: str) -> Html:
    """A verdict as shape, word and colour; each alone suffices. Nothing where nobody judged."""
    if not verdict:
        return EMPTY
    look, shape = _LOOKS.get(verdict, ("none", "dash"))
    return element("span", _shape(shape, 12), text(verdict), class_=f"chip t-{look}")


def banner(verdict: str, sentence: str, note: str = "") -> Html:
    """The verdict of a whole report."""
    look, shape = _LOOKS.get(verdict, ("none", "dash"))
    words = element("div", element("p", element("b", text(verdict.capitalize())), text(f": {sentence}"), class_="sentence"),
                    element("p", text(note), class_="note") if note else EMPTY)  # fmt: skip
    return element("div", element("span", _shape(shape, 24), class_=f"badge t-{look}"), words, class_="card verdict")


def _shape(name: str, side: int) -> Html:
    return Html(f'<svg class="i" width="{side}" height="{side}" viewBox="0 0 12 12" aria-hidden="true">{_SHAPES[name]}</svg>')


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = (), caption: str = "") -> Html:
    """A table that scrolls inside itself where the window is narrow.

    Args:
        header: Column titles.
        rows: Cells: `Html` as it is, numbers by `number`, everything else as text.
        numbers: Indices of columns set right in figures.
        caption: Short text above it.
    """
    kind = ["num" if i in numbers else None for i in range(len(header))]
    head = element("tr", *(element("th", text(name), class_=kind[i], scope="col") for i, name in enumerate(header)))
    lines = [element("tr", *(element("td", cell(value), class_=kind[i]) for i, value in enumerate(row))) for row in rows]
    title = element("caption", text(caption)) if caption else EMPTY
    return element("div", element("table", title, element("thead", head), element("tbody", *lines)), class_="scroll", tabindex="0")


def cell(value: object) -> Html:
    """One cell: `Html` unchanged, numbers formatted, text escaped."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return text(number(value))
    return text(value)


def pairs(items: Sequence[tuple[str, object]]) -> Html:
    """Names with values, one a line."""
    return element("dl", *(join(element("dt", text(name)), element("dd", cell(value))) for name, value in items))


def figures(items: Sequence[tuple[str, str]]) -> Html:
    """A few large figures side by side: (what, figure)."""
    return element(
        "dl", *(element("div", element("dt", text(name)), element("dd", text(value))) for name, value in items), class_="figures"
    )


def paragraph(sentence: str) -> Html:
    """A sentence."""
    return element("p", text(sentence))


def note(sentence: str) -> Html:
    """A quiet sentence."""
    return element("p", text(sentence), class_="note")


def code(line: str) -> Html:
    """A command line to copy."""
    return element("pre", element("code", text(line)), tabindex="0")


def beside(*pieces: Html) -> Html:
    """A table and a chart side by side where there is room, one below the other where there is not."""
    return element("div", *pieces, class_="beside")


def grid(*charts: Html, small: bool = False) -> Html:
    """Charts side by side; `small` for many of them."""
    return element("div", *charts, class_="grid small" if small else "grid") if charts else EMPTY
