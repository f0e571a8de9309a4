"""The ingest thread, its markers and what it keeps in the database; a queue stands for the broker and obeys its order."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.topics import marker_topic
from fleet_server.ingest.inbox import Incoming
from fleet_server.ingest.worker import IngestWorker
from fleet_server.rollout.hearing import Hearing
from fleet_server.store import hearing
from tests.unit.fleet_server.evidence_world import now_us, open_fleet
from tests.unit.fleet_server.server_world import World

HOUR_US = 3_600_000_000


class Broker:
    """One connection that holds messages in their order, markers too; it may forget markers."""

    def __init__(self, topic: str, held: list[Incoming], *, gives_markers_back: bool = True) -> None:
        self.connection = 1
        self.acknowledged = 0
        self._topic, self._waiting, self._gives_back = topic, held, gives_markers_back
        self._lock = threading.Lock()

    def mark(self, payload: bytes) -> None:
        if self._gives_back:
            with self._lock:
                self._waiting.append(Incoming(self._topic, payload, False, 1, 1, 1))

    def receive(self, limit: int, linger_s: float, wait_s: float) -> list[Incoming]:
        with self._lock:
            batch, self._waiting = self._waiting[:limit], self._waiting[limit:]
        if not batch:
            threading.Event().wait(0.01)
        return batch

    def acknowledge(self, messages: list[Incoming]) -> None:
        self.acknowledged += len(messages)

    def publish(self, topic: str, payload: bytes) -> None:
        pass


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def kept(world: World) -> tuple[Hearing, bool]:
    with world.services.db.read() as connection:
        return hearing.last(connection, now_us(world)), hearing.has_come_back(connection)


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not there():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def works(world: World, broker: Broker, there: Callable[[], bool]) -> None:
    """The ingest thread of one process, until something is there."""
    link: Any = broker
    worker = IngestWorker(world.services, link)
    worker.start()
    try:
        until(there)
    finally:
        worker.stop()


def test_a_marker_behind_what_was_held_ends_the_absence_and_is_known_to_the_next_process(world: World) -> None:
    open_fleet(world, 1)
    left_at = now_us(world)
    with world.services.db.write() as connection:
        hearing.keep(connection, Hearing(left_at))
    world.clock.move(3_600.0)
    broker = Broker(marker_topic("fleet"), [world.devices["d00000"].heartbeat()])

    works(world, broker, lambda: kept(world)[1])

    assert kept(world) == (Hearing(left_at + HOUR_US, back_at=left_at + HOUR_US), True)
    assert broker.acknowledged == 2


def test_a_clock_that_was_set_back_while_no_server_was_there_proves_nothing_until_a_marker_is_back(world: World) -> None:
    with world.services.db.write() as connection:
        hearing.keep(connection, Hearing(now_us(world)))
    world.clock.move(-3_600.0)

    works(world, Broker(marker_topic("fleet"), [], gives_markers_back=False), lambda: kept(world)[0] == Hearing(0) and row(world) == 0)
    works(world, Broker(marker_topic("fleet"), []), lambda: kept(world)[0].since == now_us(world))

    assert kept(world)[0].back_at == now_us(world)


def row(world: World) -> int:
    """What the database holds, unread by any rule."""
    with world.services.db.read() as connection:
        found = hearing.deaf_since(connection, world.clock())
    return -1 if found is None else int(found.timestamp())
