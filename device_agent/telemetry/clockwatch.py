"""The wall clock under watch: it is set by others, sometimes by years, and nothing that is measured may depend on it.

Pure: times are arguments. `steady_s` must go on during sleep (CLOCK_BOOTTIME where there is one), else each sleep looks like a jump.
"""

import time
from collections import deque
from typing import Final

JUMP_US: Final = 1_000_000
_KEPT_TIMES: Final = 8
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_s() -> float:
    """Seconds of a clock that nobody sets, sleep of the machine included."""
    return time.clock_gettime(_CLOCK)


class ClockWatch:
    """Notices when the wall clock was set, and how far it is behind the server's.

    The server's time arrives some unknown delay after it was written, and a retained message much later; so the true offset is at least
    what a message says, and the largest of the last eight is the best estimate: low by the fastest delivery among them.

    Args:
        wall_us: Wall clock now, microseconds UTC.
        steady_s: Steady clock now.

    Attributes:
        jumps: How often the wall clock was set by more than a second.
    """

    def __init__(self, wall_us: int, steady_s: float) -> None:
        self._difference_us = wall_us - steady_s * 1e6
        self._server: deque[float] = deque(maxlen=_KEPT_TIMES)
        self.jumps = 0

    def look(self, wall_us: int, steady_s: float) -> int:
        """Microseconds by which the wall clock was set since the last look (negative: back), 0 for less than a second.

        Slewing by a time daemon, up to 500 us a second, is followed and is no jump.
        """
        difference_us = wall_us - steady_s * 1e6
        moved_us = difference_us - self._difference_us
        self._difference_us = difference_us
        if abs(moved_us) < JUMP_US:
            return 0
        self.jumps += 1
        return round(moved_us)

    def heard(self, server_us: int, steady_s: float) -> None:
        """The server said what time it is; 0 or less is no time."""
        if 0 < server_us < 1 << 62:
            self._server.append(server_us - steady_s * 1e6)

    def offset_ms(self, wall_us: int, steady_s: float) -> int | None:
        """Milliseconds to add to the wall clock to have the server's time; None when the server never said it."""
        if not self._server:
            return None
        return round((max(self._server) + steady_s * 1e6 - wall_us) / 1000)
