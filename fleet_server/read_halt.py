"""What the API, the page and the command line show of a fleet halt."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class PendingRollout:
    """A rollout that waits for the lift, rollbacks first."""

    rollout_id: str
    project: str
    state: str
    is_rollback: bool


@dataclass(frozen=True)
class HaltView:
    """Whether the fleet is halted.

    Attributes:
        halted: Nothing begins anywhere, and the server decides nothing.
        sentence: The same in words.
        since: Start of the halt; of a lifted one, when it had begun; None when there never was one.
        counter: Of the newest document, 0 when there never was one.
        devices_know: Devices that said that they know the newest document.
        devices_all: Enrolled devices.
        documents_refused: Documents that devices refused since their starts: not signed by us, malformed, or older than the one they know.
        pending: What goes on after the lift, rollbacks first.
    """

    halted: bool
    sentence: str
    since: datetime | None = None
    issued_at: datetime | None = None
    reason: str = ""
    ordered_by: str = ""
    counter: int = 0
    devices_know: int = 0
    devices_all: int = 0
    documents_refused: int = 0
    pending: list[PendingRollout] = field(default_factory=list)
