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
        evidence: The larger e-value of the late streams alone: what was known at the completion has been judged then.
    """

    word: Literal["nothing", "draft", "start"]
    evidence: float
    sentence: str


def judge_late(
    failed: int, devices: int, *, limit: float, on_late: OnLateEvidence, failed_latecomers: int = 0, latecomers: int = 0
) -> LateFinding:
    """Judge the failures that came after the completion.

    Two streams, never summed: a hold-back of which every device fails would vanish among twenty times as many that run well. Each is wrong
    by itself in at most one of `START_AT` good releases.

    Args:
        failed: Devices that failed after it.
        devices: Devices that were running the release when it was completed.
        limit: Share of failures that was good enough.
        on_late: Of the policy.
        failed_latecomers: Of the latecomers, those that failed.
        latecomers: Devices that began with the release after it.

    Raises:
        ConfigError: Counts that cannot be.
    """
    of_waves, of_latecomers = e_value(failed, devices, limit), e_value(failed_latecomers, latecomers, limit)
    evidence = max(of_waves, of_latecomers)
    share = failed / devices if devices else 0.0
    sentence = f"{failed} of {devices} devices ({share:.1%}) failed after the completion; evidence against {limit:.0%}: {of_waves:.3g}"
    if latecomers:
        share = failed_latecomers / latecomers
        sentence += f"; of those that took it on afterwards {failed_latecomers} of {latecomers} ({share:.1%}): {of_latecomers:.3g}"
    if failed + failed_latecomers == 0 or on_late == "ignore":
        return LateFinding("nothing", evidence, sentence)
    if on_late == "start" and evidence >= START_AT:
        return LateFinding("start", evidence, f"{sentence}, at least {START_AT:g}: the rollback starts by itself, as the policy says.")
    return LateFinding("draft", evidence, f"{sentence}: a rollback is drafted for a person to look at.")
