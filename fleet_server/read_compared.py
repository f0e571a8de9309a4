"""What the page and the API show of the comparisons of a rollout."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ComparisonView:
    """One gate.

    Attributes:
        evidence: e-value that devices behave differently; all gates together pause at a mean of 100.
        devices: Devices that gave their difference.
        mean: Their mean difference, positive = worse, None without any; of several columns the one that changed most.
        tolerance: A mean difference up to it is the same.
        left_out: Reason -> devices that can give none, the most frequent reasons.
        unreadable: Some devices -> what could not be read; such a device keeps its wave from being mature.
        difference: What the difference is, in words.
    """

    gate: str
    evidence: float
    devices: int
    mean: float | None
    tolerance: float
    left_out: dict[str, int]
    unreadable: dict[str, str]
    difference: str


@dataclass(frozen=True)
class BesideView:
    """What is shown beside the comparisons and does not vote.

    Attributes:
        exposed: Devices that run the release, or try it.
        exposed_drifting: Of them, with an open drift alarm.
        others: Other devices of the project.
        others_drifting: Of them, with an open drift alarm.
        attribution_overlap: How much of what the release's answers rest on is what the release before rested on: the sum over inputs of
            the smaller share of mean absolute contributions, 0 to 1; None where one of them was not explained of late.
    """

    exposed: int
    exposed_drifting: int
    others: int
    others_drifting: int
    attribution_overlap: float | None
    sentence: str


@dataclass(frozen=True)
class ArmView:
    """One arm of an experiment.

    Attributes:
        devices: Planned.
        begun: Of batches that have begun.
        running: Of them, that run the arm's release.
        measured: Devices whose period is over.
        delivered: Of them, with enough rows.
        n: Of them, with a number.
        mean: Of the numbers, None without any.
        deviation: Standard deviation of one device's number, None with fewer than two.
    """

    arm: str
    release: str
    devices: int
    begun: int
    running: int
    measured: int
    delivered: int
    n: int
    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class QuestionView:
    """One thing that may end an experiment: what it is now, its limit, and one sentence."""

    name: str
    verdict: str
    now: str
    limit: str
    n: int
    sentence: str


@dataclass(frozen=True)
class ExperimentView:
    """An experiment as it stands.

    Attributes:
        experiment_id: Of its rollout too: start, pause, resume and roll back by it.
        ending: How it ended, "" while it has not.
        difference: Mean of B minus mean of A, in the unit of the metric; None before both arms have a number.
        half_width: The truth lies within difference +- this, at every look at once with 1 - alpha; None before two devices an arm.
        evidence: e-value that the arms differ; a winner needs 20.
        devices_needed: Devices of both arms after which the interval is no wider than the resolution, None before a deviation is known.
        winner_rollout_id: The draft that the winner became.
    """

    experiment_id: str
    project: str
    state: str
    version: int
    ending: str
    metric: str
    better: str
    resolution: float
    arms: list[ArmView]
    difference: float | None
    half_width: float | None
    evidence: float
    devices_needed: int | None
    questions: list[QuestionView]
    sentence: str
    missing: str
    winner_rollout_id: str | None
