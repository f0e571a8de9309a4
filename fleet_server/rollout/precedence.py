"""Several rollouts at once: who comes first where a site can take only so many, and what many tests cost in false stops."""

from collections.abc import Iterable, Sequence
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
        devices: Of that site, that wait to begin.
    """

    rollout_id: str
    emergency: bool
    backward: bool
    approved_at: datetime
    devices: int = 0


def order(wish: Wish) -> tuple[bool, bool, datetime, str]:
    """Sort key: emergency first, then what goes back, then the older approval."""
    return (not wish.emergency, not wish.backward, wish.approved_at, wish.rollout_id)


def room(budget: int, in_activation: int, wishes: Sequence[Wish], mine: str) -> int:
    """Devices of a site that one rollout may let begin now.

    What waits in rollouts that come before it is taken off, so that a later one does not slip in between.

    Args:
        budget: Most devices of the site in activation at once, over all rollouts.
        in_activation: Devices of the site in activation now, of any rollout.
        wishes: Of all rollouts that want this site, `mine` among them.
        mine: The rollout that asks.

    >>> from datetime import UTC, datetime
    >>> old, new = (Wish(name, False, False, datetime(2026, 1, day, tzinfo=UTC), 2) for name, day in (("r-1", 1), ("r-2", 2)))
    >>> room(3, 0, [new, old], "r-1"), room(3, 0, [new, old], "r-2")
    (2, 1)
    """
    left = budget - in_activation
    for wish in sorted(wishes, key=order):
        taken = max(min(left, wish.devices), 0)
        if wish.rollout_id == mine:
            return taken
        left -= taken
    return 0


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
