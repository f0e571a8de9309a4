"""Which step meets which column, found from the declaration and the schema alone, and every reason why a step cannot be compiled."""

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from edgefleet.manifest import Input
from trainer.limits import MAX_WINDOW_ROWS
from trainer.settings import Cleaning, CleaningStep, Window

MAX_ONE_HOT: Final = 64
# Features that compute with the values; the others only copy or count them.
ARITHMETIC: Final = frozenset({"mean", "variance", "min", "max", "range", "difference"})
_NAMED_VALUES: Final = ("median", "mean", "zero", "most_frequent")


@dataclass(frozen=True)
class Column:
    """One column between two steps.

    Attributes:
        name: Of the input, or derived: `NAME.missing`, `NAME=CATEGORY`.
        source: Raw input that it derives from.
        kind: A number, the index of a category, or 0/1.
        categories: Texts of a category.
        missing: Whether it may be NaN here.
        imputed: Whether an impute step has run over it.
    """

    name: str
    source: int
    kind: Literal["number", "category", "flag"]
    categories: tuple[str, ...] = ()
    missing: bool = False
    imputed: bool = False


@dataclass(frozen=True)
class Planned:
    """One step and the columns that it meets.

    Attributes:
        step: As declared.
        place: Where it stands, for messages.
        picked: Places in `before`.
        before: All columns in front of it.
        after: All columns behind it.
    """

    step: CleaningStep
    place: str
    picked: tuple[int, ...]
    before: tuple[Column, ...]
    after: tuple[Column, ...]


def first_columns(inputs: Sequence[Input], window: Window | None) -> tuple[Column, ...]:
    """The raw columns; on a grid every value may be missing, whatever the schema says."""
    gaps = window is not None and window.rate_s is not None
    return tuple(Column(c.name, i, c.kind, tuple(c.categories), c.missing or gaps) for i, c in enumerate(inputs))


def refusals(cleaning: Cleaning, inputs: Sequence[Input]) -> list[str]:
    """Everything that cannot be compiled, one sentence each with place, value and remedy; empty: nothing.

    What depends on the rows (a logarithm of negative training values) is found by `compile_steps` only.
    """
    return plan(cleaning, inputs)[1]


def plan(cleaning: Cleaning, inputs: Sequence[Input]) -> tuple[list[Planned], list[str]]:
    """Walk over the steps; a step with an error is left out, so that later errors are found too."""
    columns = first_columns(inputs, cleaning.window)
    planned: list[Planned] = []
    errors: list[str] = []
    for i, step in enumerate(cleaning.steps):
        place = f"cleaning.steps[{i}] ({step.step})"
        found, wrong = _pick(step, columns)
        wrong += _settings(step)
        errors += [f"{place}: {text}" for text in wrong]
        if wrong:
            continue
        planned.append(Planned(step, place, tuple(found), columns, _behind(step, columns, set(found))))
        columns = planned[-1].after
        if double := sorted(name for name, n in Counter(column.name for column in columns).items() if n > 1):
            errors.append(f"{place}: there would be two columns named {double[0]!r}; leave the step out or rename an input")
            return planned, errors
        if not columns:
            errors.append(f"{place}: no column is left for the model; keep at least one")
            return planned, errors
    if cleaning.window is not None:
        errors += [f"cleaning.window: {text}" for text in _window(cleaning.window, columns)]
    return planned, errors


def _pick(step: CleaningStep, columns: Sequence[Column]) -> tuple[list[int], list[str]]:
    """Places of the step's columns, and what is wrong with them."""
    place_of = {column.name: i for i, column in enumerate(columns)}
    if step.columns == ["*"]:
        found = [i for i, column in enumerate(columns) if _unfit(step, column) is None and _meant(step, column)]
        if step.step == "drop":
            return [], ["'*' would drop every column; name the columns"]
        return found, [] if found else ["'*' fits no column at this place; leave the step out or name its columns"]
    wrong: list[str] = []
    for name in dict.fromkeys(step.columns):
        if name not in place_of:
            wrong.append(_unknown(name, columns))
        elif (reason := _unfit(step, columns[place_of[name]])) is not None:
            wrong.append(f"column {name!r} {reason}")
    if len(set(step.columns)) < len(step.columns) or not step.columns:
        wrong.append(f"columns is {step.columns}; name at least one column, and each once")
    return sorted({place_of[name] for name in step.columns if name in place_of}), wrong


def _unknown(name: str, columns: Sequence[Column]) -> str:
    names = [column.name for column in columns]
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"column {name!r} does not stand here" + (f"; did you mean {near[0]!r}?" if near else f"; at this place there are {listed}")


def _meant(step: CleaningStep, column: Column) -> bool:
    """Whether '*' takes a column that the step fits."""
    if step.step == "indicator":
        return column.missing
    return step.step != "impute" or step.value == "most_frequent" or column.kind == "number"


def _unfit(step: CleaningStep, column: Column) -> str | None:
    """Why a step cannot work on a column."""
    if step.step in ("one_hot", "ordinal"):
        if column.kind != "category":
            return f"is a {column.kind}, not a category; leave it out of this step"
        if step.step == "one_hot" and len(column.categories) > MAX_ONE_HOT:
            return f"has {len(column.categories)} categories, one_hot makes at most {MAX_ONE_HOT} columns; use ordinal or group them first"
        return None if column.categories else "has no categories in the schema; list them"
    if step.step == "indicator" and column.imputed:
        return "has been imputed before, so nothing is missing any more; put the indicator in front of impute"
    if step.step in ("clip", "log", "sqrt", "scale", "unit") and column.kind != "number":
        return f"is a {column.kind}, not a number; encode a category with ordinal first, or leave the column out of this step"
    if step.step == "impute" and column.kind == "category" and step.value not in ("most_frequent", *column.categories):
        return f"is a category and cannot take {step.value!r}; use most_frequent or one of its categories"
    if step.step == "impute" and column.kind != "category" and step.value not in _NAMED_VALUES and _number(step.value) is None:
        return f"cannot take {step.value!r}; use {', '.join(_NAMED_VALUES)} or a finite number"
    return None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= 1e30 else None


def _settings(step: CleaningStep) -> list[str]:
    if step.step == "unit":
        good = math.isfinite(step.factor) and math.isfinite(step.offset) and step.factor != 0
        return [] if good else [f"factor is {step.factor} and offset {step.offset}; both are finite, and factor is not 0"]
    if step.step != "clip":
        return []
    bounds = [bound for bound in (step.low, step.high) if bound is not None]
    if not bounds or any(not math.isfinite(bound) for bound in bounds) or bounds != sorted(bounds):
        return [f"low is {step.low} and high {step.high}; give at least one finite number, low not above high"]
    if step.quantile and not all(0 <= bound <= 1 for bound in bounds):
        return [f"low is {step.low} and high {step.high}; as quantiles they are shares from 0 to 1"]
    return []


def _behind(step: CleaningStep, columns: Sequence[Column], picked: set[int]) -> tuple[Column, ...]:
    """The columns behind a step, in the order in which the compiler makes them."""
    if step.step in ("drop", "one_hot"):
        kept = [column for i, column in enumerate(columns) if i not in picked]
        gone = [columns[i] for i in sorted(picked)] if step.step == "one_hot" else []
        return (*kept, *(Column(f"{column.name}={text}", column.source, "flag") for column in gone for text in column.categories))
    if step.step == "indicator":
        return (*columns, *(Column(f"{columns[i].name}.missing", columns[i].source, "flag") for i in sorted(picked)))
    changes: dict[str, dict[str, object]] = {
        "impute": {"missing": False, "imputed": True},
        # Unseen categories become missing; the column is a number from here on.
        "ordinal": {"kind": "number", "categories": (), "missing": True, "imputed": False},
    }
    change = changes.get(step.step, {})
    return tuple(replace(column, **change) if i in picked else column for i, column in enumerate(columns))  # type: ignore[arg-type]


def _window(window: Window, columns: Sequence[Column]) -> list[str]:
    errors = []
    if not 1 <= window.rows <= MAX_WINDOW_ROWS:
        errors.append(f"rows is {window.rows}; expected 1 to {MAX_WINDOW_ROWS}")
    if bad := [lag for lag in window.lags if not 1 <= lag < window.rows]:
        errors.append(f"lags has {bad[0]}, but a window of {window.rows} rows holds lags from 1 to {window.rows - 1}; lengthen the window")
    if len(set(window.lags)) < len(window.lags) or len(set(window.features)) < len(window.features):
        errors.append("features and lags name each thing once")
    if computing := [feature for feature in window.features if feature in ARITHMETIC]:
        for column in columns:
            if column.kind == "category":
                errors.append(f"feature {computing[0]} cannot compute with the category {column.name!r}; add one_hot or ordinal")
            elif column.missing:
                errors.append(f"feature {computing[0]} cannot compute with {column.name!r}, which may be missing; add impute")
    return errors
