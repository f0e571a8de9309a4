"""The table [cleaning] of project.toml, typed; a part of `settings.py`, which names everything of it again."""

from typing import Literal

import msgspec

StepKind = Literal["impute", "indicator", "clip", "log", "sqrt", "scale", "unit", "one_hot", "ordinal", "drop"]


class CleaningStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cleaning step over some columns. Steps run in the order written.

    Attributes:
        step: `impute` (missing becomes `value`), `indicator` (adds a column that is 1 where the value is missing), `clip` (to [low, high]),
            `log` (log1p), `sqrt`, `scale` (to mean 0 and deviation 1 of the training rows), `unit` (multiply by `factor`, add `offset`),
            `one_hot` (a column a category), `ordinal` (the category's index as a number; unseen becomes missing), `drop`.
        columns: Which inputs; `*` is every column that the step fits.
        value: For impute: `median`, `mean`, `zero` or `most_frequent` of the training rows, or a number as text; of a category
            `most_frequent` or one of its texts.
        low: For clip: a number; with `quantile` a share.
        high: For clip: a number; with `quantile` a share.
        quantile: For clip: low and high are shares of the training rows.
        factor: For unit.
        offset: For unit.
    """

    step: StepKind
    columns: list[str] = msgspec.field(default_factory=lambda: ["*"])
    value: str = "median"
    low: float | None = None
    high: float | None = None
    quantile: bool = False
    factor: float = 1.0
    offset: float = 0.0


WindowFeature = Literal["last", "mean", "variance", "min", "max", "range", "difference", "missing_count"]


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers from the last `rows` rows of a group instead of one.

    Attributes:
        rows: Rows that one answer needs, oldest first.
        features: What is computed of each column over the window; empty hands the whole window to the candidate (networks).
        lags: Further features: the value so many rows ago.
        stride: For training: every so-many-th window is a row.
        rate_s: Rows are put on a grid of this many seconds first; None takes them as they come.
        hold: With `rate_s`: grid points for which the last value may stand; then it is missing.
        reset_after: With `rate_s`: a gap of more grid points empties the window.
        fill: Missing values inside the window take the last value before them.
    """

    rows: int
    features: list[WindowFeature] = []
    lags: list[int] = []
    stride: int = 1
    rate_s: float | None = None
    hold: int = 0
    reset_after: int | None = None
    fill: bool = False


class Cleaning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cleaning, compiled into the exported graph.

    Attributes:
        steps: In order.
        window: Windows over a time series; the steps run before its features.
    """

    steps: list[CleaningStep] = []
    window: Window | None = None
