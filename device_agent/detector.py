"""The outlier detector: whether a row is unlike the training rows, asked beside the model and never in its way.

A run of the detector costs as much as one of a small model, so that single rows are judged when somebody reads `Score.outlier`, and counted
for the statistics in batches when the ring is folded. Judged are the values as they came in: one that the range policy clips is strange.
"""

import math
import threading
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.forking import mend_after_fork
from device_agent.runtime import Matrix, Session
from edgefleet.errors import ArtifactError


class Detector:
    """A detector's graph and its threshold; safe for threads, and of use as long as somebody holds it.

    Attributes:
        threshold: A row whose score is above it is an outlier.
    """

    def __init__(self, session: Session, threshold: float) -> None:
        self.threshold = threshold
        self._session = session
        self._lock: AbstractContextManager[Any] = threading.Lock()
        mend_after_fork(self)

    def _reload(self) -> None:
        """A forked child needs a free lock only: scores of the parent may still be asked whether they are of outliers."""

    def scores(self, rows: Matrix) -> Matrix:
        """Scores [n] of rows [n, values], larger = stranger.

        Raises:
            ArtifactError: The runtime failed on them.
        """
        if len(rows) == 0:
            return np.zeros(0, np.float32)
        try:
            with self._lock:
                return self._session.run(rows.reshape(-1, *self._session.shape))[0][:, 0]
        except Exception as err:  # a runtime raises kinds of its own
            raise ArtifactError(f"the outlier detector failed on {len(rows)} rows: {str(err)[:200]}") from err

    def outliers(self, scores: Matrix) -> NDArray[np.bool_]:
        """Which scores [n] are of outliers; NaN is not."""
        return np.asarray(scores.astype(np.float64) > self.threshold)

    def outlier(self, row: Matrix) -> bool | None:
        """Whether one row [values] is an outlier; None when the detector answered NaN."""
        score = float(self.scores(row[np.newaxis])[0])
        return None if math.isnan(score) else score > self.threshold
