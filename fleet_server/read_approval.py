"""What the API, the page and the command line show of approvals."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class ApprovalRow:
    """One person's approval; `counts` is False when the plan has changed since, or it is the creator's own."""

    approver: str
    approved_at: datetime
    note: str
    counts: bool


@dataclass(frozen=True)
class ApprovalView:
    """Where the approvals of a rollout stand.

    Attributes:
        digest: Of the plan as it is now: what an approval must name.
        needed: Approvals that the policy asks for.
        missing: What is missing before it can start, empty when nothing is.
        supersedes: The rollouts that its start would end, as they stand; "nothing" when there are none.
    """

    rollout_id: str
    state: str
    version: int
    digest: str
    needed: int
    approvals: list[ApprovalRow]
    missing: str
    supersedes: str
