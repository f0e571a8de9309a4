"""How fast the spool may go out: after weeks offline a device trickles, so that a fleet that returns is no flood.

Pure: the time is an argument.
"""

from typing import Final

BURST_S: Final = 0.4


class Pace:
    """Each record costs time: 1 / records per second, or its bytes / bytes per second, whichever is more; at most 0.4 s of it in advance.

    Args:
        records_per_s: Records a second at most, in the long run.
        bytes_per_s: Bytes a second at most, in the long run; one record larger than that simply takes longer.
    """

    def __init__(self, records_per_s: float, bytes_per_s: float) -> None:
        self._record_s, self._byte_s = 1.0 / records_per_s, 1.0 / bytes_per_s
        self._debt_s, self._at_s = 0.0, 0.0

    def may(self, now_s: float) -> bool:
        """Whether a record may go at this monotonic time."""
        self._debt_s = max(0.0, self._debt_s - max(0.0, now_s - self._at_s))
        self._at_s = now_s
        return self._debt_s < BURST_S

    def went(self, size_bytes: int) -> None:
        """A record of this size went."""
        self._debt_s += max(self._record_s, size_bytes * self._byte_s)
