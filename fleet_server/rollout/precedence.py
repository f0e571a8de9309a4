"""Several rollouts at once: who comes first where a site can take only so many, and what many tests cost in false stops."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

FALSE_STOP: Final = 0.05
_YEAR_DAYS: Final = 365.25


@dataclass(frozen=True)
class Wish:
    """A rollout that wants devices of a site to begin.

    Attributes:
        emergency: Of its policy.
        backward: It goes back.
        approved_at: When it could have begun: its last approval, or its start.
    """

    rollout_id: str
    emergency: bool
    backward: bool
    approved_at: datetime


def order(wish: Wish) -> tuple[bool, bool, datetime, str]:
    """Sort key: emergency first, then what goes back, then the older approval."""
    return (not wish.emergency, not wish.backward, wish.approved_at, wish.rollout_id)


def expected_false_stops(started_at: Iterable[datetime], now: datetime, false_stop: float = FALSE_STOP) -> float:
    """Good releases that are stopped in a year by chance, at the pace of the last year.

    No rollout's error is corrected for the others: each one's promise stands alone, and this is the price of many.

    Args:
        started_at: Starts of rollouts; those older than a year do not count.
        now: Aware.
        false_stop: Bound of one rollout's false stop.
    """
    started = sum(0 <= (now - moment).total_seconds() < _YEAR_DAYS * 86_400 for moment in started_at)
    return false_stop * started
