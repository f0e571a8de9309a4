"""Actions of the engine with what they were decided on: frozen values for the API."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Decision:
    """One action of the engine.

    Attributes:
        version: Of the rollout as it was found.
        action: What was done.
        facts_digest: Of rollout, facts and time.
        kept: Whether they are kept, so that it can be decided again.
    """

    version: int
    decided_at: datetime
    action: str
    facts_digest: str
    kept: bool


@dataclass(frozen=True)
class DecidedView:
    """One decision with what it rested on.

    Attributes:
        version: Of the rollout as it was found.
        action: What was done.
        again: What the engine of today would do on the same facts; "" for nothing.
        reason: Its sentence.
        document: Rollout, facts and time.
    """

    version: int
    decided_at: datetime
    action: str
    facts_digest: str
    again: str
    reason: str
    document: dict[str, Any]
