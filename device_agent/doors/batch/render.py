"""Answers as text: one line of CSV or JSON for each row that came. Numbers are the shortest that read back to the same float32."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.doors.batch.answers import OK, Answers
from device_agent.doors.batch.rows import BadRow

# Columns of every answer; those in the middle are there when asked for.
_FIRST: Final = ["row", "status", "label", "score", "margin"]
_LAST: Final = ["outlier", "digest", "error", "reason"]
BAD_COLUMNS: Final = ["row", "line", "feature", "value", "limit", "reason"]
MAX_VALUE_CHARACTERS: Final = 200

Render = Callable[[Answers], bytes]


class Columns:
    """Which columns an answer has.

    Args:
        classes: Names of the probabilities that are written; empty for none.
        explained: Whether explanations are.
        gridded: Whether rows are gathered on a grid; then `at` is the time of the grid point that is answered.
    """

    def __init__(self, classes: Sequence[str], explained: bool, gridded: bool = False) -> None:
        self.classes, self.explained, self.gridded = list(classes), explained, gridded
        self.names = [
            *_FIRST[:2],
            *(["at"] if gridded else []),
            *_FIRST[2:],
            *(f"p_{name}" for name in classes),
            *_LAST,
            *(["explanation"] if explained else []),
        ]


def as_ndjson(answers: Answers, columns: Columns) -> bytes:
    """One JSON object a line; null where a number is not there, for JSON has no NaN."""
    scores, margins = _texts(answers.score, "null"), _texts(answers.margin, "null")
    chances = [_texts(answers.probabilities[:, k], "null") for k in range(len(columns.classes))]
    keys = [json.dumps(name) for name in columns.classes]
    known = {label: json.dumps(label) for label in set(answers.label)}
    tail = f', "digest": "{answers.digest}"'
    lines = []
    for i, status in enumerate(answers.status):
        start = f'{{"row": {answers.first + i}, "status": "{status}"'
        if i in answers.at:
            start += f', "at": {answers.at[i]!r}'
        if status != OK:
            lines.append(start + _why(answers, i) + "}\n")
            continue
        line = f'{start}, "label": {known[answers.label[i]]}, "score": {scores[i]}, "margin": {margins[i]}'
        if chances:
            line += f', "probabilities": {{{", ".join(f"{key}: {chance[i]}" for key, chance in zip(keys, chances, strict=True))}}}'
        if (flag := answers.outlier[i]) is not None:
            line += f', "outlier": {"true" if flag else "false"}'
        line += tail
        if (told := answers.told.get(i)) is not None:
            line += f', "explanation": {json.dumps(told.top)}, "explanation_text": {json.dumps(told.text)}'
        lines.append(line + "}\n")
    return "".join(lines).encode()


def as_csv(answers: Answers, columns: Columns) -> bytes:
    """One line of cells a row, empty where there is nothing to say."""
    scores, margins = _texts(answers.score, ""), _texts(answers.margin, "")
    chances = [_texts(answers.probabilities[:, k], "") for k in range(len(columns.classes))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for i, status in enumerate(answers.status):
        refusal = answers.refused.get(i)
        error, reason = ("", "") if refusal is None else (str(refusal), refusal.reason)
        flag = answers.outlier[i]
        at = [answers.at.get(i, "")] if columns.gridded else []
        cells = [answers.first + i, status, *at, answers.label[i] or "", scores[i], margins[i], *(chance[i] for chance in chances)]
        cells += [
            "" if flag is None else str(flag).lower(),
            answers.digest if status == OK else "",
            error or answers.waiting.get(i, ""),
            reason,
        ]
        if columns.explained:
            cells.append(answers.told[i].text if i in answers.told else "")
        writer.writerow(cells)
    return text.getvalue().encode()


def csv_line(cells: Sequence[object]) -> bytes:
    """One line of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def bad_ndjson(bad: Sequence[BadRow]) -> bytes:
    """The side file's lines as JSON."""
    return b"".join(json.dumps(dict(zip(BAD_COLUMNS, cells, strict=True))).encode() + b"\n" for cells in map(_bad_cells, bad))


def bad_csv(bad: Sequence[BadRow]) -> bytes:
    """The side file's lines as CSV."""
    return b"".join(csv_line(["" if cell is None else cell for cell in cells]) for cells in map(_bad_cells, bad))


def _bad_cells(bad: BadRow) -> list[Any]:
    refusal = bad.refusal
    value = str(refusal.value)[:MAX_VALUE_CHARACTERS]
    return [bad.row, bad.line, refusal.feature, value, refusal.limit, refusal.reason]


def _why(answers: Answers, place: int) -> str:
    if (refusal := answers.refused.get(place)) is not None:
        return f', "error": {json.dumps(str(refusal))}, "reason": "{refusal.reason}"'
    return f', "waiting": {json.dumps(answers.waiting[place])}'


def _texts(values: NDArray[np.float32], nothing: str) -> list[str]:
    texts: list[str] = values.astype("U16").tolist()
    if not np.isfinite(values).all():
        texts = [text if text[-1].isdigit() else nothing for text in texts]
    return texts
