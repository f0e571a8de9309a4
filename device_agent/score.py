"""What a scorer answers. Fields that cost something are computed when they are read."""

import math
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.explain import Explanation
from edgefleet.errors import RowRejected


class Score:
    """One answer.

    Attributes:
        status: `ok`, or `warming_up` while a window of rows is not full.
        digest: Sha256 of the graph that answered.
        latency_ms: Of the whole call.
        outlier: Whether the row is unlike the training rows; None when the bundle cannot tell.
        explanation: None unless asked for.
    """

    __slots__ = ("_answer", "_classes", "_index", "digest", "explanation", "latency_ms", "outlier", "status")

    def __init__(self, answer: NDArray[np.float32], classes: tuple[str, ...], digest: str, latency_ms: float) -> None:
        self.status: Literal["ok", "warming_up"] = "ok"
        self._answer, self._classes, self.digest, self.latency_ms = answer, classes, digest, latency_ms
        self.outlier: bool | None = None
        self.explanation: Explanation | None = None
        self._index: int | None = None

    @property
    def margins(self) -> NDArray[np.float32]:
        """[K] float32, the graph's margin as it came out."""
        return self._answer[: len(self._answer) - len(self._classes)]

    @property
    def probabilities(self) -> NDArray[np.float32] | None:
        """[classes] float32 in the manifest's order; None for regression and anomaly."""
        return self._answer[-len(self._classes) :] if self._classes else None

    @property
    def index(self) -> int | None:
        """Index of the predicted class; None without classes, or when the model answered NaN."""
        if self._index is None:
            self._index = -1
            if self._classes:
                best = int(self._answer[-len(self._classes) :].argmax())  # the first NaN, if there is one
                if not math.isnan(self._answer.item(best - len(self._classes))):
                    self._index = best
        return None if self._index < 0 else self._index

    @property
    def label(self) -> str | None:
        """Name of the predicted class; None for regression and anomaly, or when the model answered NaN."""
        index = self.index
        return None if index is None else self._classes[index]

    @property
    def score(self) -> float:
        """Probability of the label, value of a regression, or anomaly score; NaN when the model answered NaN."""
        if not self._classes:
            return float(self._answer.item(0))
        index = self.index
        return float("nan") if index is None else float(self._answer.item(index - len(self._classes)))

    @property
    def margin(self) -> float:
        """Margin of the predicted class, in manifest.margin_kind's unit; where two classes share one margin, the first has its negative."""
        margins, index = self.margins, self.index
        if index is None:
            return float("nan") if self._classes else float(margins[0])
        if len(margins) == 1:
            return float(-margins[0] if index == 0 else margins[0])
        return float(margins[index])

    def __repr__(self) -> str:
        return f"Score({self.status}, label={self.label!r}, score={self.score:.6g}, margin={self.margin:.6g}, digest={self.digest[:12]!r})"


class BatchScores:
    """Answers of a batch; NaN (label None, index -1) at rejected rows.

    Attributes:
        margins: [n, K] float32 as they came out of the graph.
        probabilities: [n, classes] float32; classes = 0 for regression and anomaly.
        rejected: The refusal by row number.
    """

    def __init__(
        self, margins: NDArray[np.float32], probabilities: NDArray[np.float32], classes: tuple[str, ...], rejected: dict[int, RowRejected]
    ) -> None:
        self.margins, self.probabilities, self._classes, self.rejected = margins, probabilities, classes, rejected

    def __len__(self) -> int:
        return len(self.margins)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """[n] predicted class, -1 where there is none."""
        if not self._classes:
            return np.full(len(self), -1, np.int64)
        unclear: NDArray[np.bool_] = np.asarray(np.isnan(self.probabilities).any(axis=1))
        return np.where(unclear, -1, np.where(unclear[:, None], 0, self.probabilities).argmax(axis=1)).astype(np.int64)

    @cached_property
    def label(self) -> NDArray[np.object_]:
        """[n] names of the predicted classes, None where there is none."""
        return np.array([*self._classes, None], object)[self.index]

    @cached_property
    def score(self) -> NDArray[np.float32]:
        """[n] as `Score.score`."""
        if not self._classes:
            return self.margins[:, 0]
        picked = np.take_along_axis(self.probabilities, np.maximum(self.index, 0)[:, None], axis=1)[:, 0]
        return np.where(self.index < 0, np.float32(np.nan), picked)

    @cached_property
    def margin(self) -> NDArray[np.float32]:
        """[n] as `Score.margin`."""
        if not self._classes:
            return self.margins[:, 0]
        if self.margins.shape[1] == 1:
            picked = np.where(self.index == 0, -self.margins[:, 0], self.margins[:, 0])
        else:
            picked = np.take_along_axis(self.margins, np.maximum(self.index, 0)[:, None], axis=1)[:, 0]
        return np.where(self.index < 0, np.float32(np.nan), picked)
