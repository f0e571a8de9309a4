"""The places of a site under `site_budget`: who gives his back, and who waits for one.

Written once for whole rows at a time: for conditions of the database and for masks of numpy, which both know `&`, `|` and `~`.
"""

from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from fleet_server.rollout.groups import Timing
from fleet_server.rollout.policy import Policy


class Truths(Protocol):
    """What is true of each device of a row; not Python's `bool`, whose `~` is a number."""

    def __and__(self, other: Any, /) -> Any: ...

    def __or__(self, other: Any, /) -> Any: ...

    def __invert__(self) -> Any: ...


T = TypeVar("T", bound=Truths)


def sleeps(*, asked_long_ago: T, heard_since: T, began: T, aside: T) -> T:
    """Devices whose place is better given to others, where others wait.

    Args:
        asked_long_ago: Asked for the last time more than the policy's `deadline_s` ago.
        heard_since: Heard since they were asked: awake, and about to begin.
        began: Known to have begun, committed or failed.
        aside: Gave their place back already.

    >>> import numpy as np
    >>> row = np.array([True, False])
    >>> sleeps(asked_long_ago=row, heard_since=~row, began=~row, aside=~row).tolist()
    [True, False]
    """
    found: T = asked_long_ago & ~began & ~aside & ~heard_since
    return found


def silence_tells(policy: Policy, now: datetime, deaf_until: datetime | None) -> bool:
    """Whether a device that was not heard sleeps: who could not be heard may have begun, and changes still.

    Args:
        policy: Of the rollout; everybody has a cell to be heard, as for a deadline.
        now: Aware UTC.
        deaf_until: Until then the server could hear nobody; `now` while it cannot, None when it never was so.
    """
    return deaf_until is None or now >= deaf_until + timedelta(seconds=Timing.of(policy).cell_s)


def asked_anew(*, aside: T, heard_since: T) -> T:
    """Devices that gave their place back and are asked again, before all that were never asked: they were heard since."""
    found: T = aside & heard_since
    return found


def waits(*, asked: T, in_wave: T, aside: T, heard_since: T) -> T:
    """Devices that want a place of their site: those of any wave that were never asked, and those that are to be asked anew.

    >>> import numpy as np
    >>> asked, woken = np.array([False, True, True]), np.array([False, True, False])
    >>> waits(asked=asked, in_wave=np.ones(3, bool), aside=asked, heard_since=woken).tolist()
    [True, True, False]
    """
    found: T = (in_wave & ~asked) | asked_anew(aside=aside, heard_since=heard_since)
    return found
