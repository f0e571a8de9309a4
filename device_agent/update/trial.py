"""The trial: every row is scored by the running model, whose answer counts, and by the candidate, which is only compared.

Pure counting; the caller gives the monotonic time. Agreement is the share of rows with the same answer among rows that both should answer;
a row that only the candidate cannot answer is a disagreement. It is judged once `agreement_rows` were seen, and from then on at every row.
The candidate answers off the hot path, within a budget; rows for which there was none are evidence neither way: they are counted and told.

The same answer is the same label: the class, or `normal` and `strange` of a detector with a threshold (their scores have no common unit).
Values of a regression are the same within half a standard deviation of the running model's values on its validation rows: two good models
of one target differ by far less, and one that has lost its input or its unit by far more.
"""

import threading
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from device_agent.sameness import Said, same_answer
from edgefleet.desired import TrialPolicy
from edgefleet.manifest import Manifest

if TYPE_CHECKING:
    from device_agent.scorer import Scorer

VALUE_TOLERANCE_SPREADS: Final = 0.5
FIRST_MODEL: Final = "first model on this device"


class TrialVerdict(Enum):
    """What the trial says now."""

    RUNNING = "running"
    OK = "ok"
    REJECTED = "rejected"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class Likeness:
    """How the answers of two models are compared.

    Attributes:
        compared: Whether they can be compared at all.
        tolerance: Largest difference of two values that are the same answer, in the target's unit; of no meaning for labels.
        skipped: Why they are not compared.
    """

    compared: bool
    tolerance: float = 0.0
    skipped: str = ""


def likeness(running: Manifest | None, candidate: Manifest, spread: float | None) -> Likeness:
    """How a candidate is compared with the running model.

    Args:
        running: Of the running model, None before the first.
        candidate: Of the candidate.
        spread: Standard deviation of the running model's values, None when unknown.
    """
    if running is None:
        return Likeness(False, skipped=FIRST_MODEL)
    if running.task != candidate.task:
        return Likeness(False, skipped=f"a {candidate.task} model follows a {running.task} model")
    if running.task == "classification":
        return Likeness(True)
    if running.task == "anomaly":
        decided = running.threshold is not None and candidate.threshold is not None
        return Likeness(True) if decided else Likeness(False, skipped="a detector without a threshold decides nothing")
    if spread is None or not spread > 0:
        return Likeness(False, skipped="the running bundle does not say how far its values spread")
    return Likeness(True, VALUE_TOLERANCE_SPREADS * spread)


@dataclass
class Trial:
    """One trial of one bundle.

    Attributes:
        policy: Its limits.
        started_s: Monotonic start.
        compared: Whether there is a running model to agree with.
        rows: Rows that the candidate answered.
        both: Rows that count for the agreement.
        agreed: Those with the same answer.
        last_error: Text of the candidate's last failure, "" when there was none.
        tolerance: See `Likeness`.
        skipped: Why there is nothing to agree with.
        shed: Rows that the candidate was not asked, because it could not keep up.
    """

    policy: TrialPolicy
    started_s: float
    compared: bool
    rows: int = 0
    both: int = 0
    agreed: int = 0
    last_error: str = field(default="")
    tolerance: float = 0.0
    skipped: str = FIRST_MODEL
    shed: int = 0
    # A verdict between two of a row's counts would see an agreement that never was.
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, running: Said, candidate: Said) -> None:
        """Count a row by what both models said."""
        with self._lock:
            if candidate is not None:
                self.rows += 1
            if running is not None:
                self.both += 1
                self.agreed += same_answer(running, candidate, self.tolerance)

    def count_shed(self, rows: int) -> None:
        """Count rows that the candidate was not asked."""
        with self._lock:
            self.shed += rows

    @property
    def judged(self) -> bool:
        """Whether agreement is asked for at all."""
        return self.compared and self.policy.min_agreement is not None

    def verdict(self, now_s: float) -> tuple[TrialVerdict, str]:
        """The verdict at a monotonic time, and one sentence with its numbers."""
        with self._lock:
            verdict, told = self._verdict(now_s)
            return verdict, f"{told}; {self.shed} rows were not compared, the device was too busy" if self.shed else told

    def _verdict(self, now_s: float) -> tuple[TrialVerdict, str]:
        policy, elapsed_s = self.policy, now_s - self.started_s
        agreement = self.agreed / self.both if self.both else 0.0
        enough = self.both >= max(policy.agreement_rows, 1)
        if self.judged and enough and policy.min_agreement is not None and agreement < policy.min_agreement:
            error = f"; last error: {self.last_error}" if self.last_error else ""
            return TrialVerdict.REJECTED, (
                f"agrees with the running model on {self.agreed} of {self.both} rows{self._within()} ({agreement:.1%}), "
                f"at least {policy.min_agreement:.1%} is needed{error}"
            )
        soaked = elapsed_s >= policy.soak_s and self.rows >= policy.soak_rows
        if soaked and (enough or not self.judged):
            return TrialVerdict.OK, f"{self.rows} rows in {elapsed_s:.0f} s, {self._agreement()}"
        if elapsed_s >= policy.timeout_s:
            return TrialVerdict.TIMEOUT, (
                f"not through after {elapsed_s:.0f} s (limit {policy.timeout_s:.0f} s): "
                f"{self.rows} of {policy.soak_rows} rows, {self._agreement()}"
            )
        return TrialVerdict.RUNNING, f"{self.rows} rows in {elapsed_s:.0f} s, {self._agreement()}"

    def _agreement(self) -> str:
        if not self.compared:
            return f"agreement skipped ({self.skipped})"
        if self.policy.min_agreement is None:
            return f"agreement not judged ({self.policy.agreement_reason or 'switched off by the policy'})"
        return f"agreement {self.agreed} of {self.both}{self._within()}"

    def _within(self) -> str:
        return f" within {self.tolerance:.3g}" if self.tolerance else ""


def against(running: "Scorer | None", candidate: "Scorer", policy: TrialPolicy, started_s: float) -> Trial:
    """The trial of a candidate against the model that runs, None before the first."""
    before = (None, None) if running is None else (running.bundle.manifest, running.score_spread)
    like = likeness(before[0], candidate.bundle.manifest, before[1])
    return Trial(policy, started_s, like.compared, tolerance=like.tolerance, skipped=like.skipped)
