"""What a scorer counts: the ring's rows when it is full or a window closes, batches at once, refusals as they come.

Not safe for threads; the scorer holds its lock.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_agent.detector import Detector
from device_agent.ring import NOT_ANSWERED, Ring
from device_agent.runtime import Matrix
from device_agent.telemetry.windows import Window, WindowCollector
from edgefleet.errors import ArtifactError

# The outlier detector's own failure, whose rows are answered all the same.
DETECTOR_FAILED: Final = "outlier-detector"


class Counting:
    """The statistics of one scorer.

    Args:
        windows: Counts one window of time after the other.
        ring: Rows that are not folded yet.
        detector: Judges rows that the model was given, in batches; None where there is none.
        features: Of one row; of a model of windows the newest row is counted.
    """

    def __init__(self, windows: WindowCollector, ring: Ring, detector: Detector | None, features: int) -> None:
        self._windows, self._ring, self._detector, self._features = windows, ring, detector, features
        self.reject = windows.reject

    def refuse(self, slot: int, reason: str) -> None:
        """Keep a row of the ring that parsed but got no answer, and count it by the reason."""
        ring = self._ring
        ring.latency_ns[slot] = NOT_ANSWERED
        ring.at = slot + 1
        if ring.at == ring.slots:
            self.fold()
        self._windows.reject(reason)

    def fold(self) -> None:
        """Count the rows that the ring holds, and empty it."""
        ring = self._ring
        filled = slice(0, ring.at)
        latencies = ring.latency_ns[filled]
        if NOT_ANSWERED in latencies:
            answered = np.array([ns != NOT_ANSWERED for ns in latencies], bool)
            latencies = [ns for ns in latencies if ns != NOT_ANSWERED]
        else:
            answered = np.ones(ring.at, bool)
        self._windows.fold(ring.rows[filled, -self._features :], ring.answers[filled], answered)
        if self._detector is not None:
            self.detect(ring.rows[filled][answered])
        self._windows.fold_latencies(latencies)
        ring.clear()

    def fold_batch(self, rows: Matrix, answers: Matrix, answered: NDArray[np.bool_]) -> None:
        """Count parsed rows [n, values] that did not go through the ring, with the answers of those that were answered."""
        self._windows.fold(rows[:, -self._features :], answers, answered)

    def detect(self, rows: Matrix) -> Matrix:
        """Outlier scores [n] of rows that the model was given, counted; NaN where the detector fails, which hurts no answer."""
        assert self._detector is not None  # noqa: S101  # both callers see to it
        try:
            scores = self._detector.scores(rows)
        except ArtifactError:
            self._windows.reject(DETECTOR_FAILED, len(rows))
            return np.full(len(rows), np.nan, np.float32)
        self._windows.fold_outliers(int(self._detector.outliers(scores).sum()))
        return scores

    def take(self, now_us: int) -> Window | None:
        """Close the window of time at `now_us`, microseconds UTC; None when no row came."""
        self.fold()
        return self._windows.take(now_us)
