"""The ingest thread: takes batches from the link, stores each in one transaction, then acknowledges and publishes `acked`."""

import logging
import threading
from typing import Final

from edgefleet.messages import Acked, encode
from edgefleet.topics import device_topic
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.ingest.link import Link
from fleet_server.services import Services

LOG = logging.getLogger(__name__)

BATCH: Final = 1_000
LINGER_S: Final = 0.05
WAIT_S: Final = 0.5
RETRY_S: Final = 1.0


class IngestWorker:
    """One thread; a batch that cannot be stored now is kept and tried again, and nothing is acknowledged meanwhile."""

    def __init__(self, services: Services, link: Link) -> None:
        self._services, self._link = services, link
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """End after the batch in hand."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            messages = self._link.receive(BATCH, LINGER_S, WAIT_S)
            if messages:
                self._store(messages)

    def _store(self, messages: list[Incoming]) -> None:
        while True:
            try:
                acked = store_batch(self._services.db, messages, self._services.now_us())
                break
            except Exception:  # a full disk or a locked database must not end the ingest of the whole fleet
                LOG.exception("ingest: a batch of %d messages could not be stored, trying again in %.0f s", len(messages), RETRY_S)
                if self._stopping.wait(RETRY_S):
                    return  # not acknowledged: the broker sends them again
        self._link.acknowledge(messages)
        self._answer(acked)
        self._services.wake.set()

    def _answer(self, acked: dict[str, Acked]) -> None:
        for device_id, message in acked.items():
            self._link.publish(device_topic(device_id, "acked"), encode(message))
