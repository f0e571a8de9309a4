"""The trial: every row is scored by the running model, whose answer counts, and by the candidate, which is only compared.

Pure counting; the caller gives the monotonic time. Agreement is the share of rows with the same class among rows that both should answer;
a row that only the candidate cannot answer is a disagreement. It is judged once `agreement_rows` were seen, and from then on at every row.
"""

from dataclasses import dataclass, field
from enum import Enum

from edgefleet.desired import TrialPolicy


class TrialVerdict(Enum):
    """What the trial says now."""

    RUNNING = "running"
    OK = "ok"
    REJECTED = "rejected"
    TIMEOUT = "timeout"


@dataclass
class Trial:
    """One trial of one bundle.

    Attributes:
        policy: Its limits.
        started_s: Monotonic start.
        compared: Whether there is a running model to agree with.
        rows: Rows that the candidate answered.
        both: Rows that count for the agreement.
        agreed: Those with the same class.
        last_error: Text of the candidate's last failure, "" when there was none.
    """

    policy: TrialPolicy
    started_s: float
    compared: bool
    rows: int = 0
    both: int = 0
    agreed: int = 0
    last_error: str = field(default="")

    def count(self, running: str | None, candidate: str | None) -> None:
        """Count a row by the labels of both models; None is no answer."""
        if candidate is not None:
            self.rows += 1
        if running is not None:
            self.both += 1
            self.agreed += candidate == running

    @property
    def judged(self) -> bool:
        """Whether agreement is asked for at all."""
        return self.compared and self.policy.min_agreement is not None

    def verdict(self, now_s: float) -> tuple[TrialVerdict, str]:
        """The verdict at a monotonic time, and one sentence with its numbers."""
        policy, elapsed_s = self.policy, now_s - self.started_s
        agreement = self.agreed / self.both if self.both else 0.0
        enough = self.both >= max(policy.agreement_rows, 1)
        if self.judged and enough and policy.min_agreement is not None and agreement < policy.min_agreement:
            error = f"; last error: {self.last_error}" if self.last_error else ""
            return TrialVerdict.REJECTED, (
                f"agrees with the running model on {self.agreed} of {self.both} rows ({agreement:.1%}), "
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
            return "agreement skipped (first model on this device)"
        if self.policy.min_agreement is None:
            return f"agreement not judged ({self.policy.agreement_reason or 'switched off by the policy'})"
        return f"agreement {self.agreed} of {self.both}"
