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
