"""Failures after a rollout was completed: its state stays final, and a linked rollback is drafted with the numbers."""

from dataclasses import dataclass
from typing import Final, Literal

from fleet_server.rollout.eprocess import e_value

START_AT: Final = 20.0

OnLateEvidence = Literal["draft", "start", "ignore"]


@dataclass(frozen=True)
class LateFinding:
    """What late failures say.

    Attributes:
        word: `nothing`, `draft` (a person decides) or `start` (the policy lets it begin by itself, and the evidence is there).
        evidence: e-value of the late stream alone: what was known at the completion has been judged then.
    """

    word: Literal["nothing", "draft", "start"]
    evidence: float
    sentence: str


def judge_late(failed: int, devices: int, *, limit: float, on_late: OnLateEvidence) -> LateFinding:
    """Judge the failures that came after the completion.

    Args:
        failed: Devices that failed after it.
        devices: Devices that were running the release when it was completed.
        limit: Share of failures that was good enough.
        on_late: Of the policy.

    Raises:
        ConfigError: Counts that cannot be.
    """
    evidence = e_value(failed, devices, limit)
    share = failed / devices if devices else 0.0
    sentence = f"{failed} of {devices} devices ({share:.1%}) failed after the completion; evidence against {limit:.0%}: {evidence:.3g}"
    if failed == 0 or on_late == "ignore":
        return LateFinding("nothing", evidence, sentence)
    if on_late == "start" and evidence >= START_AT:
        return LateFinding("start", evidence, f"{sentence}, at least {START_AT:g}: the rollback starts by itself, as the policy says.")
    return LateFinding("draft", evidence, f"{sentence}: a rollback is drafted for a person to look at.")
