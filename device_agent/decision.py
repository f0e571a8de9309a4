"""From a graph's numbers to a decision: which class is answered, whether a row is strange.

One answer is a row of float32: K margins, then the probabilities. Comparisons with a threshold are made in float64, as the trainer makes
them: in float32 a probability one bit below the threshold would equal it.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError
from edgefleet.manifest import Manifest

Numbers = NDArray[np.float32]
# Labels of an anomaly detector with a threshold; the same words as the trainer's.
NORMAL, STRANGE = "normal", "strange"
NO_CLASS: Final = -1


@dataclass(frozen=True, slots=True)
class Decision:
    """How the answers of one model are read.

    Attributes:
        margins: Columns K of the margin.
        classes: Names in the manifest's order, empty for regression and anomaly.
        positive: Class index that `threshold` speaks of, NO_CLASS where the likeliest class is answered or there are no classes.
        threshold: Two classes: `positive` is answered from this probability on. Anomaly: the row is strange from this score on.
    """

    margins: int
    classes: tuple[str, ...] = ()
    positive: int = NO_CLASS
    threshold: float | None = None

    @classmethod
    def of(cls, manifest: Manifest, margins: int) -> "Decision":
        """The decision that a manifest describes.

        Raises:
            ArtifactError: A threshold for other than two classes, or for a class that there is not.
        """
        if manifest.task == "classification":
            classes, threshold, positive = tuple(manifest.classes), manifest.threshold, NO_CLASS
            if threshold is not None:
                if len(classes) != 2 or manifest.positive not in classes:
                    raise ArtifactError(
                        f"manifest: the threshold {threshold:g} for class {manifest.positive!r} fits no two classes {list(classes)[:8]}; "
                        "convert the package again"
                    )
                positive = classes.index(manifest.positive)
            return cls(margins, classes, positive, threshold)
        threshold = manifest.threshold if manifest.task == "anomaly" else None
        return cls(margins, (), NO_CLASS, threshold)

    @property
    def width(self) -> int:
        """Numbers of one answer."""
        return self.margins + len(self.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label that can be answered; empty for a regression and for a detector without threshold."""
        return self.classes or ((NORMAL, STRANGE) if self.threshold is not None else ())

    def index(self, answer: Numbers) -> int:
        """Index of the answered class of one answer [width]; NO_CLASS without classes, or where the model answered NaN."""
        if not self.classes:
            return NO_CLASS
        first = self.margins
        if self.threshold is None:
            best = int(answer[first : first + len(self.classes)].argmax())  # the first NaN, if there is one
            return NO_CLASS if math.isnan(answer.item(first + best)) else best
        likely, other = answer.item(first + self.positive), answer.item(first + 1 - self.positive)
        if math.isnan(likely) or math.isnan(other):
            return NO_CLASS
        return self.positive if likely >= self.threshold else 1 - self.positive

    def indices(self, probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
        """[n] index of the answered class for probabilities [n, classes]; NO_CLASS where there is none."""
        if not self.classes:
            return np.full(len(probabilities), NO_CLASS, np.int64)
        unclear: NDArray[np.bool_] = np.asarray(np.isnan(probabilities).any(axis=1))
        return np.where(unclear, NO_CLASS, self.answered(probabilities)).astype(np.int64)

    def answered(self, probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
        """[n] as `indices`, for probabilities of which none is NaN."""
        if self.threshold is None:
            return np.asarray(probabilities.argmax(axis=1), np.intp)
        found = probabilities[:, self.positive].astype(np.float64) >= self.threshold
        return np.where(found, self.positive, 1 - self.positive)

    def sureness(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n] how far probabilities [n, classes] are from another class: the difference of the best two.

        Two classes with a threshold: twice the distance from it, which is the same where the threshold is a half.
        """
        if self.threshold is not None:
            return 2 * np.abs(probabilities[:, self.positive].astype(np.float64) - self.threshold)
        if probabilities.shape[1] < 2:
            return np.full(len(probabilities), np.inf)
        best = np.sort(probabilities.astype(np.float64), axis=1)
        return np.asarray(best[:, -1] - best[:, -2])

    def strange(self, value: float) -> bool | None:
        """Whether a detector's score is strange; None without a threshold, or when the model answered NaN."""
        if self.threshold is None or self.classes or math.isnan(value):
            return None
        return value >= self.threshold
