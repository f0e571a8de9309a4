"""From the spool to the broker: at most 20 records under way, paced, repeated until the server has stored them.

A record is repeated after a reconnect and when no acknowledgement came for 30 s; while none comes that time doubles up to ten minutes, so
that a server that is down does not find a heap of doubles. Doubles do no harm: the server knows records by (boot, sequence).
"""

from typing import Final

from device_agent.connection import Link
from device_agent.telemetry.pace import Pace
from device_agent.telemetry.spool import Spool
from edgefleet.messages import Acked, decode

RESEND_AFTER_S: Final = 30.0
RESEND_CAP_S: Final = 600.0


class Sending:
    """Sends one spool over one link; used by one thread.

    Args:
        spool: What waits.
        link: Where it goes.
        pace: How fast.
        now_s: Monotonic seconds.

    Attributes:
        server_at: Server's clock in the last acknowledgement, microseconds UTC, 0 when it does not tell it.
    """

    def __init__(self, spool: Spool, link: Link, pace: Pace, now_s: float) -> None:
        self._spool, self._link, self._pace = spool, link, pace
        self._progress_at, self._resend_after_s = now_s, RESEND_AFTER_S
        self.server_at = 0

    def reconnected(self, now_s: float) -> None:
        """Whatever was under way may be lost."""
        self._progress_at, self._resend_after_s = now_s, RESEND_AFTER_S
        self._spool.resend()

    def take_acked(self, now_s: float) -> bool:
        """Free what the server has stored; whether a message was there.

        Raises:
            ArtifactError: The message is malformed; nothing was freed.
        """
        payload = self._link.mailbox.take("acked")
        self._link.mailbox.take_oversized("acked")
        if payload is None:
            return False
        acked = decode(Acked, payload)
        self.server_at = acked.at
        if self._spool.acknowledge(acked):
            self._progress_at, self._resend_after_s = now_s, RESEND_AFTER_S
        return True

    def send(self, now_s: float) -> None:
        """Send what may go now; returns at once."""
        if not self._spool.outstanding:
            self._progress_at = max(self._progress_at, now_s)
        elif now_s - self._progress_at > self._resend_after_s:
            self._progress_at = now_s
            self._resend_after_s = min(2 * self._resend_after_s, RESEND_CAP_S)
            self._spool.resend()
        if not self._pace.may(now_s):
            return
        for key, message in self._spool.to_send():
            if not self._pace.may(now_s) or not self._link.publish("t", message):
                return
            self._spool.mark_sent(key)
            self._pace.went(len(message))
