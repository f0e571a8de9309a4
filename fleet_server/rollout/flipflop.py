"""How often a device may be changed, and when going to and fro between two releases asks for a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

DAY: Final = timedelta(hours=24)
WEEK: Final = timedelta(days=7)
CHANGES_THAT_PAUSE: Final = 3
_PER_DAY: Final = {False: 1, True: 2}


@dataclass(frozen=True)
class Change:
    """What a device was told to run instead of what.

    Attributes:
        forward: To a new release; False: back to an earlier one.
    """

    at: datetime
    before: str
    after: str
    forward: bool


@dataclass(frozen=True)
class Answer:
    """Whether a device may be changed now.

    Attributes:
        word: `begin`, `wait` (asked again by itself at `again_at`), or `flip-flop` (the rollout pauses for a person).
    """

    word: Literal["begin", "wait", "flip-flop"]
    sentence: str = ""
    again_at: datetime | None = None


def may_change(
    history: Sequence[Change], before: str, after: str, now: datetime, *, emergency: bool = False, gap: timedelta = DAY
) -> Answer:
    """Whether a device may go forward to a release.

    Going back is never held up by this: a device that is harmed goes back at once. It is counted, though: the third change between the same
    two releases in seven days is a flip-flop whichever way the two before went.

    Args:
        history: Changes of the device and model, in any order.
        before: Release that it runs, "" for none.
        after: Release that it would get.
        now: Aware.
        emergency: Two forward changes in a day instead of one.
        gap: The day; shorter where the policy says so.
    """
    pair = {before, after}
    between = [one for one in history if {one.before, one.after} == pair and now - WEEK < one.at <= now]
    if before and len(between) + 1 >= CHANGES_THAT_PAUSE:
        days = WEEK.days
        return Answer("flip-flop", f"flip-flop: change {len(between) + 1} between {before} and {after} within {days} days")
    recent = sorted(one.at for one in history if one.forward and now - gap < one.at <= now)
    most = _PER_DAY[emergency]
    if len(recent) >= most:
        hours = gap.total_seconds() / 3600
        return Answer("wait", f"{len(recent)} activations within {hours:g} h, the limit is {most}", recent[-most] + gap)
    return Answer("begin")
