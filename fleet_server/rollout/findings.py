"""What a gate says of the open wave, and what it is told beside the sums: where the wave stands, and what a person accepted."""

import math
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

Word = Literal["abort", "pause", "hold", "extend", "promote"]
# From the one that decides to the one that gives way; a wave is promoted when every gate says so.
SEVERITY: Final[tuple[Word, ...]] = ("abort", "pause", "hold", "extend", "promote")


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person saw at a pause and accepted by resuming: it pauses nothing again and holds back no promotion; ABORT counts it all.

    Attributes:
        failures: Explicit failures.
        silent: Devices that were silent at their deadline.
        missing: Devices that were missing.
        sites_out: Sites that went dark.
        compared: Evidence of the comparisons, at least 1.
    """

    failures: int = 0
    silent: int = 0
    missing: int = 0
    sites_out: int = 0
    compared: float = 1.0


NOTHING: Final = Accepted()


class Confirmed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people have looked at and let go on.

    Attributes:
        failures: Explicit failures; the next one is asked about again.
        waves: Waves whose promotion was confirmed.
    """

    failures: int = 0
    waves: int = 0


_UNSEEN: Final = Confirmed()


@dataclass(frozen=True)
class Asks:
    """What the policy asks a person at the open wave.

    Attributes:
        failure: Whether each failure is shown to her.
        promotion: Whether this wave's promotion needs her.
        wave: The open one.
        confirmed: What she has looked at already.
    """

    failure: bool = False
    promotion: bool = False
    wave: int = 0
    confirmed: Confirmed = _UNSEEN


NOBODY: Final = Asks()


@dataclass(frozen=True)
class Clock:
    """Where the open wave stands: times in seconds, growth, and what a person accepted.

    Attributes:
        opened_all: Whether its last batch was opened.
        open_s: Since it was opened.
        dwell_s: It stays open at least so long.
        judged_s: Since it could be judged for the first time; None: it cannot be yet.
        patience_s: After so long without an answer more devices are taken, if that may help.
        hold_s: After so long a person is asked.
        grown: Times that it has grown.
        may_grow: Whether there are devices left to grow into.
        resumed_s: Since a person resumed the rollout; None: nobody did.
        accepted: What she accepted by that.
        asks: What the policy asks a person at this wave.
    """

    opened_all: bool
    open_s: float
    dwell_s: float
    judged_s: float | None
    patience_s: float
    hold_s: float
    grown: int = 0
    may_grow: bool = True
    resumed_s: float | None = None
    accepted: Accepted = NOTHING
    asks: Asks = NOBODY


@dataclass(frozen=True)
class Finding:
    """One gate now.

    Attributes:
        n: Devices that it is about.
        level: What it sees as a share of its limit, cut at 1: evidence on the scale of its logarithm; None: nothing to measure.
    """

    gate: str
    word: Word
    now: str
    limit: str
    n: int
    sentence: str
    level: float | None = None


def level_of(evidence: float, limit: float) -> float:
    """Evidence as a share of its limit, on the scale of its logarithm: 1 says nothing, the limit says enough."""
    return min(math.log(max(evidence, 1.0)) / math.log(limit), 1.0)


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.3g} %"


def hours(seconds: float) -> str:
    """A time for people."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
