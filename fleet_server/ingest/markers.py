"""Markers that the server sends itself over the broker, and what they say about the messages between them.

A broker delivers to a session in the order in which it took messages, held ones included. Whoever else may write to the topic cannot forge
a marker without reading it: only numbers under this process's own secret count.
"""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fleet_server.ingest.inbox import Incoming
from fleet_server.rollout.hearing import Hearing

LOG = logging.getLogger(__name__)

MARK_US: Final = 2_000_000
AGAIN_US: Final = 10_000_000  # a marker that has not come back may be lost
# A broker from which no marker ever came back gets so long after each connection to deliver what it held.
BLIND_US: Final = 300_000_000
_STALL_US: Final = 5_000_000
_MOST: Final = 64


class Markers:
    """Of one connection to a broker; used by one thread.

    Args:
        topic: To which this server alone publishes and subscribes.
        hearing: As of the last process.
        come_back: Whether a marker ever came back. Then the next one will, however long the broker delivers what it held, and nothing is
            guessed meanwhile.

    Attributes:
        hearing: What the markers prove so far.
        come_back: As above, until now.
        set_back_us: By how much the clock was set back, for whoever keeps moments; he sets it to 0.
    """

    def __init__(self, topic: str, hearing: Hearing, *, come_back: bool = False) -> None:
        self.topic, self.hearing, self.come_back = topic, hearing, come_back
        self.set_back_us = 0
        self._secret = secrets.token_hex(8)
        self._number = 0
        self._on_the_way: dict[bytes, int] = {}  # in the order in which they were published
        self._marked_at = 0
        self._connection: int | None = None
        self._listened_at = self._waits_since = 0
        self._warned = False

    def due(self, at: int, connection: int | None) -> bytes | None:
        """The next marker to publish, None when it is not time.

        Args:
            at: Now, microseconds UTC.
            connection: Number of the connection, None when there is none.
        """
        if connection is None:
            return None
        period_us = AGAIN_US if self._on_the_way else MARK_US
        if connection == self._connection and 0 <= at - self._marked_at < period_us:
            return None
        self._begin(at, connection)
        self._number, self._marked_at = self._number + 1, at
        marker = f"{self._secret}:{self._number}".encode()
        self._on_the_way[marker] = at
        if len(self._on_the_way) > _MOST:
            # The oldest comes back first, the newest proves most: both stay, however long it takes.
            self._on_the_way = dict(list(self._on_the_way.items())[::2])
        return marker

    def listen(self, messages: Sequence[Incoming], at: int, connection: int | None, *, drained: bool) -> list[Incoming]:
        """The messages that are no markers, each with the earliest moment at which it may have been sent.

        Args:
            messages: In the order of their arrival; an empty batch says that nothing waits.
            at: When they were taken, microseconds UTC.
            connection: Number of the connection, None when there is none.
            drained: Whether nothing waits behind them.
        """
        if at < self._listened_at:
            self._clock_was_set_back(self._listened_at - at)
        self._begin(at, connection)
        if not 0 <= at - self._listened_at <= _STALL_US:
            self._waits_since = at  # nobody took messages meanwhile: what comes now may have waited as long
        self._listened_at = at
        kept = []
        for message in messages:
            if message.topic == self.topic:
                self._came_back(message.payload, at)
            else:
                kept.append(replace(message, sent_after=self.hearing.sent_after(at)))
        if connection is not None and drained and at - self._waits_since >= BLIND_US:
            self._no_marker_came(at)
        return kept

    def _begin(self, at: int, connection: int | None) -> None:
        if connection is None or connection != self._connection:
            self._connection, self._waits_since = connection, at

    def _came_back(self, payload: bytes, at: int) -> None:
        published_at = self._on_the_way.get(payload)
        if published_at is None:
            return
        for older in list(self._on_the_way):
            del self._on_the_way[older]
            if older == payload:
                break
        self.hearing, self._waits_since, self._warned = self.hearing.passed(published_at, at), at, False
        self.come_back = True

    def _clock_was_set_back(self, by_us: int) -> None:
        """What was proven by the clock as it went, by the clock as it goes now."""
        self.hearing = self.hearing.set_back(by_us)
        self.set_back_us += by_us
        self._on_the_way = {marker: published_at - by_us for marker, published_at in self._on_the_way.items()}

    def _no_marker_came(self, at: int) -> None:
        if not self._warned:
            self._warned = True
            meanwhile = (
                "nothing is a sign of life and no silence counts until one does. The broker may still deliver what it held; else"
                if self.come_back
                else "messages count from their arrival;"
            )
            said = "no marker on %s has come back for %d s: %s let this user publish and subscribe there"
            LOG.warning(said, self.topic, BLIND_US // 1_000_000, meanwhile)
        if not self.come_back:
            self.hearing = self.hearing.passed(at, at)
