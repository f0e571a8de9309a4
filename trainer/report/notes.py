"""The parts of a run report's record, plain values; every field has a default. A part of `record.py`, which names them again."""

from typing import Any

import msgspec


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """A value with its two-sided 95 % interval over n rows."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0


class GateNote(msgspec.Struct, frozen=True, kw_only=True):
    """A gate's verdict; low and high are the bounds that were judged."""

    gate: str
    verdict: str
    sentence: str = ""
    value: float | None = None
    limit: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What needs no model, or the least of models."""

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seconds: float | None = None


class CandidateNote(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on the validation rows.

    Attributes:
        name: Candidate name.
        value: The goal's metric.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: Rows.
        seconds: Time of the fit (the search included).
        package: Folder name of its model package, or "".
        gates: Its verdicts.
        baseline_beaten: Whether it beat the best baseline; None: not compared.
        size_bytes: Of the model, estimated for the device.
        latency_us: Of one answer, estimated for the device.
        failed: Why it has no value, or "".
    """

    name: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    seconds: float | None = None
    package: str = ""
    gates: list[GateNote] = []
    baseline_beaten: bool | None = None
    size_bytes: float | None = None
    latency_us: float | None = None
    failed: str = ""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One setting that a search tried."""

    number: int
    value: float | None = None
    state: str = ""
    seconds: float | None = None
    parameters: dict[str, Any] = {}
    size_bytes: float | None = None
    latency_us: float | None = None
    pareto: bool = False


class SliceNote(msgspec.Struct, frozen=True, kw_only=True):
    """Part of the rows: where `column` is `name`."""

    column: str = ""
    name: str = ""
    n: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows answered with probability `low` to `high`: mean `confidence`, and the `share` that came true with its interval."""

    low: float = 0.0
    high: float = 1.0
    n: int = 0
    confidence: float | None = None
    share: float | None = None
    share_low: float | None = None
    share_high: float | None = None


class CalibrationNote(msgspec.Struct, frozen=True, kw_only=True):
    """How far probabilities can be taken at their word; z is Spiegelhalter's."""

    bins: list[ReliabilityBin] = []
    ece: float | None = None
    z: float | None = None
    slope: float | None = None
    intercept: float | None = None


class ThresholdNote(msgspec.Struct, frozen=True, kw_only=True):
    """The decision threshold, the costs that chose it, and the mean cost a row by threshold."""

    value: float | None = None
    costs: dict[str, Any] = {}
    curve: list[tuple[float, float | None]] = []


class ConfusionNote(msgspec.Struct, frozen=True, kw_only=True):
    """Counts[true class][answered class]."""

    classes: list[str] = []
    counts: list[list[int]] = []


class ResidualNote(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of rows of a regression."""

    predicted: list[float | None] = []
    actual: list[float | None] = []


class ErrorNote(msgspec.Struct, frozen=True, kw_only=True):
    """One of the worst answers; inputs by name."""

    row_id: str = ""
    label: str | float | None = None
    answer: str | float | None = None
    score: float | None = None
    inputs: dict[str, Any] = {}


class ImportanceNote(msgspec.Struct, frozen=True, kw_only=True):
    """Share of an input, or what is lost without it."""

    name: str
    share: float | None = None
    low: float | None = None
    high: float | None = None


class RobustnessNote(msgspec.Struct, frozen=True, kw_only=True):
    """The metric under one disturbance; `upper` is the one-sided 95 % bound of the drop."""

    kind: str
    value: float | None = None
    drop: float | None = None
    upper: float | None = None
    limit: float | None = None
    verdict: str = ""


class BudgetNote(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of the device."""

    name: str
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    verdict: str = ""


class OverrideNote(msgspec.Struct, frozen=True, kw_only=True):
    """A gate that a person overruled."""

    gate: str
    reason: str = ""


class DataNote(msgspec.Struct, frozen=True, kw_only=True):
    """What the rows were.

    Attributes:
        source: Where they came from, as project.toml says it.
        rows: Rows that obey the schema.
        breaches: Rows that do not.
        named_breaches: The first of them.
        inputs: Number of inputs.
        splits: Rows by split.
        method: How they were split.
        groups: Number of groups, or None.
        classes: Rows by class and split: {class: {split: n}}.
        digest: Sha256 of the rows.
        window_rows: Rows that one answer needs.
    """

    source: str = ""
    rows: int | None = None
    breaches: int = 0
    named_breaches: list[str] = []
    inputs: int | None = None
    splits: dict[str, int] = {}
    method: str = ""
    groups: int | None = None
    classes: dict[str, dict[str, int]] = {}
    digest: str = ""
    window_rows: int = 1
