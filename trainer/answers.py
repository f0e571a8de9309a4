"""What a model answered to rows, in the form that every metric, gate and report reads."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRANGE = 1  # class index of strange rows in anomaly detection


@dataclass(frozen=True)
class Answers:
    """Answers to n rows; exactly one of `probabilities` and `value` is there.

    Attributes:
        probabilities: [n, classes] float64 of a classifier, rows sum to 1.
        value: [n] float64: predicted target (regression) or anomaly score, larger = stranger.
        positive: Class index that binary metrics and the threshold speak of.
        threshold: Binary classification: the positive class is answered from this probability on, None: the likelier class.
            Anomaly: a row is strange from this score on.
    """

    probabilities: NDArray[np.float64] | None = None
    value: NDArray[np.float64] | None = None
    positive: int = 1
    threshold: float | None = None

    def __len__(self) -> int:
        return len(self.probabilities if self.probabilities is not None else self.answers())

    def answers(self) -> NDArray[Any]:
        """[n] decided class index (int64) of a classifier or an anomaly detector with a threshold; [n] float64 value of a regression."""
        if self.probabilities is None:
            assert self.value is not None  # noqa: S101  # one of the two is there, by the class's own rule
            return self.value if self.threshold is None else (self.value >= self.threshold).astype(np.int64)
        if self.threshold is None or self.probabilities.shape[1] != 2:
            likeliest: NDArray[np.int64] = self.probabilities.argmax(axis=1)
            return likeliest
        return np.where(self.probabilities[:, self.positive] >= self.threshold, self.positive, 1 - self.positive)

    def take(self, index: NDArray[Any]) -> "Answers":
        """The answers to some rows."""
        some = [None if array is None else array[index] for array in (self.probabilities, self.value)]
        return Answers(probabilities=some[0], value=some[1], positive=self.positive, threshold=self.threshold)

    @property
    def score(self) -> NDArray[np.float64]:
        """[n] what ranks rows: probability of the positive class (binary), of the answered class (more classes), else the value."""
        if self.probabilities is None:
            assert self.value is not None  # noqa: S101  # see `answers`
            return self.value
        return self.probabilities[:, self.positive] if self.probabilities.shape[1] == 2 else self.probabilities.max(axis=1)
