"""What a run report is written from: plain values, as run.json keeps them, checked against types.

Every field has a default: a report says what it was not told instead of failing, so that a run that broke half-way still has one. Unknown
fields are left alone, because a later version may record more.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.errors import ArtifactError
from trainer.dataset import SPLITS

# Metrics of which less is better; the others are better when larger.
LESS_IS_BETTER: Final = frozenset({"log_loss", "brier", "mean_cost", "rmse", "mae"})


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


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run report says.

    Attributes:
        id: Run.
        project: Project name.
        started_at: ISO time, UTC.
        seconds: Wall clock of the run.
        goal: The project's [goal] as plain values.
        verdict: blessed | refused | failed | inconclusive, or "".
        reason: One sentence.
        question: The business question.
        task: Kind of prediction.
        metric: The goal's metric.
        minimum: Its least value, or None.
        maximum: Its largest value, or None.
        data: What the rows were.
        baselines: Majority or mean, linear.
        candidates: All of them, the winner first or by value.
        trials: By candidate.
        winner: Name of the chosen candidate, or "".
        gates: Verdicts on the rows and on the winner; the winner's own are taken where this is empty.
        metrics: By split, by metric.
        slices: Declared ones and the worst found.
        calibration: Of the winner, or None.
        threshold: Or None.
        confusion: Or None.
        residuals: Or None.
        curves: Training curve, {"step": 1, "loss": .., "validation": ..} an epoch.
        errors: The worst rows.
        importance: Inputs, largest first.
        robustness: Disturbances.
        budgets: Of the device.
        overrides: Gates overruled by a person.
        remarks: Sentences about the candidates.
        provenance: Plain values: versions, commit, digests, seeds.
        reproduce: Command line that repeats the run.
        evaluated_on: Which split slices, calibration, confusion, residuals and errors come from.
    """

    id: str = ""
    project: str = ""
    started_at: str = ""
    seconds: float | None = None
    goal: dict[str, Any] = {}
    verdict: str = ""
    reason: str = ""
    question: str = ""
    task: str = ""
    metric: str = ""
    minimum: float | None = None
    maximum: float | None = None
    data: DataNote = DataNote()
    baselines: list[Baseline] = []
    candidates: list[CandidateNote] = []
    trials: dict[str, list[Trial]] = {}
    winner: str = ""
    gates: list[GateNote] = []
    metrics: dict[str, dict[str, Measure]] = {}
    slices: list[SliceNote] = []
    calibration: CalibrationNote | None = None
    threshold: ThresholdNote | None = None
    confusion: ConfusionNote | None = None
    residuals: ResidualNote | None = None
    curves: list[dict[str, float | None]] = []
    errors: list[ErrorNote] = []
    importance: list[ImportanceNote] = []
    robustness: list[RobustnessNote] = []
    budgets: list[BudgetNote] = []
    overrides: list[OverrideNote] = []
    remarks: list[str] = []
    provenance: dict[str, Any] = {}
    reproduce: str = ""
    evaluated_on: str = "validation"

    @property
    def chosen(self) -> CandidateNote | None:
        """The winner, or None."""
        return next((candidate for candidate in self.candidates if candidate.name == self.winner), None)

    @property
    def judged(self) -> list[GateNote]:
        """Verdicts to show: the run's own, else the winner's."""
        return self.gates or (self.chosen.gates if self.chosen else [])

    @property
    def criterion(self) -> str:
        """The success criterion in words.

        >>> RunRecord(metric="rmse", maximum=3.0).criterion
        'rmse at most 3'
        """
        limits = [(word, limit) for word, limit in (("at least", self.minimum), ("at most", self.maximum)) if limit is not None]
        if not limits:
            return "no criterion declared: nothing is blessed"
        return " and ".join(f"{self.metric} {word} {limit:g}" for word, limit in limits)


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits as people read them; run.json sorts its keys.

    >>> in_order(["test", "train", "validation"])
    ['train', 'validation', 'test']
    """
    return sorted(splits, key=lambda split: (SPLITS.index(split) if split in SPLITS else len(SPLITS), split))


def read_record(record: Mapping[str, Any]) -> RunRecord:
    """A record from plain values; `question`, `task`, `metric` and limits are taken from `goal` where they are not given.

    Raises:
        ArtifactError: A field has the wrong type; the message names it.
    """
    goal = record.get("goal") or {}
    known = ("question", "task", "metric", "minimum", "maximum")
    whole = {key: goal[key] for key in known if isinstance(goal, Mapping) and key in goal}
    whole |= {key: value for key, value in record.items() if value is not None}
    try:
        return msgspec.convert(_plain(whole), RunRecord, strict=False)
    except msgspec.ValidationError as err:
        raise ArtifactError(f"the run's record cannot be reported: {err}; it was written by another version or by hand") from err


def _plain(value: Any) -> Any:
    """Numpy's scalars, typed structs and numbers that are not finite as run.json would hold them."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.to_builtins(value))
    if isinstance(value, np.generic):
        value = value.item()
    # JSON has no other numbers: a report of run.json and one of the living record must be the same.
    return None if isinstance(value, float) and not math.isfinite(value) else value
