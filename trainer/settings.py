"""The tables of project.toml, typed. Every attribute's line here is a line of docs/project-toml.md, which is generated from this file."""

from typing import Any, Final, Literal

import msgspec

from edgefleet.manifest import Input, RangePolicy
from trainer.settings_cleaning import Cleaning as Cleaning
from trainer.settings_cleaning import CleaningStep as CleaningStep
from trainer.settings_cleaning import StepKind as StepKind
from trainer.settings_cleaning import Window as Window
from trainer.settings_cleaning import WindowFeature as WindowFeature

# Tables of the design that this version does not read yet: silence about them would be a promise.
LATER_TABLES: Final = ("rollout", "retrain")

Metric = Literal[
    "accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "log_loss", "brier", "mean_cost", "rmse", "mae", "r2"
]  # fmt: skip
# Named and described in the converter's table of device profiles; a test holds the two together.
DeviceProfile = Literal[
    "", "cortex-m4", "esp32-s3", "cortex-m7", "raspberry-pi-zero-2", "raspberry-pi-4", "raspberry-pi-5", "intel-n100", "x86-server"
]  # fmt: skip
GoalTask = Literal["classification", "regression", "anomaly", "rul"]


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The success criteria, printed first in every report. Without a limit (`minimum` or `maximum`) nothing is blessed.

    Attributes:
        question: What the model answers, in one sentence: the business question.
        task: Kind of prediction; `rul` (remaining useful life) is a regression whose label may be derived from group and time.
        metric: What is measured; gate G4 judges it.
        minimum: The least value that helps, for metrics where more is better.
        maximum: The largest value that helps, for metrics where less is better (log_loss, brier, mean_cost, rmse, mae).
        name: Project name, an identifier; the folder's name when empty.
        positive: The class that binary metrics count as found; for `anomaly` the label of strange rows. Last in sorted order when empty.
        costs: Cost of each error, true class to answered class to cost; errors not named cost 1. They choose the decision threshold.
        noninferior_margin: Gate G7, how much worse than the champion is still acceptable, in units of the metric.
        max_false_alarm_fraction: For `anomaly`: share of normal rows that may be flagged; sets the decision threshold.
        cap: For `rul`: labels above it are cut to it, in units of the label; None cuts nothing.
    """

    question: str
    task: GoalTask = "classification"
    metric: Metric = "accuracy"
    minimum: float | None = None
    maximum: float | None = None
    name: str = ""
    positive: str = ""
    costs: dict[str, dict[str, float]] = {}
    noninferior_margin: float = 0.01
    max_false_alarm_fraction: float = 0.01
    cap: float | None = None


class Splits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How rows are split into train, validation and test.

    Attributes:
        method: `column` takes `data.split`; `random` draws rows, equal ones together (where at least half of the rows are different);
            `group` draws whole groups; `time` takes the oldest for training.
        validation: Share of validation rows (groups for `group`).
        test: Share of test rows (groups for `group`).
        gap: For `time`: rows dropped before each border, so that neighbours in time stand on one side only.
        equal_rows: Rows (windows) that equal one of a later split: `keep` leaves them to gate G3; `purge` leaves the earlier ones out.
        seed: Seed of the draw.
    """

    method: Literal["column", "random", "group", "time"] = "column"
    validation: float = 0.2
    test: float = 0.2
    gap: int = 0
    equal_rows: Literal["keep", "purge"] = "keep"
    seed: int = 0


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows come from and what its columns mean.

    Attributes:
        source: `module:function` that returns a pandas table, the path of a CSV or Parquet file relative to the project folder, or a
            SQLAlchemy URL (then `query` is needed); `env:NAME` takes the URL from an environment variable, for passwords.
        query: SQL that selects the rows.
        arguments: Passed to the function by name, or to the query as bound parameters.
        missing_values: Texts that stand for a missing value in a CSV file, beside the empty one.
        label: Column of the answer; for `rul` it may be empty: time to the end of its group.
        unlabelled: Rows with an empty label: `refuse` stops at the first; `drop` leaves them out (they still count inside windows).
        split: Column that says train, validation or test; used by `splits.method = "column"`.
        splits: How rows are split otherwise.
        slice: Column of the slice, or None: one slice.
        slices: Further columns whose values are slices.
        id: Column of the row's unique name, or None: the row number.
        group: Column that names what rows share (a patient, a machine, a scan), or None: rows are independent.
        time: Column of the row's time, a number of seconds or an ISO date; rows must be in its order within a group.
        weight: Column of the row's weight in training, or None: all the same.
        class_weight: `balanced` weights classes against their frequency in training.
        block_rows: Length of the reference's consecutive windows, in rows.
    """

    source: str
    query: str = ""
    arguments: dict[str, Any] = {}
    missing_values: list[str] = []
    label: str = "label"
    unlabelled: Literal["refuse", "drop"] = "refuse"
    split: str = "split"
    splits: Splits = Splits()
    slice: str | None = None
    slices: list[str] = []
    id: str | None = None
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    class_weight: Literal["none", "balanced"] = "none"
    block_rows: int = 50


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs generated from `schema.shape`: one per element, in row-major order.

    Attributes:
        name: Name of each; `{0}`, `{1}` are the element's indices.
        low: Least accepted value.
        high: Largest accepted value.
        range_policy: What happens outside [low, high]: refuse the row, clip the value, or only count it.
        unit: Unit of the values.
        missing: Whether a value may be missing.
    """

    name: str
    low: float | None = None
    high: float | None = None
    range_policy: RangePolicy = "count"
    unit: str = ""
    missing: bool = False


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs, written by `edgefleet init` and reviewed by you.

    Attributes:
        shape: Shape of one row's tensor, [inputs] when left out.
        pattern: Inputs by pattern; it excludes `inputs` and `numbers`.
        inputs: Inputs one by one.
        numbers: Names of further number inputs that may be anything and may not be missing: a short form of `inputs`.
    """

    shape: list[int] = []
    pattern: Pattern | None = None
    inputs: list[Input] = []
    numbers: list[str] = []


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Candidates to train, how their settings are searched, and the seed of everything random in them.

    Attributes:
        candidates: Names; `edgefleet train --list-candidates` prints them.
        seed: Seed, 0 to 2**32 - 1.
        trials: Settings tried for each candidate; 0 takes the candidate's defaults.
        seconds: The search of a candidate starts no trial after so long; None: no limit.
        objective: `metric`, or `metric+cost`: also the estimated size and latency on the device, and a Pareto front.
        prune: Bad trials are stopped early where the candidate reports its progress.
        storage: SQLAlchemy URL shared by several workers (`env:NAME` as in `data.source`); empty: a file in the project's cache folder.
        backend: joblib's backend for fits that run in parallel.
        jobs: Fits at a time.
        parameters: Settings by candidate that replace its defaults and are not searched.
    """

    candidates: list[str]
    seed: int = 0
    trials: int = 0
    seconds: float | None = None
    objective: Literal["metric", "metric+cost"] = "metric"
    prune: bool = True
    storage: str = ""
    backend: Literal["loky", "threading", "dask", "ray"] = "loky"
    jobs: int = 1
    parameters: dict[str, dict[str, Any]] = {}


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the gates that are not the goal's.

    Attributes:
        slice_minimum: Gate G5, least accuracy (classification) of every slice; without it the gate is skipped and says so.
        slice_maximum: Gate G5 for regression: largest mean absolute error of every slice.
        max_missing_fraction: Gate G2, largest share of missing values in a column.
        max_equal_rows_fraction: Gate G3, largest share of validation and test rows whose inputs equal a training row's. Tables of few,
            coarse columns repeat rows by chance and need more than 0.
        calibration: Gate G6: `gate` judges Spiegelhalter's z, `report` only shows it.
        calibrate: `sigmoid` or `isotonic` calibrates the winner's probabilities on validation rows; `none` leaves them.
        robustness_drop: Gate G8, largest drop of the metric under each disturbance, by kind (missing_5, missing_20, noise, dead_sensor,
            float32); kinds not named are only shown.
        fairness: Gate G10, columns whose groups must be treated alike.
        fairness_gap: Gate G10, largest gap of true positive, false positive and selection rate between groups.
        allow_inconclusive: Gates that may be inconclusive.
    """

    slice_minimum: float | None = None
    slice_maximum: float | None = None
    max_missing_fraction: float = 0.5
    max_equal_rows_fraction: float = 0.0
    calibration: Literal["gate", "report"] = "report"
    calibrate: Literal["none", "sigmoid", "isotonic"] = "none"
    robustness_drop: dict[str, float] = {}
    fairness: list[str] = []
    fairness_gap: float | None = None
    allow_inconclusive: list[str] = []


class Convert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conversion.

    Attributes:
        targets: Names of variants; empty means the converter's own choice.
        calibration_rows: Most calibration rows that integer variants look at; 0 takes all that the package has.
    """

    targets: list[str] = []
    calibration_rows: int = 0


class Explain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are explained on the device.

    Attributes:
        method: `auto` takes the exact method where there is one.
    """

    method: Literal["auto", "linear", "treeshap", "amortised", "sampled", "none"] = "auto"


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets of the device; None is no limit. Variants that exceed one are not in the bundle (gates C5 and C6).

    Attributes:
        latency_p95_ms: 95th percentile of one answer's time, measured on the converting machine, or estimated for `profile`.
        size_bytes: Of a variant's file.
        memory_bytes: Peak resident memory of the process that scores, measured on the converting machine, or estimated for `profile`.
        profile: Kind of device that latency and memory are estimated for, see "Device classes" in conversion.md; empty: the converting
            machine itself.
    """

    latency_p95_ms: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    profile: DeviceProfile = ""


class Tracking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where runs are mirrored, beside the run folder.

    Attributes:
        mlflow: URL of an MLflow server; empty: none.
        experiment: Experiment there; the project's name when empty.
    """

    mlflow: str = ""
    experiment: str = ""


class Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every table of project.toml."""

    goal: Goal
    data: Source
    schema: Schema
    search: Search
    cleaning: Cleaning = Cleaning()
    gates: Gates = Gates()
    convert: Convert = Convert()
    explain: Explain = Explain()
    device: Device = Device()
    tracking: Tracking = Tracking()
