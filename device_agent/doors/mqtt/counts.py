"""What the MQTT door counts: rows, so that `offered = scored + rejected + shed`. A message whose rows were not read counts as one row."""

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counts:
    """The sums at one moment.

    Attributes:
        messages: Messages that came.
        offered: Their rows.
        scored: Rows answered.
        rejected: Rows refused or failed on, by reason.
        shed: Rows not looked at: the queue was full, the message too old, no model there, or the agent stopped.
        unsent: Answers that could not be handed to the broker, or that it refused.
    """

    messages: int = 0
    offered: int = 0
    scored: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    shed: int = 0
    unsent: int = 0

    def as_numbers(self) -> dict[str, int]:
        """The sums alone."""
        return {
            "messages": self.messages,
            "offered": self.offered,
            "scored": self.scored,
            "rejected": sum(self.rejected.values()),
            "shed": self.shed,
            "unsent": self.unsent,
        }


class Counting:
    """The running sums; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages = self._scored = self._shed = self._unsent = 0
        self._rejected: Counter[str] = Counter()

    def message(self, scored: int = 0, shed: int = 0, rejected: dict[str, int] | None = None) -> None:
        """Count one message by what became of its rows."""
        with self._lock:
            self._messages += 1
            self._scored += scored
            self._shed += shed
            self._rejected.update(rejected or {})

    def unsent(self) -> None:
        """Count an answer that nobody got."""
        with self._lock:
            self._unsent += 1

    def now(self) -> Counts:
        """The sums."""
        with self._lock:
            offered = self._scored + self._shed + self._rejected.total()
            return Counts(self._messages, offered, self._scored, dict(self._rejected), self._shed, self._unsent)
