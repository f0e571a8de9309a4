"""What is counted about one window of time: additive, mergeable, without payload.

Statistics hold every row that parses, before the range policy; of a model of windows the newest row of each window. Classes, scores and
latencies hold answered rows only; rows refused are counted by reason. Latencies are those of single-row calls up to the model's answer:
batches and explanations are not in them.
No clock in here: `now_us` is an argument. Memory is that of one `InputStatistics`, whatever the number of rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_agent.decision import Decision
from edgefleet import latency
from edgefleet.messages import WindowBody
from edgefleet.reference import BINS, Reference, score_histogram
from edgefleet.statistics import InputStatistics

# Reason for a model that ran but answered NaN; the other reasons are those of RowRejected.
NO_ANSWER: Final = "no-answer"


@dataclass(frozen=True)
class Window:
    """A closed window: times in microseconds UTC, the digest of the graph that answered, and the body that goes on the wire."""

    start_at: int
    end_at: int
    model_digest: str
    body: WindowBody


class WindowCollector:
    """Counts one window after the other.

    Args:
        reference: Bins to count in.
        decision: How answers are read. Without classes none are counted, and scores only where the reference has edges for them.
        bundle_digest: Stands in every window.
        model_digest: The same.
        start_us: When the first window begins, microseconds UTC.
        detects: Whether outliers are counted.
    """

    def __init__(
        self, reference: Reference, decision: Decision, bundle_digest: str, model_digest: str, start_us: int, detects: bool = False
    ) -> None:
        self._reference, self._bundle_digest, self._model_digest = reference, bundle_digest, model_digest
        self._decision, self._classes, self._start_us = decision, len(decision.classes), start_us
        self._detects = detects
        self._score_bins = BINS if self._classes or reference.score_edges is not None else 0
        self._reset()

    def reject(self, reason: str, rows: int = 1) -> None:
        """Count refused rows."""
        self._rejected[reason] += rows

    def fold(self, rows: NDArray[np.float32], answers: NDArray[np.float32], answered: NDArray[np.bool_]) -> None:
        """Add parsed rows [n, F] and the answers of those that were answered.

        Args:
            rows: As they came in, before the range policy; of windows the newest row of each.
            answers: [n, width] as `Decision` reads them; rows that were not answered are ignored.
            answered: [n].
        """
        self._statistics.update(rows, self._reference)
        if self._decision.classes:
            answers = answers[:, self._decision.margins :]
        if not answered.all():
            answers = answers[answered]
        if not np.isfinite(answers).all():
            good = np.isfinite(answers).all(axis=1)
            self.reject(NO_ANSWER, int((~good).sum()))
            answers = answers[good]
        self._fold_answers(answers)

    def _fold_answers(self, answers: NDArray[np.float32]) -> None:
        """Add finite answers: probabilities, or margins where there are no classes."""
        self._answered += len(answers)
        if self._classes:
            index = self._decision.answered(answers)
            self._class_counts += np.bincount(index, minlength=self._classes)
            scores = answers[np.arange(len(answers)), index].astype(np.float64)
        else:
            scores = answers[:, 0].astype(np.float64)
        if self._score_bins:
            self._score_counts += score_histogram(scores, None if self._classes else self._reference.score_edges)
        self._score_sum += float(scores.sum())

    def fold_outliers(self, outliers: int) -> None:
        """Add rows that the model was given and the detector flagged."""
        self._outliers += outliers

    def fold_latencies(self, nanoseconds: Sequence[int]) -> None:
        """Add latencies of answered calls."""
        if len(nanoseconds):
            self._latency += latency.count_latencies(nanoseconds)

    def take(self, now_us: int) -> Window | None:
        """Close the window and begin the next; None when no row was seen, then the window goes on.

        Args:
            now_us: Microseconds UTC; a clock that went back ends the window where it began, and the next one begins where the clock is:
                else one leap into the future and back would give every later window a length of zero, for years.
        """
        if not self._statistics.rows and not self._rejected:
            return None
        end_us = max(now_us, self._start_us)
        body = WindowBody(
            bundle_digest=self._bundle_digest,
            statistics=self._statistics.to_bytes(),
            answered=self._answered,
            classes=self._class_counts.tolist(),
            scores=self._score_counts.tolist(),
            latency_us=latency.power_of_two(self._latency),
            rejected=dict(self._rejected),
            score_sum=self._score_sum,
            outliers=self._outliers if self._detects else None,
            latency_eighths=latency.to_wire(self._latency),
        )
        window = Window(start_at=self._start_us, end_at=end_us, model_digest=self._model_digest, body=body)
        self._start_us = now_us
        self._reset()
        return window

    def _reset(self) -> None:
        self._statistics = InputStatistics.empty(self._reference)
        self._answered, self._outliers, self._score_sum = 0, 0, 0.0
        self._class_counts = np.zeros(self._classes, np.int64)
        self._score_counts = np.zeros(self._score_bins, np.int64)
        self._latency = latency.empty()
        self._rejected: Counter[str] = Counter()
