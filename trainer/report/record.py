"""What a run report is written from: plain values, as run.json keeps them, checked against types.

Every field has a default: a report says what it was not told instead of failing, so that a run that broke half-way still has one. Unknown
fields are left alone, because a later version may record more.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from edgefleet.errors import ArtifactError
from trainer.dataset import SPLITS
from trainer.report.notes import Baseline as Baseline
from trainer.report.notes import BudgetNote as BudgetNote
from trainer.report.notes import CalibrationNote as CalibrationNote
from trainer.report.notes import CandidateNote as CandidateNote
from trainer.report.notes import ConfusionNote as ConfusionNote
from trainer.report.notes import DataNote as DataNote
from trainer.report.notes import ErrorNote as ErrorNote
from trainer.report.notes import GateNote as GateNote
from trainer.report.notes import ImportanceNote as ImportanceNote
from trainer.report.notes import Measure as Measure
from trainer.report.notes import OverrideNote as OverrideNote
from trainer.report.notes import ReliabilityBin as ReliabilityBin
from trainer.report.notes import ResidualNote as ResidualNote
from trainer.report.notes import RobustnessNote as RobustnessNote
from trainer.report.notes import SliceNote as SliceNote
from trainer.report.notes import ThresholdNote as ThresholdNote
from trainer.report.notes import Trial as Trial


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run report says.

    Attributes:
        id: Run.
        project: Project name.
        started_at: ISO time, UTC.
        seconds: Wall clock of the run.
        goal: The project's [goal] as plain values.
        verdict: packaged | refused | failed | interrupted | running | unreadable, or "".
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
