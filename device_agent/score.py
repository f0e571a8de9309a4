"""What a scorer answers. Fields that cost something are computed when they are read."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.decision import NO_CLASS, NORMAL, STRANGE, Decision
from device_agent.detector import Detector
from device_agent.explanation import Explanation
from edgefleet.errors import ArtifactError, RowRejected


@dataclass(frozen=True, slots=True)
class Source:
    """What the answers of one scorer share: how they are read, and the sha256 of the graph they come from."""

    decision: Decision
    digest: str


class Score:
    """One answer.

    Attributes:
        status: `ok`; an answer that says why there is none yet is of another class, with `warming_up`.
        latency_ms: Of the whole call.
        explanation: None unless asked for.
    """

    __slots__ = ("_answer", "_index", "_seen", "_source", "explanation", "latency_ms")
    status: Literal["ok", "warming_up"] = "ok"

    def __init__(
        self, answer: NDArray[np.float32], source: Source, latency_ms: float, seen: tuple[Detector, NDArray[np.float32]] | None = None
    ) -> None:
        self._answer, self._source, self.latency_ms, self._seen = answer, source, latency_ms, seen
        self.explanation: Explanation | None = None
        self._index: int | None = None

    @property
    def digest(self) -> str:
        """Sha256 of the graph that answered."""
        return self._source.digest

    @property
    def _decision(self) -> Decision:
        return self._source.decision

    @property
    def margins(self) -> NDArray[np.float32]:
        """[K] float32, the graph's margin as it came out."""
        return self._answer[: self._decision.margins]

    @property
    def probabilities(self) -> NDArray[np.float32] | None:
        """[classes] float32 in the manifest's order; None for regression and anomaly."""
        decision = self._decision
        return self._answer[decision.margins : decision.margins + len(decision.classes)] if decision.classes else None

    @property
    def index(self) -> int | None:
        """Index of the answered class; None without classes, or when the model answered NaN."""
        if self._index is None:
            self._index = self._decision.index(self._answer)
        return None if self._index == NO_CLASS else self._index

    @property
    def label(self) -> str | None:
        """The likeliest class, or of two classes the positive one from the manifest's threshold on.

        An anomaly detector with a threshold says `normal` or `strange`. None for regression, or when the model answered NaN.
        """
        if not self._decision.classes:
            strange = self._decision.strange(self._answer.item(0))
            return None if strange is None else (STRANGE if strange else NORMAL)
        index = self.index
        return None if index is None else self._decision.classes[index]

    @property
    def score(self) -> float:
        """Probability of the label, value of a regression, or anomaly score; NaN when the model answered NaN."""
        if not self._decision.classes:
            return float(self._answer.item(0))
        index = self.index
        return float("nan") if index is None else float(self._answer.item(self._decision.margins + index))

    @property
    def margin(self) -> float:
        """Margin of the answered class, in manifest.margin_kind's unit; where two classes share one margin, the first has its negative."""
        margins, index = self.margins, self.index
        if index is None:
            return float("nan") if self._decision.classes else float(margins[0])
        if len(margins) == 1:
            return float(-margins[0] if index == 0 else margins[0])
        return float(margins[index])

    @property
    def outlier(self) -> bool | None:
        """Whether the row is unlike the training rows; each reading runs the detector, also after the scorer was closed.

        None when the bundle has no detector for this runtime, when it is switched off, or when it answered NaN.

        Raises:
            ArtifactError: The detector failed on the row.
        """
        return None if self._seen is None else self._seen[0].outlier(self._seen[1])

    def __repr__(self) -> str:
        return f"Score({self.status}, label={self.label!r}, score={self.score:.6g}, margin={self.margin:.6g}, digest={self.digest[:12]!r})"


def outlier_if_known(score: Score) -> bool | None:
    """`Score.outlier`, None also where the detector fails on the row: that hurts no answer."""
    try:
        return score.outlier
    except ArtifactError:
        return None


class BatchScores:
    """Answers of a batch; NaN (label None, index -1) at rejected rows.

    Attributes:
        margins: [n, K] float32 as they came out of the graph.
        probabilities: [n, classes] float32; classes = 0 for regression and anomaly.
        outlier_scores: [n] float32, None when no detector ran.
        outlier: [n] whether the row is unlike the training rows (False where it was rejected), None when no detector ran.
        rejected: The refusal by row number.
        digest: Sha256 of the graph that answered.
    """

    def __init__(
        self,
        answers: NDArray[np.float32],
        decision: Decision,
        rejected: dict[int, RowRejected],
        outlier_scores: NDArray[np.float32] | None = None,
        outlier: NDArray[np.bool_] | None = None,
        digest: str = "",
    ) -> None:
        self.margins, self.probabilities = answers[:, : decision.margins], answers[:, decision.margins :]
        self.outlier_scores, self.outlier = outlier_scores, outlier
        self._decision, self.rejected, self.digest = decision, rejected, digest

    def __len__(self) -> int:
        return len(self.margins)

    @cached_property
    def index(self) -> NDArray[np.int64]:
        """[n] answered class, -1 where there is none."""
        return self._decision.indices(self.probabilities)

    @cached_property
    def label(self) -> NDArray[np.object_]:
        """[n] as `Score.label`, None where there is none."""
        if self._decision.classes:
            return np.array([*self._decision.classes, None], object)[self.index]
        labels = np.full(len(self), None, object)
        if self._decision.threshold is not None:
            value = self.margins[:, 0].astype(np.float64)
            known = ~np.isnan(value)
            labels[known] = np.where(value[known] >= self._decision.threshold, STRANGE, NORMAL).astype(object)
        return labels

    @cached_property
    def score(self) -> NDArray[np.float32]:
        """[n] as `Score.score`."""
        if not self._decision.classes:
            return self.margins[:, 0]
        picked = np.take_along_axis(self.probabilities, np.maximum(self.index, 0)[:, None], axis=1)[:, 0]
        return np.where(self.index < 0, np.float32(np.nan), picked)

    @cached_property
    def margin(self) -> NDArray[np.float32]:
        """[n] as `Score.margin`."""
        if not self._decision.classes:
            return self.margins[:, 0]
        if self.margins.shape[1] == 1:
            picked = np.where(self.index == 0, -self.margins[:, 0], self.margins[:, 0])
        else:
            picked = np.take_along_axis(self.margins, np.maximum(self.index, 0)[:, None], axis=1)[:, 0]
        return np.where(self.index < 0, np.float32(np.nan), picked)
