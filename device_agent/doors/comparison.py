"""Counts how a model that only listens compares with the one whose answers count. Pure counting, safe for threads.

Memory: one counter per pair of answers, at most MAX_PAIRS of them; the rest is one number. Latencies take 2 KB.
"""

import math
import threading
from collections import Counter
from typing import Any, Final, NamedTuple

from numpy.typing import NDArray

from device_agent.decision import NORMAL, STRANGE
from device_agent.sameness import Said, same_answer
from device_agent.score import BatchScores, Score
from edgefleet import latency
from edgefleet.manifest import Manifest
from edgefleet.shadow_counts import MAX_PAIRS, ShadowCounts, bounded_pairs


class Heard(NamedTuple):
    """One answer: the label or, without labels, the value; the score; the probabilities where there are classes."""

    said: str | float
    score: float
    probabilities: NDArray[Any] | None


def heard(answer: Score | None) -> Heard | None:
    """What a score says; None for none, or one that is NaN."""
    if answer is None or math.isnan(answer.score):
        return None
    return Heard(answer.score if answer.label is None else answer.label, answer.score, answer.probabilities)


def heard_in_batch(answers: BatchScores | None, rows: int) -> list[Heard | None]:
    """The same for each row of a batch; `answers` None: none was answered."""
    if answers is None:
        return [None] * rows
    labels, scores = answers.label.tolist(), answers.score.tolist()
    classes = answers.probabilities if answers.probabilities.shape[1] else [None] * len(scores)
    return [
        None if math.isnan(score) else Heard(score if label is None else label, score, probabilities)
        for label, score, probabilities in zip(labels, scores, classes, strict=True)
    ]


class Comparison:
    """Two models, compared row by row.

    Args:
        running: Manifest and bundle digest of the model whose answers count.
        shadow: The same of the other.
        tolerance: Largest difference of two values that are the same answer.
    """

    def __init__(self, running: tuple[Manifest, str], shadow: tuple[Manifest, str], tolerance: float) -> None:
        self._digests, self._tolerance = (running[1], shadow[1]), tolerance
        self._ours, self._theirs = _numbers(running[0]), _numbers(shadow[0])
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._pairs: Counter[tuple[int, int]] = Counter()
        self._rest = 0
        self._sum = self._square_sum = 0.0
        self._latencies = latency.empty()

    def add(self, ours: Heard | None, theirs: Heard | None) -> None:
        """Count a row by what both said."""
        with self._lock:
            self._counts["offered"] += 1
            if ours is None or theirs is None:
                self._counts["both_failed" if ours is theirs else "running_failed" if ours is None else "shadow_failed"] += 1
                return
            self._counts["compared"] += 1
            self._counts["agreed"] += same_answer(ours.said, theirs.said, self._tolerance)
            self._confuse(ours.said, theirs.said)
            difference = self._difference(ours, theirs)
            if difference is not None and math.isfinite(difference):
                self._counts["differences"] += 1
                self._sum += difference
                self._square_sum += difference * difference

    def took(self, latency_ms: float) -> None:
        """Count how long the other model took for a single row."""
        with self._lock:
            self._latencies += latency.count_latencies([round(latency_ms * 1e6)])

    def shed(self, rows: int) -> None:
        """Count rows that were not compared."""
        with self._lock:
            self._counts["offered"] += rows
            self._counts["shed"] += rows

    def take(self) -> ShadowCounts | None:
        """What was counted since the last call; None when nothing was."""
        with self._lock:
            if not self._counts["offered"]:
                return None
            kept = bounded_pairs(self._pairs)
            taken = ShadowCounts(
                running=self._digests[0],
                shadow=self._digests[1],
                difference_sum=self._sum,
                difference_square_sum=self._square_sum,
                confusion=kept,
                confusion_rest=self._rest,
                latency_eighths=latency.to_wire(self._latencies),
                **{name: self._counts[name] for name in _COUNTED},
            )
            self._counts.clear()
            self._pairs.clear()
            self._rest = 0
            self._sum = self._square_sum = 0.0
            self._latencies = latency.empty()
            return taken

    def _confuse(self, ours: Said, theirs: Said) -> None:
        if not isinstance(ours, str) or not isinstance(theirs, str):
            return
        pair = (self._ours[ours], self._theirs[theirs])
        if pair in self._pairs or len(self._pairs) < MAX_PAIRS:
            self._pairs[pair] += 1
        else:
            self._rest += 1

    def _difference(self, ours: Heard, theirs: Heard) -> float | None:
        if ours.probabilities is None or theirs.probabilities is None:
            return theirs.score - ours.score
        place = self._theirs.get(str(ours.said))  # the other model may not know the class
        return None if place is None else float(theirs.probabilities[place]) - ours.score


_COUNTED: Final = ("offered", "compared", "agreed", "running_failed", "shadow_failed", "both_failed", "shed", "differences")


def _numbers(manifest: Manifest) -> dict[str, int]:
    names = manifest.classes or [NORMAL, STRANGE]
    return {name: i for i, name in enumerate(names)}
