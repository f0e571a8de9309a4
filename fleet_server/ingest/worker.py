"""The ingest thread: takes batches from the link, stores each in one transaction, then acknowledges and publishes `acked`."""

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from edgefleet.messages import Acked, encode
from edgefleet.topics import device_topic, marker_topic
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.ingest.link import Link
from fleet_server.ingest.markers import Markers
from fleet_server.rollout.hearing import Hearing
from fleet_server.services import Services
from fleet_server.store import devices, hearing

LOG = logging.getLogger(__name__)
T = TypeVar("T")

BATCH: Final = 1_000
LINGER_S: Final = 0.05
WAIT_S: Final = 0.5
RETRY_S: Final = 1.0
# A process that dies forgets so much at most of how long it listened: what it heard then counts a little earlier.
KEEP_US: Final = 20_000_000


class IngestWorker:
    """One thread; a batch that cannot be stored now is kept and tried again, and nothing is acknowledged meanwhile."""

    def __init__(self, services: Services, link: Link) -> None:
        self._services, self._link = services, link
        self._stopping = threading.Event()
        self._kept_us = 0
        self._kept: Hearing | None = None
        self._said_come_back = False
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the batch in hand."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        markers = self._trying("what was heard last could not be read", self._last_heard)
        while markers is not None and not self._stopping.is_set():
            connection = self._link.connection
            marker = markers.due(self._services.now_us(), connection)
            if marker is not None:
                self._link.mark(marker)
            messages = self._link.receive(BATCH, LINGER_S, WAIT_S)
            at = self._services.now_us()
            stamped = markers.listen(messages, at, connection, drained=len(messages) < BATCH)
            if stamped or not 0 <= at - self._kept_us < KEEP_US:
                self._store(messages, stamped, markers)
            else:
                self._link.acknowledge(messages)

    def _store(self, messages: list[Incoming], stamped: list[Incoming], markers: Markers) -> None:
        said = f"a batch of {len(messages)} messages could not be stored"
        acked = self._trying(said, lambda: self._stored(stamped, markers))
        if acked is None:
            return  # not acknowledged: the broker sends them again
        self._kept_us = self._services.now_us()
        self._link.acknowledge(messages)
        if stamped:
            self._answer(acked)
            self._services.wake.set()

    def _stored(self, stamped: list[Incoming], markers: Markers) -> dict[str, Acked]:
        at = self._services.now_us()
        if markers.set_back_us or (markers.come_back and not self._said_come_back):
            with self._services.db.write() as connection:
                devices.clock_was_set_back(connection, at, markers.set_back_us)
                if markers.come_back:
                    hearing.note_come_back(connection, at)
            markers.set_back_us, self._said_come_back = 0, markers.come_back
        heard = markers.hearing
        # It changes with a marker, every two seconds; small batches come twenty times a second.
        acked = store_batch(self._services.db, stamped, at, None if heard == self._kept else heard)
        self._kept = heard
        return acked

    def _last_heard(self) -> Markers:
        at = self._services.now_us()
        with self._services.db.write() as connection:
            known = hearing.last(connection, at)
            self._said_come_back = hearing.has_come_back(connection)
            devices.clock_was_set_back(connection, at, 0)
        return Markers(marker_topic(self._services.config.fleet), known, come_back=self._said_come_back)

    def _trying(self, failure: str, act: Callable[[], T]) -> T | None:
        """What `act` gives, however long it takes; None when the worker is stopped before."""
        while True:
            try:
                return act()
            except Exception:  # a full disk or a locked database must not end the ingest of the whole fleet
                LOG.exception("ingest: %s, trying again in %.0f s", failure, RETRY_S)
                if self._stopping.wait(RETRY_S):
                    return None

    def _answer(self, acked: dict[str, Acked]) -> None:
        for device_id, message in acked.items():
            self._link.publish(device_topic(device_id, "acked"), encode(message))
