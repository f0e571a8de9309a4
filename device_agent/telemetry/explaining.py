"""Sampled explanations: every k-th row within a budget of processor time, summed per window; a few also travel one by one.

Sums are additive and hold no row: [rows, sum of contributions, sum of their absolute values] per model. What the budget did not allow is
counted as skipped. Price: at most `cpu_fraction` of one core in the long run, and one explanation at once.
A single row that is due is explained when it is answered; those of a batch, and of the HTTP door, wait for the reports' thread, so that
nobody waits for them.
"""

import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.messages import AttributionSums

RECORDS_PER_MINUTE: Final = 20


@dataclass
class _Sums:
    rows: int
    total: NDArray[np.float64]
    absolute: NDArray[np.float64]


class SampledExplanations:
    """Decides which rows are explained, and sums the answers; safe for threads.

    Args:
        every: Every k-th row is due, the first of each model too; 0 is never.
        cpu_fraction: Share of one core that explanations may take, above 0.

    Attributes:
        explained: Rows explained since the start.
        skipped: Rows that were due, but the budget was used up.
    """

    def __init__(self, every: int, cpu_fraction: float) -> None:
        self._every, self._fraction = every, cpu_fraction
        self._lock = threading.Lock()
        self._debt_s, self._at_s = 0.0, 0.0
        self._digest, self._rows, self._owed = "", 0, False
        self._sums: dict[str, _Sums] = {}
        self._skips: dict[str, int] = {}
        self._records: list[float] = []
        self.explained = self.skipped = 0

    def due(self, model_digest: str, now_s: float) -> bool:
        """Whether the next row of this model is explained, at a monotonic time.

        A row that was due when the budget was used up is made up for by the first row that comes when there is some again.
        """
        if not self._every:
            return False
        with self._lock:
            if model_digest != self._digest:
                self._digest, self._rows, self._owed = model_digest, 0, False
            due = self._rows % self._every == 0
            self._rows += 1
            if not due and not self._owed:
                return False
            self._pay(now_s)
            if due and self._owed:
                self._skip(model_digest)  # the one before is not made up for any more
            self._owed = self._debt_s > 0.0
            return not self._owed

    def due_in(self, model_digest: str, rows: int) -> range:
        """Which rows of a batch of this model are due; they are explained later, or counted by `skip`."""
        if not self._every:
            return range(0)
        with self._lock:
            if model_digest != self._digest:
                self._digest, self._rows, self._owed = model_digest, 0, False
            first = -self._rows % self._every
            self._rows += rows
            return range(first, rows, self._every)

    def affords(self, now_s: float, ahead_s: float) -> bool:
        """Whether another explanation may begin that the budget of the next seconds pays."""
        with self._lock:
            self._pay(now_s)
            return self._debt_s <= self._fraction * ahead_s

    def skip(self, model_digest: str, rows: int = 1) -> None:
        """Rows that were due and will not be explained."""
        with self._lock:
            self._skip(model_digest, rows)

    def _pay(self, now_s: float) -> None:
        self._debt_s = max(0.0, self._debt_s - self._fraction * max(0.0, now_s - self._at_s))
        self._at_s = now_s

    def _skip(self, model_digest: str, rows: int = 1) -> None:
        self.skipped += rows
        self._skips[model_digest] = self._skips.get(model_digest, 0) + rows

    def spent(self, cpu_s: float) -> None:
        """An explanation took this much processor time, whether it succeeded or not."""
        with self._lock:
            self._debt_s += max(cpu_s, 0.0)

    def add(self, model_digest: str, contributions: Any) -> None:
        """Sum the contributions [F] of one explained row; one with a value that is not finite is skipped and counted so."""
        values = np.asarray(contributions, np.float64).ravel()
        with self._lock:
            known = self._sums.setdefault(model_digest, _Sums(0, np.zeros(len(values)), np.zeros(len(values))))
            if len(known.total) != len(values) or not np.isfinite(values).all():
                self._skip(model_digest)
                return
            known.rows += 1
            known.total += values
            known.absolute += np.abs(values)
            self.explained += 1

    def may_travel_alone(self, now_s: float) -> bool:
        """Whether this explanation is also sent as a record of its own: at most 20 a minute, so that nobody can flood the spool."""
        with self._lock:
            self._records = [at for at in self._records if now_s - at < 60.0]
            if len(self._records) >= RECORDS_PER_MINUTE:
                return False
            self._records.append(now_s)
            return True

    def take(self, model_digest: str) -> AttributionSums | None:
        """The sums of one model since the last call, None when no row was due."""
        with self._lock:
            sums, skipped = self._sums.pop(model_digest, None), self._skips.pop(model_digest, 0)
        if sums is None or not sums.rows:
            return AttributionSums(skipped=skipped) if skipped else None
        return AttributionSums(rows=sums.rows, total=sums.total.tolist(), absolute=sums.absolute.tolist(), skipped=skipped)

    def forget_others(self, model_digest: str) -> None:
        """Drop what belongs to models whose last window has gone: a row that was explained while its model was replaced."""
        with self._lock:
            for digest in [d for d in (*self._sums, *self._skips) if d != model_digest]:
                self._sums.pop(digest, None)
                self._skips.pop(digest, None)
