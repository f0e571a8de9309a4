"""How far back a message may have been sent, and since when the server hears its devices. Pure.

A broker may hold messages while the server is away, so the moment of arrival says nothing about when somebody lived. The server therefore
sends itself markers over the same broker, which come back behind everything that the broker held. What comes after a marker reached the
broker after that marker was published: this moment, by the server's own clock, is what a sign of life counts for. It is never later than
the truth, and while the server is there seconds earlier.
"""

from dataclasses import dataclass
from typing import Final

# Less is a reconnect in which no device that beats every few minutes is missed.
ABSENT_US: Final = 60_000_000


@dataclass(frozen=True)
class Hearing:
    """What the last marker proves. All numbers are of one unit: microseconds UTC in the server, ticks in the simulator.

    Attributes:
        since: When the last marker that came back was published: what follows it was sent later.
        back_at: When the last absence was over, 0 when there was none: devices could not be heard before.
    """

    since: int
    back_at: int = 0

    def passed(self, published_at: int, now: int, absent: int = ABSENT_US) -> "Hearing":
        """A marker has come back.

        Args:
            published_at: When it was published.
            now: When it came.
            absent: A marker that comes so long after the one before ends an absence.
        """
        return Hearing(published_at, now if self.is_deaf(now, absent) else self.back_at)

    def set_back(self, by: int) -> "Hearing":
        """The same moments by a clock that was set back by so much."""
        return Hearing(self.since - by, max(self.back_at - by, 0))

    def sent_after(self, at: int) -> int:
        """The moment that a sign of life counts for which arrives at `at`; a clock that was set back does not put it into the future."""
        return min(self.since, at)

    def is_deaf(self, now: int, absent: int = ABSENT_US) -> bool:
        """Whether nobody can be heard: no marker came back for so long, or by this clock none has ever come, because it was set back."""
        return abs(now - self.since) > absent

    def deaf_until(self, now: int, absent: int = ABSENT_US) -> int | None:
        """Until when nobody could be heard: now, as long as no marker comes back; None when the server was never away."""
        if self.is_deaf(now, absent):
            return now
        return self.back_at or None
