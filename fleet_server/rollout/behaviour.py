"""What a model did on a device in a period, and the difference that a gate sees between two periods.

A device gives one difference per gate: its own change, less the mean change of its controls in the same periods. What cannot be computed
is None with a reason or an error, never a number that looks like "no difference".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet import latency
from edgefleet.errors import InputError
from fleet_server.rollout.comparisons import COMPARISONS, SCORE_BINS, Comparison

NO_CONTROL: Final = frozenset({"shadow agreement", "label metric"})


@dataclass
class Shown:
    """Sums over the windows of one bundle on one device in one period; the empty one is the identity.

    Attributes:
        rows: Answered.
        classes: Answers by class, in the manifest's order; empty for values.
        scores: Answers by score bin; empty where there are none.
        latencies: Histogram as `edgefleet.latency` keeps it.
        peak_bytes: Largest memory of the agent in whole hours of the period, None where none was told.
    """

    rows: int = 0
    classes: list[int] = field(default_factory=list)
    scores: list[int] = field(default_factory=list)
    latencies: NDArray[np.int64] = field(default_factory=latency.empty)
    peak_bytes: int | None = None
    score_sum: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Before and now of one device."""

    before: Shown
    now: Shown


@dataclass(frozen=True)
class Paired:
    """Rows that two models answered on one device.

    Attributes:
        rows: Of them.
        against: Rows that speak against the new model: disagreements, or answers right before and wrong now.
        towards: Rows that speak for it: wrong before and right now; 0 where agreement is all that is known.
    """

    rows: int
    against: int
    towards: int = 0

    @property
    def difference(self) -> tuple[float, ...]:
        """Share of the rows, positive = worse.

        Raises:
            InputError: Counts that no device can have.
        """
        if not (self.rows > 0 and self.against >= 0 and self.towards >= 0 and self.against + self.towards <= 2 * self.rows):
            raise InputError(f"{self.against} against and {self.towards} for the release of {self.rows} rows cannot be")
        return ((self.against - self.towards) / self.rows,)


def tells(gate: Comparison, shown: Shown, rows: int) -> bool:
    """Whether a period has what a gate needs."""
    if gate.name == "memory":
        return shown.peak_bytes is not None
    return shown.rows >= rows and bool(_PARTS[gate.name](shown))


def difference(gate: Comparison, own: Pair, controls: Sequence[Pair]) -> tuple[float, ...]:
    """A device's difference of a gate, positive = worse.

    Args:
        gate: One that compares with controls.
        own: The device.
        controls: At least one, in the same periods.

    Raises:
        InputError: A number that is not finite, or periods that cannot be compared.
    """
    if not controls:
        raise InputError(f"{gate.name}: no control to compare with")
    others = np.mean([own_change(gate, pair) for pair in controls], axis=0)
    return tuple((np.array(own_change(gate, own)) - others).tolist())


def own_change(gate: Comparison, pair: Pair) -> tuple[float, ...]:
    """What changed on a device itself between two periods.

    Raises:
        InputError: A number that is not finite, or periods that cannot be compared.
    """
    found = _change(gate, pair)
    if found.shape != (gate.columns,) or not np.isfinite(found).all():
        raise InputError(f"{gate.name}: a change of {found.tolist()} is no finite number")
    return tuple(found.tolist())


def summary(difference: Sequence[float]) -> float:
    """One number of a difference, for people: the largest change of any column."""
    return max(difference, key=abs)


def _change(gate: Comparison, pair: Pair) -> NDArray[np.float64]:
    before, now = (np.asarray(_PARTS[gate.name](shown), np.float64) for shown in (pair.before, pair.now))
    if before.shape != now.shape or not before.size:
        raise InputError(f"{gate.name}: {before.size} numbers before and {now.size} now cannot be compared")
    found: NDArray[np.float64] = now - before
    return found


def _positive_share(shown: Shown) -> list[float]:
    """Share of answers with another class than the first one."""
    total = sum(shown.classes)
    return [1.0 - shown.classes[0] / total] if total > 0 else []


def _bin_shares(shown: Shown) -> list[float]:
    total = sum(shown.scores)
    return [count / total for count in shown.scores] if total > 0 and len(shown.scores) == SCORE_BINS else []


def _log_p95(shown: Shown) -> list[float]:
    p95 = latency.quantile_us(shown.latencies, 0.95)
    return [] if p95 is None else [math.log(p95)]


def _log_peak(shown: Shown) -> list[float]:
    if shown.peak_bytes is None:
        return []
    if shown.peak_bytes <= 0:
        raise InputError(f"memory: a peak of {shown.peak_bytes} bytes cannot be")
    return [math.log(shown.peak_bytes)]


def mean_score(shown: Shown) -> list[float]:
    """Mean score of the answers, empty without any."""
    return [shown.score_sum / shown.rows] if shown.rows > 0 else []


_PARTS: Final[Mapping[str, Callable[[Shown], list[float]]]] = {
    "p95 latency": _log_p95,
    "memory": _log_peak,
    "class rate": _positive_share,
    "score bins": _bin_shares,
}
CONTROLLED: Final = tuple(gate for gate in COMPARISONS if gate in _PARTS)
METRICS: Final[Mapping[str, Callable[[Shown], list[float]]]] = {
    "p95 latency": _log_p95,
    "memory": _log_peak,
    "positive share": _positive_share,
    "mean score": mean_score,
}
