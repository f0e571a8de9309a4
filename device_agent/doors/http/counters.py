"""What the door counts: rows so that `offered = scored + rejected + shed`, requests by route and status, and how long scoring took.

A request whose rows cannot be told counts as one row. Memory is bounded: routes, statuses and reasons are words of ours.
"""

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

# Upper bounds in seconds.
BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SHED: Final = "shed"


class Tally:
    """The rows of one request; `settle` makes the sum right when it ends early.

    Attributes:
        offered: Rows of the request; one until they are known.
        scored: Rows answered.
        rejected: Rows refused, by reason.
        shed: Rows not looked at.
    """

    __slots__ = ("offered", "rejected", "scored", "shed")

    def __init__(self) -> None:
        self.offered, self.scored, self.shed = 1, 0, 0
        self.rejected: dict[str, int] = {}

    def reject(self, reason: str, rows: int = 1) -> None:
        """Count refused rows."""
        if rows:
            self.rejected[reason] = self.rejected.get(reason, 0) + rows

    def settle(self, reason: str) -> None:
        """Count the rows that got no answer under the reason for which the request ended."""
        rest = self.offered - self.scored - self.shed - sum(self.rejected.values())
        if reason == SHED:
            self.shed += rest
        else:
            self.reject(reason, rest)


@dataclass
class Counts:
    """The sums at one moment.

    Attributes:
        offered: Rows that came.
        scored: Rows answered.
        shed: Rows not looked at because of overload or time.
        rejected: Rows refused by reason.
        requests: By (route, status).
        latency: Requests for scores by upper bound in `BUCKETS`; the last is beyond them.
        latency_s: Their seconds together.
    """

    offered: int = 0
    scored: int = 0
    shed: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    latency_s: float = 0.0

    def quantile_ms(self, share: float) -> float | None:
        """Upper bound in milliseconds of the bucket that holds this share of the requests; None without any, inf beyond the last."""
        wanted, seen = share * sum(self.latency), 0
        for count, bound in zip(self.latency, (*BUCKETS, float("inf")), strict=True):
            seen += count
            if seen and seen >= wanted:
                return bound * 1000
        return None


class Counters:
    """Sums since the start; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, route: str, status: int, tally: Tally | None = None, seconds: float = 0.0) -> None:
        """Count one request, and its rows where it asked for scores."""
        with self._lock:
            counts = self._counts
            counts.requests[route, status] += 1
            if tally is None:
                return
            counts.offered += tally.offered
            counts.scored += tally.scored
            counts.shed += tally.shed
            if tally.rejected:
                counts.rejected.update(tally.rejected)
            counts.latency[bisect_left(BUCKETS, seconds)] += 1
            counts.latency_s += seconds

    def add_unread(self, status: int, reason: str) -> None:
        """Count a request for scores that was answered before it was read: one row."""
        tally = Tally()
        tally.settle(reason)
        with self._lock:
            self._counts.requests["unread", status] += 1
            self._counts.offered += 1
            self._counts.shed += tally.shed
            self._counts.rejected.update(tally.rejected)

    def now(self) -> Counts:
        """A copy."""
        with self._lock:
            c = self._counts
            return Counts(c.offered, c.scored, c.shed, c.rejected.copy(), c.requests.copy(), list(c.latency), c.latency_s)
