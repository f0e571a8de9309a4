"""A first schema from a look at a table, for a person to review: what each column seems to be, and what was left out and why."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgefleet.errors import InputError
from edgefleet.manifest import Input
from trainer.settings import GoalTask
from trainer.table_checks import category_index, numbers, plain_texts, seconds

if TYPE_CHECKING:
    import pandas

MOST_CATEGORIES: Final = 256
MOST_CLASSES_GUESSED: Final = 20
_LEADING_ZERO: Final = r"-?0\d+"
_LABEL_NAMES: Final = ("label", "target", "class", "y", "outcome")
_TIME_NAMES: Final = ("time", "timestamp", "date", "datetime", "time_s", "epoch", "cycle")
_GROUP_NAMES: Final = ("group", "unit", "machine", "device", "engine", "patient", "subject", "station", "batch", "machine_id", "device_id")
_LEAST_ROWS: Final = 20  # fewer rows say nothing about uniqueness


@dataclass(frozen=True)
class Survey:
    """What a table looks like.

    Attributes:
        inputs: Columns that can be inputs.
        notes: By input: what was observed, for a comment.
        left_out: Columns that are no inputs, with the reason and the remedy.
        label: The answer's column; "" when none was found.
        task: Guess from the label's cells.
        id: Column whose values are unique names, or None.
        time: Column that looks like time, or None.
        group: Column that names what rows share, or None.
        has_split: A column `split` says train, validation and test.
        unlabelled: Rows without a label.
    """

    inputs: list[Input]
    notes: dict[str, str]
    left_out: dict[str, str]
    label: str
    task: GoalTask
    id: str | None = None
    time: str | None = None
    group: str | None = None
    has_split: bool = False
    unlabelled: int = 0


@dataclass
class _Roles:
    id: str | None = None
    time: str | None = None
    group: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def infer_schema(table: "pandas.DataFrame", label: str = "", keep: Sequence[str] = ()) -> list[Input]:
    """Inputs guessed from a table.

    Args:
        table: Rows; cells of a CSV may be texts.
        label: Column of the answer, which is no input.
        keep: Exactly these columns in this order, whatever they look like (a model made elsewhere needs them); empty: those that fit.

    Raises:
        InputError: A column is missing, no column fits, or a kept column has too many categories.
    """
    if not keep:
        return survey(table, label).inputs
    if absent := [name for name in keep if name not in table.columns]:
        raise InputError(f"the data lack {len(absent)} of {len(keep)} columns: {', '.join(absent[:5])}")
    inputs = []
    for name in keep:
        column, note = _input(table[name], name)
        if column is None:
            raise InputError(f"column {name!r} cannot be an input: {note}")
        inputs.append(column)
    return inputs


def survey(table: "pandas.DataFrame", label: str = "") -> Survey:
    """Look at every column.

    Args:
        table: At least one row.
        label: Column of the answer; "" looks for a usual name, then takes the last column.

    Raises:
        InputError: The label is no column, or no column can be an input.
    """
    names = [str(name) for name in table.columns]
    if len(table) == 0:
        raise InputError("the data have no rows; a schema needs some")
    if label and label not in names:
        raise InputError(f"no column {label!r}; the data have {', '.join(names[:10])}")
    label = label or next((name for name in names if name.lower() in _LABEL_NAMES), names[-1])
    has_split = "split" in names and set(plain_texts(table["split"])) <= {"train", "validation", "test"}
    roles, inputs, notes = _Roles(), [], {}
    for name in names:
        if name == label or (name == "split" and has_split):
            continue
        if (reason := _role(table[name], name, roles)) is None:
            column, note = _input(table[name], name)
            if column is not None:
                inputs.append(column)
                notes[name] = note
                continue
            reason = note
        roles.left_out[name] = reason
    if not inputs:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(roles.left_out.items())[:3])
        raise InputError(f"no column can be an input ({some}); write [schema] by hand")
    return Survey(
        inputs=inputs,
        notes=notes,
        left_out=roles.left_out,
        label=label,
        task=_task(table[label]),
        id=roles.id,
        time=roles.time,
        group=roles.group,
        has_split=has_split,
        unlabelled=int(table[label].isna().sum()),
    )


def _role(raw: "pandas.Series[Any]", name: str, roles: _Roles) -> str | None:
    """Why the column is no input because of what it is (empty, constant, a name, a time, a group), else None."""
    present = raw.dropna()
    distinct = int(present.nunique())
    if distinct == 0:
        return "no value in any row"
    if distinct == 1:
        return f"the same value in every row: {str(present.iloc[0])[:40]!r}"
    if _looks_like_time(present, name):
        roles.time = roles.time or name
        return "looks like time; rows must be in its order. List it as an input only if the hour or the age itself matters"
    if len(raw) >= _LEAST_ROWS and distinct == len(raw) and _looks_like_id(present):
        roles.id = roles.id or name
        return "a different value in every row: a name, not a measurement"
    if name.lower() in _GROUP_NAMES and 2 <= distinct <= len(raw) // 2:
        roles.group = roles.group or name
        return f"looks like a group: {distinct} values shared by rows"
    return None


def _looks_like_time(present: "pandas.Series[Any]", name: str) -> bool:
    values, unreadable = numbers(present)
    if not unreadable.any():
        return name.lower() in _TIME_NAMES and bool(np.isfinite(values).all())
    head = present.iloc[:200]
    if head.dtype.kind != "M" and not head.astype(str).str.match(r"\d{4}-\d{2}-\d{2}").all():
        return False
    return bool(np.isfinite(seconds(head)).all())


def _looks_like_id(present: "pandas.Series[Any]") -> bool:
    values, unreadable = numbers(present)
    if unreadable.any():
        return bool(unreadable.mean() > 0.5)  # else: numbers with some words among them
    # Whole numbers one by one, in order: a running number. Distinct fractions are measurements.
    return bool((np.abs(np.diff(values)) == 1).all())


def _input(raw: "pandas.Series[Any]", name: str) -> tuple[Input | None, str]:
    """The column as an input and what was observed, or None and why not."""
    missing = int(raw.isna().sum())
    absent = f", {100 * missing / len(raw):.2g} % missing" if missing else ""
    values, unreadable = numbers(raw)
    if not unreadable.any() and not _leading_zeros(raw):
        finite = values[np.isfinite(values)]
        observed = f"observed {finite.min():g} to {finite.max():g}{absent}" if len(finite) else "no number observed"
        return Input(name=name, missing=missing > 0), observed
    texts = sorted({text for text in plain_texts(raw) if text is not None})
    if len(texts) > MOST_CATEGORIES:
        remedy = "group the rare ones in the source, or list it in [schema] by hand"
        numeric = int((~unreadable).sum()) - missing
        if numeric > len(raw) // 2:
            remedy = f"{numeric} of {len(raw)} cells are numbers: mend the others, or name them in data.missing_values"
        return None, f"{len(texts)} different texts, more than {MOST_CATEGORIES}; {remedy}"
    column = Input(name=name, kind="category", categories=_normal(texts), missing=missing > 0)
    shares = np.bincount(np.nan_to_num(category_index(raw, column), nan=-1).astype(int) + 1, minlength=len(texts) + 1)[1:]
    return column, f"{len(column.categories)} categories, the most frequent {column.categories[int(shares.argmax())][:30]!r}{absent}"


def _normal(texts: list[str]) -> list[str]:
    import unicodedata

    return sorted({unicodedata.normalize("NFC", text) for text in texts})


def _leading_zeros(raw: "pandas.Series[Any]") -> bool:
    """Whether cells are codes like 01 and 007, which are names."""
    return raw.dtype.kind not in "iufb" and any(re.fullmatch(_LEADING_ZERO, str(cell)) for cell in raw.dropna().unique()[:1000])


def _task(label: "pandas.Series[Any]") -> GoalTask:
    values, unreadable = numbers(label.dropna())
    if unreadable.any() or len(np.unique(values)) <= MOST_CLASSES_GUESSED:
        return "classification"
    return "regression"
