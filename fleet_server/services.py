"""What the views, the ingest and the scheduler share: one value, made once by `create_app`, no globals."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edgefleet.signing import SigningKey
from fleet_server.config import ServerConfig
from fleet_server.releases.blobs import BlobStore
from fleet_server.store import Database
from fleet_server.store.moments import to_micros


def utc_now() -> datetime:
    """The wall clock, aware."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Services:
    """The parts of one server.

    Attributes:
        db: The truth.
        config: Its settings.
        director: Key that signs desired states; devices learn its public half at enrolment.
        blobs: Files of bundles by sha256.
        wake: Set when the scheduler or the publisher has something to do before its next look.
        completed: Set when a rollout is completed: what is in service may have changed.
        clock: Where `now` comes from.
    """

    db: Database
    config: ServerConfig
    director: SigningKey
    blobs: BlobStore
    wake: threading.Event = field(default_factory=threading.Event)
    completed: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], datetime] = utc_now

    def now_us(self) -> int:
        """Microseconds UTC."""
        return to_micros(self.clock())
