"""Fit every step's constants on the training rows and trace it; each step sees what the steps before it made, as float32."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from edgefleet.manifest import Input
from edgefleet.steps import Steps, Trace
from edgefleet.steps.reader import evaluate
from trainer.cleaning import exact
from trainer.cleaning.features import window_features
from trainer.cleaning.monotone import needed_steps
from trainer.cleaning.plan import Planned, first_columns, plan
from trainer.settings import Cleaning

_VALUES_AT_ONCE = 1 << 18


def compile_steps(cleaning: Cleaning, inputs: Sequence[Input], x_train: NDArray[np.float32], *, monotone: bool = True) -> Steps:
    """Cleaning as one list of primitives.

    Args:
        cleaning: As declared; nothing declared gives the identity.
        inputs: Schema, in column order.
        x_train: [n, F] or, with a window, [n, T, F] raw training rows; constants come from them alone.
        monotone: False leaves out log, scale and sqrt where trees split the same way without them (cheaper on the device).

    Returns:
        The steps; their result is [features], or [T, features] for a window without features.

    Raises:
        ConfigError: The first of `refusals`, or a step that these rows do not allow; the message says which and what helps.
        InputError: The rows have another shape, hold an infinity, or there are none.
    """
    planned, errors = plan(cleaning, inputs)
    if errors:
        raise ConfigError(errors[0])
    expected = (len(inputs),) if cleaning.window is None else (cleaning.window.rows, len(inputs))
    x = np.asarray(x_train, np.float32)
    if x.shape[1:] != expected or len(x) == 0 or np.isinf(x).any():
        infinite = " with an infinity" if x.size and np.isinf(x).any() else ""
        raise InputError(f"cleaning is fitted on training rows of shape {list(x.shape)}{infinite}; expected finite [n, {list(expected)}]")
    work = _Work(Trace(expected), 0, x)
    if cleaning.window is not None and cleaning.window.fill:
        work.move(exact.fill_forward(work.trace, 0))
    columns = first_columns(inputs, cleaning.window)
    for step in planned if monotone else needed_steps(planned, cleaning.window):
        columns = step.after
        work.move(_KINDS[step.step.step](work, step))
    if cleaning.window is not None and (cleaning.window.features or cleaning.window.lags):
        # Counting missing values is done on the raw window, before anything filled it.
        work.node, columns = window_features(work.trace, work.node, columns, cleaning.window, [c.name for c in inputs])
    order = sorted(range(len(columns)), key=lambda i: columns[i].source)
    last = work.trace.take(work.node, order)
    ops = work.trace.ops[: last + 1]
    return Steps(tuple(ops), tuple(columns[i].name for i in order), tuple(columns[i].source for i in order))


@dataclass
class _Work:
    """The trace, the place that the next step reads, and its values on the training rows [n, .., columns]."""

    trace: Trace
    node: int
    rows: NDArray[np.float32]

    def move(self, node: int) -> None:
        """Go on from another place; only what was written since is computed."""
        if node != self.node:
            at_once = max(1, _VALUES_AT_ONCE // math.prod(self.trace.shape(self.node)))
            batches = (self.rows[i : i + at_once] for i in range(0, len(self.rows), at_once))
            parts = [evaluate(self.trace.ops, {self.node: batch}, node) for batch in batches]
            self.node, self.rows = node, np.concatenate(parts)

    def values(self, step: Planned, i: int) -> NDArray[np.float64]:
        """Training values of one column that are not missing."""
        column = self.rows[..., i].ravel().astype(np.float64)
        found = column[~np.isnan(column)]
        if len(found) == 0:
            raise ConfigError(f"{step.place}: column {step.before[i].name!r} is missing in every training row; drop it")
        return found


def _spread(step: Planned, neutral: float, values: dict[int, float]) -> NDArray[np.float32]:
    """One constant a column, neutral where the step does not apply: one operation then works on all columns at once."""
    constants = np.full(len(step.before), neutral)
    for i, value in values.items():
        constants[i] = value
    return constants.astype(np.float32)


def _impute(work: _Work, step: Planned) -> int:
    fill = _spread(step, np.nan, {i: _fill_value(work, step, i) for i in step.picked})
    return work.trace.where(work.trace.isnan(work.node), fill, work.node)


def _fill_value(work: _Work, step: Planned, i: int) -> float:
    value, column = step.step.value, step.before[i]
    if column.kind == "category" and value in column.categories:  # also one whose name is "mean"
        return float(column.categories.index(value))
    if value == "zero":
        return 0.0
    if value == "median":
        return float(np.median(work.values(step, i)))
    if value == "mean":
        return float(np.mean(work.values(step, i)))
    if value != "most_frequent":
        return float(value)
    found, counts = np.unique(work.values(step, i), return_counts=True)
    if column.kind == "category" and (found >= 0).any():  # the most frequent known category, not "unseen"
        found, counts = found[found >= 0], counts[found >= 0]
    return float(found[np.argmax(counts)])


def _indicator(work: _Work, step: Planned) -> int:
    flags = work.trace.f32(work.trace.isnan(work.trace.take(work.node, step.picked)))
    return work.trace.concat([work.node, flags])


def _clip(work: _Work, step: Planned) -> int:
    low, high = (_bounds(work, step, bound, neutral) for bound, neutral in ((step.step.low, -np.inf), (step.step.high, np.inf)))
    return exact.clip(work.trace, work.node, low, high)


def _bounds(work: _Work, step: Planned, bound: float | None, neutral: float) -> NDArray[np.float32]:
    if bound is None:
        return _spread(step, neutral, {})
    return _spread(
        step, neutral, {i: float(np.quantile(work.values(step, i), bound)) if step.step.quantile else bound for i in step.picked}
    )


def _scale(work: _Work, step: Planned) -> int:
    centre = _spread(step, 0.0, {i: float(np.mean(work.values(step, i))) for i in step.picked})
    # Multiplying by the reciprocal: a division by a constant is rewritten by converters. A constant column is only centred.
    factor = _spread(step, 1.0, {i: 1 / _deviation(work.values(step, i)) for i in step.picked})
    return work.trace.mul(work.trace.sub(work.node, centre), factor)


def _deviation(values: NDArray[np.float64]) -> float:
    deviation = float(np.std(values))
    # What is below float32's own resolution is rounding, not variation.
    return deviation if deviation > max(1e-30, 1e-7 * float(np.max(np.abs(values)))) else 1.0


def _unit(work: _Work, step: Planned) -> int:
    factor = _spread(step, 1.0, dict.fromkeys(step.picked, step.step.factor))
    offset = _spread(step, 0.0, dict.fromkeys(step.picked, step.step.offset))
    return work.trace.add(work.trace.mul(work.node, factor), offset)


def _log(work: _Work, step: Planned) -> int:
    return _of_some(work, step, exact.log1p)


def _sqrt(work: _Work, step: Planned) -> int:
    return _of_some(work, step, exact.sqrt)


def _of_some(work: _Work, step: Planned, function: Callable[[Trace, int], int]) -> int:
    """Apply a long function to the picked columns only; '*' takes those that are nowhere negative in the training rows."""
    negative = [i for i in step.picked if float(np.nanmin(work.rows[..., i], initial=0.0)) < 0]
    if negative and step.step.columns != ["*"]:
        least = float(np.nanmin(work.rows[..., negative[0]]))
        name = step.before[negative[0]].name
        raise ConfigError(f"{step.place}: column {name!r} has the training value {least:g}, the least allowed is 0; put clip low = 0 first")
    picked = [i for i in step.picked if i not in negative]
    if not picked:
        raise ConfigError(f"{step.place}: every column has negative training values, the least allowed is 0; put clip low = 0 first")
    done = function(work.trace, work.trace.take(work.node, picked))
    width = len(step.before)
    if len(picked) == width:
        return done
    place = {column: width + k for k, column in enumerate(picked)}
    return work.trace.take(work.trace.concat([work.node, done]), [place.get(i, i) for i in range(width)])


def _one_hot(work: _Work, step: Planned) -> int:
    kept = [i for i in range(len(step.before)) if i not in step.picked]
    columns = [i for i in step.picked for _ in step.before[i].categories]
    index = np.array([k for i in step.picked for k in range(len(step.before[i].categories))], np.float32)
    # Unseen (-1) and missing (NaN) equal no index: all columns are 0.
    hot = work.trace.f32(work.trace.eq(work.trace.take(work.node, columns), index))
    return work.trace.concat([work.trace.take(work.node, kept), hot]) if kept else hot


def _ordinal(work: _Work, step: Planned) -> int:
    least = _spread(step, -np.inf, dict.fromkeys(step.picked, 0.0))
    return work.trace.where(work.trace.lt(work.node, least), np.float32(np.nan), work.node)


def _drop(work: _Work, step: Planned) -> int:
    return work.trace.take(work.node, [i for i in range(len(step.before)) if i not in step.picked])


_KINDS: dict[str, Callable[[_Work, Planned], Any]] = {
    "impute": _impute, "indicator": _indicator, "clip": _clip, "log": _log, "sqrt": _sqrt, "scale": _scale, "unit": _unit,
    "one_hot": _one_hot, "ordinal": _ordinal, "drop": _drop,
}  # fmt: skip
