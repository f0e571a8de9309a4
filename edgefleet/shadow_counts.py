"""How two models that saw the same rows compare: counts that add up, whatever the windows, devices or order.

`offered = compared + running_failed + shadow_failed + both_failed + shed`: a row that was not compared is in one of the last four.
"""

import math
from collections import Counter
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet import latency

# Pairs of answers that are counted by themselves; rows beyond them are in `confusion_rest`.
MAX_PAIRS: Final = 256


class ShadowCounts(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A model that only listened (`shadow`) beside the one whose answers counted (`running`).

    Fields are only ever appended, with a default.

    Attributes:
        running: Bundle digest of the model whose answers counted.
        shadow: Bundle digest of the other.
        offered: Rows that the running model was asked.
        compared: Rows that both answered.
        agreed: Of these, the ones with the same answer.
        running_failed: Rows that only the shadow answered.
        shadow_failed: Rows that only the running model answered.
        both_failed: Rows that neither answered.
        shed: Rows that were not compared because the shadow could not keep up with its budget.
        differences: Rows with a difference: shadow minus running, of the values or anomaly scores, or of the probability of the class that
            the running model answered.
        difference_sum: Their sum.
        difference_square_sum: The sum of their squares.
        confusion: (running's answer, shadow's answer, rows), each a number in its own model's list of classes (0 normal, 1 strange of a
            detector); at most MAX_PAIRS, empty for values.
        confusion_rest: Rows of other pairs.
        latency_eighths: Latencies of the shadow's answers to single rows, as `latency.to_wire` writes them; empty from older devices. Some
            of the compared rows are asked one by one for it.
    """

    running: str
    shadow: str
    offered: int = 0
    compared: int = 0
    agreed: int = 0
    running_failed: int = 0
    shadow_failed: int = 0
    both_failed: int = 0
    shed: int = 0
    differences: int = 0
    difference_sum: float = 0.0
    difference_square_sum: float = 0.0
    confusion: list[tuple[int, int, int]] = []
    confusion_rest: int = 0
    latency_eighths: list[int] = []

    def merge(self, other: "ShadowCounts") -> "ShadowCounts":
        """Both together; of the same two models.

        Raises:
            ValueError: They speak of other models.
        """
        if (self.running, self.shadow) != (other.running, other.shadow):
            raise ValueError(f"counts of {self.running[:12]}/{self.shadow[:12]} and {other.running[:12]}/{other.shadow[:12]} do not add up")
        pairs: Counter[tuple[int, int]] = Counter()
        for ours, theirs, rows in (*self.confusion, *other.confusion):
            pairs[ours, theirs] += rows
        kept = bounded_pairs(pairs)
        names = set(self.__struct_fields__) - {"running", "shadow", "confusion", "confusion_rest", "latency_eighths"}
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        sums["latency_eighths"] = latency.to_wire(self._latencies() + other._latencies())
        rest = self.confusion_rest + other.confusion_rest + pairs.total() - sum(rows for _, _, rows in kept)
        return ShadowCounts(running=self.running, shadow=self.shadow, confusion=kept, confusion_rest=rest, **sums)

    def latency_us(self, fraction: float) -> float | None:
        """A quantile of the shadow's latencies in microseconds, None without any; `latency` says how near it is."""
        return latency.quantile_us(self._latencies(), fraction)

    def _latencies(self) -> NDArray[np.int64]:
        counts = latency.from_wire(self.latency_eighths)
        return latency.empty() if counts is None else counts  # what no device writes tells no latency, and hurts no other's counts

    @property
    def agreement(self) -> float:
        """Share of the same answer among rows that the running model answered and that were compared; NaN without any."""
        judged = self.compared + self.shadow_failed
        return self.agreed / judged if judged else math.nan

    @property
    def difference_mean(self) -> float:
        """Mean difference, NaN without any."""
        return self.difference_sum / self.differences if self.differences else math.nan

    @property
    def difference_sd(self) -> float:
        """Standard deviation of the differences (population), NaN without any."""
        if not self.differences:
            return math.nan
        return math.sqrt(max(self.difference_square_sum / self.differences - self.difference_mean**2, 0.0))


def bounded_pairs(pairs: Counter[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The most frequent pairs, at most MAX_PAIRS, in the order of their numbers."""
    return sorted((ours, theirs, rows) for (ours, theirs), rows in pairs.most_common(MAX_PAIRS))
