"""What the evaluation and the gates read of a project, and when a bound keeps a limit.

"At least" passes when the one-sided 95 % lower bound reaches the limit, fails when the upper bound does not, and is inconclusive between:
too few rows never pass. "At most" is its mirror.
"""

import math
from typing import Final, Literal, Protocol

from edgefleet.manifest import Input
from trainer.settings import Gates, Goal, Search, Source

Verdict = Literal["pass", "fail", "inconclusive"]
MIN_ROWS: Final = 30  # of a slice, a group, a rate: fewer never pass


class Criteria(Protocol):
    """What the gates and the evaluation read of a project."""

    @property
    def goal(self) -> Goal:
        """The success criteria."""

    @property
    def data(self) -> Source:
        """What the columns mean."""

    @property
    def gates(self) -> Gates:
        """Limits."""

    @property
    def search(self) -> Search:
        """Its seed is the seed of the resamples."""

    @property
    def inputs(self) -> list[Input]:
        """The schema, in column order."""


def finite(value: float) -> float | None:
    """The number, None where it is infinite or NaN: JSON knows neither."""
    return value if math.isfinite(value) else None


def at_least(lower: float, upper: float, limit: float) -> Verdict:
    """Of a value that must reach a limit, by its one-sided bounds."""
    return "pass" if lower >= limit else "fail" if upper < limit else "inconclusive"


def at_most(lower: float, upper: float, limit: float) -> Verdict:
    """Of a value that must not pass a limit, by its one-sided bounds."""
    return "pass" if upper <= limit else "fail" if lower > limit else "inconclusive"
