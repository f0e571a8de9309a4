"""Publishing what is committed: the outbox in order, and slowly everything again.

A message is taken from the database, published outside any transaction, and deleted once the broker has confirmed it. A crash in
between publishes it again: the same bytes under the same counter, which a device recognises.
"""

import logging
import secrets
from typing import Final, Protocol

from edgefleet.messages import encode
from edgefleet.topics import HALT, device_topic
from fleet_server.services import Services
from fleet_server.store import acks, assignments, halts, outbox

LOG = logging.getLogger(__name__)

BATCH: Final = 500
LEASE_US: Final = 10_000_000
CONFIRM_TIMEOUT_S: Final = 5.0
REFRESH_PIECE: Final = 100


class Publisher(Protocol):
    """The connection to the broker, as far as publishing goes."""

    @property
    def connected(self) -> bool:
        """Whether the broker answers now."""

    def publish_all(self, messages: list[tuple[str, bytes]], timeout_s: float) -> list[bool]:
        """Publish retained at QoS 1; for each message whether the broker confirmed it in time."""


class Relay:
    """One relay; any number may run, the lease lets one publish at a time."""

    def __init__(self, services: Services, link: Publisher) -> None:
        self._services, self._link = services, link
        self._owner = secrets.token_hex(8)
        self._refreshed = ""

    def publish_waiting(self) -> int:
        """Publish what waits; the number of messages that the broker confirmed. Nothing is lost when it is away."""
        db, at = self._services.db, self._services.now_us()
        if not self._link.connected:
            return 0
        with db.read() as connection:
            if not outbox.any_waiting(connection):
                return 0
        with db.write() as connection:
            rows = outbox.waiting(connection, BATCH) if outbox.lease(connection, self._owner, at, LEASE_US) else []
        confirmed = self._link.publish_all([(row.topic, row.payload) for row in rows], CONFIRM_TIMEOUT_S)
        sent = [row.seq for row, sure in zip(rows, confirmed, strict=True) if sure]
        if sent:
            with db.write() as connection:
                outbox.done(connection, sent)
        return len(sent)

    def publish_everything(self) -> int:
        """After a (re)connect: every desired state, every acknowledgement and a fleet halt, because the broker may have forgotten them."""
        self._refreshed = ""
        count = 0
        while piece := self.refresh(REFRESH_PIECE):
            count += piece
        return count

    def refresh(self, limit: int) -> int:
        """Publish the states of the next `limit` devices again, a fleet halt first; 0 at the end of the fleet, then it begins anew."""
        with self._services.db.read() as connection:
            halt = halts.current(connection, self._services.config.fleet) if not self._refreshed else None
            piece = assignments.desired_after(connection, self._refreshed, limit)
            known = acks.of_devices(connection, [device_id for device_id, _ in piece])
        messages = [] if halt is None else [(HALT, halt.message)]
        if not piece:
            self._refreshed = ""
            self._link.publish_all(messages, CONFIRM_TIMEOUT_S)
            return 0
        messages += [(device_topic(device_id, "desired"), message) for device_id, message in piece]
        messages += [(device_topic(device_id, "acked"), encode(acked)) for device_id, acked in known.items()]
        confirmed = self._link.publish_all(messages, CONFIRM_TIMEOUT_S)
        if not all(confirmed):
            LOG.warning("broker: %d of %d messages were not confirmed, they are sent again later", confirmed.count(False), len(confirmed))
            return 0
        self._refreshed = piece[-1][0]
        return len(piece)
