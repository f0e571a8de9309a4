"""Terminal tables: plain text, numbers right-aligned, no colour that carries meaning alone."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

_INDENT: Final = " " * 4
_NARROWEST: Final = 20  # characters, below which words are not broken


def table(header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None) -> str:
    """Text table with aligned columns.

    Args:
        header: Column titles.
        rows: Cells; numbers (int, float) and cells that look like one are right-aligned.
        width: Columns of the terminal: where a row is wider, its last cell, which holds the words, is broken into lines below it.

    >>> print(table(("gate", "n", "in words"), [("time", 12, "Hold: more follow in batches.")], width=24))
    gate   n
    ----  --
    time  12
        Hold: more follow in
        batches.
    """
    cells = [[_text(cell) for cell in row] for row in rows]
    if width is not None and cells and _wide(header, cells) > width:
        title, rule, *lines = table(header[:-1], [row[:-1] for row in cells]).split("\n")
        below = [broken([_INDENT + row[-1]], width) if row[-1] else "" for row in cells]
        return "\n".join([title, rule, *(f"{line}\n{words}" if words else line for line, words in zip(lines, below, strict=True))])
    widths = [max(len(str(title)), *(len(row[i]) for row in cells)) if cells else len(title) for i, title in enumerate(header)]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(_pad(title, widths[i], right[i]) for i, title in enumerate(header)).rstrip(), "  ".join("-" * w for w in widths)]
    lines += ["  ".join(_pad(cell, widths[i], right[i]) for i, cell in enumerate(row)).rstrip() for row in cells]
    return "\n".join(lines)


def broken(lines: Sequence[str], width: int | None) -> str:
    """Lines, the long ones in several; continued ones keep the indentation.

    >>> print(broken(["one", "  - two is longer than it"], 20))
    one
      - two is longer
        than it
    """
    if width is None:
        return "\n".join(lines)
    found: list[str] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip(" -")))
        found += textwrap.wrap(line, max(width, _NARROWEST), subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(found)


def measured(measure: Mapping[str, Any] | None) -> str:
    """A {value, low, high, n} as one cell: the value with its interval and the number of rows, as far as they are known.

    >>> measured({"value": 0.96249, "low": 0.9, "high": 1.0, "n": 40}), measured({"value": None, "n": 40})
    ('0.9625 [0.9, 1] n=40', '-')
    """
    if not measure or measure.get("value") is None:
        return "-"
    value, low, high, n = (measure.get(part) for part in ("value", "low", "high", "n"))
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{value:.4g}{interval}{f' n={n}' if n else ''}"


def _wide(header: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """Characters of the widest row."""
    return sum(max(len(title), *(len(row[i]) for row in cells)) for i, title in enumerate(header)) + 2 * (len(header) - 1)


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _is_number(text: str) -> bool:
    return text == "-" or (text[:1].isdigit() or text[:1] in "-+.<>")


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
