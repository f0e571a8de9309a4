"""What scikit-learn's simple transformers make of raw columns: each result as a function of one raw column.

A derived column is a number or a look-up of the raw value, then rising float64 operations exactly as scikit-learn does them. That is enough
to move everything into the model: a split of such a column is a split of the raw one (`folded.py`), a weight a weight of the raw one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError

Floats = NDArray[np.float64]
Step = tuple[Literal["add", "sub", "mul", "div"], float]
# Texts that no raw row can hold (an imputer's own word) are numbered downwards from here; -1 is an unseen text.
_FIRST_FOREIGN: Final = -2


@dataclass(frozen=True)
class Derived:
    """One column behind transformers.

    Attributes:
        source: Raw column.
        steps: Operations on the number, or on what was looked up, in order.
        missing: The result for a missing raw value, NaN where it stays missing.
        table: None for a number; else what each raw value becomes before `steps`.
        other: Result for a raw value that the table does not have.
        words: Number of each text, where raw values stand for texts; None for numbers.
    """

    source: int
    steps: tuple[Step, ...] = ()
    missing: float = np.nan
    table: dict[float, float] | None = None
    other: float = np.nan
    words: dict[str, float] | None = field(default=None, compare=False)

    def of(self, x: Floats) -> Floats:
        """The operations on numbers or looked up values x; a missing one stays missing."""
        for kind, by in self.steps:
            x = x + by if kind == "add" else x - by if kind == "sub" else x * by if kind == "mul" else x / by
        return x

    def then(self, *steps: Step) -> "Derived":
        """The same with operations behind it."""
        alone = Derived(0, steps)
        missing, other = (float(alone.of(np.array(value))) for value in (self.missing, self.other))
        return replace(self, steps=self.steps + steps, missing=missing, other=other)

    @property
    def line(self) -> tuple[float, float]:
        """(a, b) with a x + b for the operations together."""
        b = float(self.of(np.array(0.0)))
        factor = Derived(0, tuple(step for step in self.steps if step[0] in ("mul", "div")))
        return float(factor.of(np.array(1.0))), b


def raw_columns(count: int, texts: Sequence[Sequence[str]]) -> list[Derived]:
    """The raw columns; `texts` are the categories of each that is handed over as text, else empty."""
    words = [{text: float(i) for i, text in enumerate(texts[c])} if c < len(texts) and texts[c] else None for c in range(count)]
    return [Derived(c, words=words[c]) for c in range(count)]


def transformed(transformer: Any, columns: list[Derived]) -> list[Derived]:
    """The columns behind a fitted transformer.

    Raises:
        VerdictError: A transformer, or an option of it, without a form here; named.
    """
    name = type(transformer).__name__
    if name == "Pipeline":
        for _, step in transformer.steps:
            columns = transformed(step, columns)
        return columns
    if name == "ColumnTransformer":
        return _by_parts(transformer, columns)
    if transformer in ("passthrough", None) or (name == "FunctionTransformer" and transformer.func is None):
        return columns
    if name in _SCALERS:
        return _SCALERS[name](transformer, _numbers(name, columns))
    if name == "SimpleImputer":
        return _imputed(transformer, columns)
    if name in ("OneHotEncoder", "OrdinalEncoder"):
        return _encoded(name, transformer, columns)
    if hasattr(transformer, "get_support"):
        return [column for column, kept in zip(columns, transformer.get_support(), strict=True) if kept]
    raise VerdictError(f"the transformer {name} has no form as plain columns")


def _numbers(name: str, columns: list[Derived]) -> list[Derived]:
    for column in columns:
        if column.words is not None and column.table is None:
            raise VerdictError(f"{name} on a column of texts")
    return columns


def _by_parts(transformer: Any, columns: list[Derived]) -> list[Derived]:
    if transformer.sparse_output_ and not hasattr(transformer, "output_indices_"):
        raise VerdictError("a ColumnTransformer that was fitted by another version")
    found: list[Derived] = []
    for name, part, _ in transformer.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        found += transformed(part, [columns[i] for i in transformer._transformer_to_input_indices[name]])
    return found


def _standard(scaler: Any, columns: list[Derived]) -> list[Derived]:
    if scaler.with_mean:
        columns = [column.then(("sub", float(mean))) for column, mean in zip(columns, scaler.mean_, strict=True)]
    return _divided(columns, scaler.scale_ if scaler.with_std else None)


def _min_max(scaler: Any, columns: list[Derived]) -> list[Derived]:
    if scaler.clip:
        raise VerdictError("MinMaxScaler with clip=True")
    pairs = zip(columns, scaler.scale_, scaler.min_, strict=True)
    return [column.then(("mul", float(scale)), ("add", float(least))) for column, scale, least in pairs]


def _robust(scaler: Any, columns: list[Derived]) -> list[Derived]:
    if scaler.with_centering:
        columns = [column.then(("sub", float(center))) for column, center in zip(columns, scaler.center_, strict=True)]
    return _divided(columns, scaler.scale_ if scaler.with_scaling else None)


def _divided(columns: list[Derived], scale: Any) -> list[Derived]:
    return columns if scale is None else [column.then(("div", float(s))) for column, s in zip(columns, scale, strict=True)]


def _largest_is_one(scaler: Any, columns: list[Derived]) -> list[Derived]:
    return _divided(columns, scaler.scale_)


_SCALERS: Final[dict[str, Callable[[Any, list[Derived]], list[Derived]]]] = {
    "StandardScaler": _standard,
    "MinMaxScaler": _min_max,
    "RobustScaler": _robust,
    "MaxAbsScaler": _largest_is_one,
}


def _imputed(imputer: Any, columns: list[Derived]) -> list[Derived]:
    if not (isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)):
        raise VerdictError(f"SimpleImputer with missing_values={imputer.missing_values!r}")
    # What it fills in has the type of the rows that it was fitted on, whatever it is given.
    single = np.dtype(getattr(imputer, "_fill_dtype", np.float64)) == np.float32
    filled = []
    for column, value in zip(columns, imputer.statistics_, strict=True):
        if isinstance(value, float) and np.isnan(value):
            raise VerdictError("SimpleImputer on a column without any value")
        number = _number_of(column, value) if column.words is not None and column.table is None else float(value)
        number = float(np.float32(number)) if single else number
        filled.append(
            replace(
                column,
                missing=number if np.isnan(column.missing) else column.missing,
                other=number if column.table is not None and np.isnan(column.other) else column.other,
            )
        )
    if imputer.indicator_ is None:
        return filled
    absent = [columns[i] for i in imputer.indicator_.features_]
    if any(column.table is not None for column in absent):
        raise VerdictError("SimpleImputer with add_indicator=True behind an encoder")
    return filled + [Derived(column.source, missing=float(np.isnan(column.missing)), table={}, other=0.0) for column in absent]


def _number_of(column: Derived, text: Any) -> float:
    """The raw value that stands for a text; one that the rows cannot hold gets a number of its own."""
    assert column.words is not None  # noqa: S101  # callers looked
    return column.words.setdefault(str(text), float(_FIRST_FOREIGN - sum(value < 0 for value in column.words.values())))


def _encoded(name: str, encoder: Any, columns: list[Derived]) -> list[Derived]:
    if getattr(encoder, "infrequent_categories_", None) is not None and any(i is not None for i in encoder.infrequent_categories_):
        raise VerdictError(f"{name} with rare categories put together (min_frequency or max_categories)")
    found: list[Derived] = []
    for place, (column, values) in enumerate(zip(columns, encoder.categories_, strict=True)):
        if column.steps or column.table is not None:
            raise VerdictError(f"{name} behind another encoder or a scaler")
        keys = [_key(column, value) for value in values]
        if name == "OrdinalEncoder":
            found.append(_ordinal(encoder, column, keys))
            continue
        dropped = None if encoder.drop_idx_ is None else encoder.drop_idx_[place]
        found += [_indicator(column, key) for i, key in enumerate(keys) if i != dropped]
    return found


def _key(column: Derived, value: Any) -> float:
    """The raw value of a category; NaN for the category of missing ones."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return np.nan
    return float(value) if column.words is None else _number_of(column, value)


def _indicator(column: Derived, key: float) -> Derived:
    """1 for one raw value, 0 for all others."""
    table = {} if np.isnan(key) else {key: 1.0}
    alike = np.isnan(key) if np.isnan(column.missing) else column.missing == key
    return Derived(column.source, missing=float(alike), table=table, other=0.0)


def _ordinal(encoder: Any, column: Derived, keys: list[float]) -> Derived:
    table = {key: float(i) for i, key in enumerate(keys) if not np.isnan(key)}
    unknown = float(encoder.unknown_value) if encoder.handle_unknown == "use_encoded_value" else np.nan
    missing = float(encoder.encoded_missing_value) if np.isnan(column.missing) else table.get(column.missing, unknown)
    return Derived(column.source, missing=missing, table=table, other=unknown)
