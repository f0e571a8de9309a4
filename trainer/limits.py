"""What project.toml's values must obey, as far as it can be said without seeing the rows."""

import math
import re
from collections.abc import Iterator
from typing import Final

from edgefleet.errors import ConfigError
from edgefleet.grid import MAX_SILENCE
from trainer.settings import CleaningStep, Goal, Search, Source, Splits, Tables, Window

METRICS_OF: Final[dict[str, tuple[str, ...]]] = {
    "classification": ("accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "log_loss", "brier", "mean_cost"),
    "anomaly": ("auc", "average_precision", "f1", "balanced_accuracy", "accuracy", "mean_cost"),
    "regression": ("rmse", "mae", "r2"),
    "rul": ("rmse", "mae", "r2"),
}
LESS_IS_BETTER: Final = ("log_loss", "brier", "mean_cost", "rmse", "mae")
DISTURBANCES: Final = ("missing_5", "missing_20", "noise", "dead_sensor", "float32")
GATES: Final = tuple(f"G{number}" for number in range(1, 11))
MAX_WINDOW_ROWS: Final = 4096

_PASSWORD: Final = re.compile(r"://[^/@:]*:[^/@]+@")
_ABOVE_ZERO: Final = math.ulp(0.0)
_ANY: Final = math.inf
# key -> least and largest value; None stands where the setting may be left out.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "goal.noninferior_margin": (_ABOVE_ZERO, _ANY),
    "goal.max_false_alarm_fraction": (_ABOVE_ZERO, 0.5),
    "goal.cap": (_ABOVE_ZERO, _ANY),
    "data.block_rows": (10, 100_000),
    "data.splits.validation": (_ABOVE_ZERO, 0.9),
    "data.splits.test": (_ABOVE_ZERO, 0.9),
    "data.splits.gap": (0, 1_000_000),
    "data.splits.seed": (0, 2**32 - 1),
    "search.seed": (0, 2**32 - 1),
    "search.trials": (0, 100_000),
    "search.seconds": (_ABOVE_ZERO, _ANY),
    "search.jobs": (1, 1024),
    "gates.slice_minimum": (0, 1),
    "gates.slice_maximum": (_ABOVE_ZERO, _ANY),
    "gates.max_missing_fraction": (0, 1),
    "gates.max_equal_rows_fraction": (0, 1),
    "gates.fairness_gap": (_ABOVE_ZERO, 1),
    "convert.calibration_rows": (0, 1_000_000),
    "device.latency_p95_ms": (_ABOVE_ZERO, _ANY),
    "device.size_bytes": (1, _ANY),
    "device.memory_bytes": (1, _ANY),
    "cleaning.window.rows": (2, MAX_WINDOW_ROWS),
    "cleaning.window.stride": (1, MAX_WINDOW_ROWS),
    "cleaning.window.rate_s": (1e-6, _ANY),
    "cleaning.window.hold": (0, MAX_WINDOW_ROWS),
    "cleaning.window.reset_after": (1, MAX_SILENCE),
}


def check_limits(tables: Tables) -> None:
    """Refuse what no rows could make right.

    Raises:
        ConfigError: A value out of its limits, or two settings that exclude each other; names key, value, limit and remedy.
    """
    for key, (low, high) in _RANGES.items():
        _check_range(key, _value(tables, key), low, high)
    for problem in _problems(tables):
        raise ConfigError(f"project.toml: {problem}")


def _value(tables: Tables, key: str) -> float | None:
    value: object = tables
    for part in key.split("."):
        value = getattr(value, part)
        if value is None:
            return None
    assert isinstance(value, int | float)  # noqa: S101  # _RANGES names numbers only
    return value


def _check_range(key: str, value: float | None, low: float, high: float) -> None:
    if value is None or (low <= value <= high and value != math.inf):  # NaN is refused too
        return
    least = "above 0" if low == _ABOVE_ZERO else f"at least {low:g}"
    limit = least if high == _ANY else f"{least} and at most {high:g}" if low == _ABOVE_ZERO else f"between {low:g} and {high:.10g}"
    raise ConfigError(f"project.toml: {key} = {value} is not {limit}")


def _problems(tables: Tables) -> Iterator[str]:
    yield from _goal_problems(tables.goal)
    yield from _cost_problems(tables.goal)
    yield from _source_problems(tables.data)
    yield from _label_problems(tables)
    yield from _split_problems(tables.data)
    yield from _search_problems(tables.search)
    gates = tables.gates
    for kind, drop in gates.robustness_drop.items():
        if kind not in DISTURBANCES:
            yield f"gates.robustness_drop.{kind} is unknown; known: {', '.join(DISTURBANCES)}"
        if not 0 <= drop < math.inf:
            yield f"gates.robustness_drop.{kind} = {drop} is not at least 0"
    for gate in gates.allow_inconclusive:
        if gate not in GATES:
            yield f"gates.allow_inconclusive names {gate!r}; gates are {', '.join(GATES)}"
    if gates.fairness_gap is not None and not gates.fairness:
        yield "gates.fairness_gap needs gates.fairness, the columns whose groups are compared"
    categories = [text for column in tables.schema.inputs for text in column.categories]
    for at, step in enumerate(tables.cleaning.steps):
        yield from (f"cleaning.steps[{at}] ({step.step}): {problem}" for problem in _step_problems(step, categories))
    if tables.cleaning.window is not None:
        yield from _window_problems(tables.cleaning.window, tables.data)


def _goal_problems(goal: Goal) -> Iterator[str]:
    if not goal.question.strip():
        yield "goal.question is empty; write the business question in one sentence"
    fitting = METRICS_OF[goal.task]
    if goal.metric not in fitting:
        yield f"goal.metric = {goal.metric!r} does not fit goal.task = {goal.task!r}; use {', '.join(fitting)}"
    if goal.minimum is not None and goal.maximum is not None:
        yield "goal.minimum and goal.maximum exclude each other; keep the one that fits the metric"
    yield from _criterion_problems(goal)
    if goal.cap is not None and goal.task != "rul":
        yield f"goal.cap is for goal.task = 'rul' only, the task is {goal.task!r}; remove it"
    if goal.costs and goal.task not in ("classification", "anomaly"):
        yield f"goal.costs are costs of wrong classes, the task is {goal.task!r}; remove them"


def _criterion_problems(goal: Goal) -> Iterator[str]:
    less = goal.metric in LESS_IS_BETTER
    if goal.minimum is not None and less:
        yield f"goal.minimum does not fit goal.metric = {goal.metric!r}, where less is better; set goal.maximum"
    if goal.maximum is not None and not less:
        yield f"goal.maximum does not fit goal.metric = {goal.metric!r}, where more is better; set goal.minimum"
    if goal.maximum is not None and not 0 <= goal.maximum < math.inf:
        yield f"goal.maximum = {goal.maximum} is not at least 0"
    least = -math.inf if goal.metric == "r2" else 0
    if goal.minimum is not None and not (least <= goal.minimum <= 1 and goal.minimum != -math.inf):
        yield f"goal.minimum = {goal.minimum} is not between {'minus infinity' if least else 0} and 1"
    if not less and goal.noninferior_margin > 1:
        yield f"goal.noninferior_margin = {goal.noninferior_margin} is not at most 1; 0.01 is one percentage point"


def _cost_problems(goal: Goal) -> Iterator[str]:
    for true, row in goal.costs.items():
        for answered, cost in row.items():
            if not 0 <= cost < math.inf:
                yield f"goal.costs.{true}.{answered} = {cost} is not at least 0"
            if true == answered and cost:
                yield f"goal.costs.{true}.{answered} = {cost}: a right answer costs 0"


def _source_problems(data: Source) -> Iterator[str]:
    is_sql = "://" in data.source or data.source.startswith("env:")
    if not data.source.strip():
        yield "data.source is empty; name a CSV or Parquet file, a database URL, or module:function"
    if is_sql and not data.query.strip():
        yield "data.source is a database: data.query must hold the SQL that selects the rows"
    if _PASSWORD.search(data.source):
        yield "data.source holds a password, which every run and package would record; export the URL and write env:NAME"
    if data.query and not is_sql:
        yield f"data.query needs a database URL as data.source, which is {data.source!r}"
    if data.arguments and not is_sql and ":" not in data.source:
        yield "data.arguments are for functions and SQL queries; a file takes none"
    for key, value in data.arguments.items():
        if not _is_plain(value):
            yield f"data.arguments.{key} = {value} holds a date or a number that is not finite, which a run cannot record; write it as text"
    if len(set(data.slices)) != len(data.slices):
        yield "data.slices names a column twice"


def _is_plain(value: object) -> bool:
    """Whether JSON keeps the value: a run records it, and a replay must pass the same."""
    if isinstance(value, dict | list):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _label_problems(tables: Tables) -> Iterator[str]:
    if tables.data.label:
        return
    if tables.goal.task != "rul":
        yield f"data.label is empty; goal.task = {tables.goal.task!r} needs the column of the answer"
    elif tables.data.group is None:
        yield "data.label is empty: remaining life is then the time to the end of a group; set data.group, or name a label column"


def _split_problems(data: Source) -> Iterator[str]:
    splits: Splits = data.splits
    if splits.validation + splits.test >= 1:
        yield f"data.splits.validation + data.splits.test = {splits.validation + splits.test:g} leaves no training rows; keep it below 1"
    if splits.method == "group" and data.group is None:
        yield "data.splits.method = 'group' needs data.group, the column that names what rows share"
    if splits.gap and splits.method != "time":
        yield f"data.splits.gap is for data.splits.method = 'time' only, the method is {splits.method!r}"
    if splits.method == "column" and not data.split:
        yield "data.splits.method = 'column' needs data.split, the column that says train, validation or test"


def _search_problems(search: Search) -> Iterator[str]:
    if not search.candidates:
        yield "search.candidates is empty; `edgefleet train --list-candidates` prints the names"
    if _PASSWORD.search(search.storage):
        yield "search.storage holds a password, which every run and package would record; export the URL and write env:NAME"
    if len(set(search.candidates)) != len(search.candidates):
        yield "search.candidates names a candidate twice"
    for name in search.parameters:
        if name not in search.candidates:
            yield f"search.parameters.{name}: {name!r} is not among search.candidates ({', '.join(search.candidates)})"
        if not _is_plain(search.parameters[name]):
            yield f"search.parameters.{name} holds a date or a number that is not finite; write finite numbers or text"


def _step_problems(step: CleaningStep, categories: list[str]) -> Iterator[str]:
    if not step.columns:
        yield "columns is empty; '*' is every column that the step fits"
    if step.step == "clip":
        if step.low is None and step.high is None:
            yield "a clip needs low, high or both"
        if step.low is not None and step.high is not None and not step.low < step.high:
            yield f"low = {step.low} is not below high = {step.high}"
        if step.quantile and not all(0 <= share <= 1 for share in (step.low, step.high) if share is not None):
            yield "with quantile = true, low and high are shares between 0 and 1"
    if not (math.isfinite(step.factor) and math.isfinite(step.offset)) or step.factor == 0:
        yield f"factor = {step.factor} and offset = {step.offset} must be finite and factor not 0"
    # Whether the text is one of the very column's categories is seen where steps meet columns.
    if step.step == "impute" and step.value not in ("median", "mean", "zero", "most_frequent", *categories) and not _is_number(step.value):
        yield f"value = {step.value!r} is not median, mean, zero, most_frequent, a number or a category of an input"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _window_problems(window: Window, data: Source) -> Iterator[str]:
    for lag in window.lags:
        if not 1 <= lag < window.rows:
            yield f"cleaning.window.lags holds {lag}, which is not between 1 and {window.rows - 1}; the window has {window.rows} rows"
    if len(set(window.features)) != len(window.features) or len(set(window.lags)) != len(window.lags):
        yield "cleaning.window.features or cleaning.window.lags names one twice"
    if window.rate_s is None and (window.hold or window.reset_after is not None):
        yield "cleaning.window.hold and cleaning.window.reset_after need cleaning.window.rate_s, the seconds of the grid"
    if window.rate_s is not None and data.time is None:
        yield "cleaning.window.rate_s needs data.time, the column of the row's time"
    if window.reset_after is not None and window.reset_after < window.hold:
        yield f"cleaning.window.reset_after = {window.reset_after} is below cleaning.window.hold = {window.hold}"
    if data.splits.method == "random":
        yield "data.splits.method = 'random' with a window puts the same rows on both sides; use 'time', 'group' or 'column'"
