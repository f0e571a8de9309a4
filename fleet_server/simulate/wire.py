"""Messages on their way to the server: some come twice, some come late and behind younger ones.

They wait on the server's side of our broker; while the broker is down nothing arrives. While the server is away the broker holds all of
them. As in the real ingest a message is a sign of life of the last tick before which nothing was held: a held one of the tick in which the
server was last there, any other one of the tick at which it comes.
"""

from collections import defaultdict
from collections.abc import Iterator
from enum import Enum

import numpy as np

from fleet_server.simulate.cells import Ints
from fleet_server.simulate.scene import PER_HOUR, Scene


class Word(Enum):
    """What a device says."""

    ALIVE = "alive"
    BEGAN = "began"
    FAILED = "failed"


class Wire:
    """What was sent and has not arrived yet.

    Args:
        rng: Of its own: the fleet's story does not depend on it.
        scene: With the shares of messages that come twice or late.
    """

    def __init__(self, rng: np.random.Generator, scene: Scene) -> None:
        self._rng, self._twice, self._late = rng, scene.duplicate_fraction, scene.late_fraction
        self._most = int(scene.late_h * PER_HOUR)
        self._holds = scene.away_hours > 0
        self._due: dict[int, list[tuple[Word, Ints]]] = defaultdict(list)
        self._held: list[tuple[Word, Ints]] = []

    @property
    def plain(self) -> bool:
        """Whether each message arrives once, at once."""
        return not (self._twice or self._late or self._holds)

    def send(self, number: int, word: Word, devices: Ints) -> None:
        """Devices send a message each at a tick."""
        if not (self._twice or self._late):
            self._due[number].append((word, devices))
            return
        late = self._rng.random(len(devices)) < self._late
        self._due[number].append((word, devices[~late]))
        self._later(number, word, devices[late], least=min(1, self._most))
        self._later(number, word, devices[self._rng.random(len(devices)) < self._twice], least=0)

    def arrive(self, number: int, *, broker_up: bool = True) -> Iterator[tuple[Word, Ints]]:
        """What arrives at a tick, asked for in rising order; what waits for the broker comes when it is back, behind younger messages."""
        arriving = self._due.pop(number, [])
        if broker_up:
            yield from reversed(arriving)
        else:
            self._due[number + 1] += arriving

    def hold(self, number: int, *, broker_up: bool) -> None:
        """A tick while the server is away: the broker keeps what arrives there."""
        self._held += self.arrive(number, broker_up=broker_up)

    def held(self) -> list[tuple[Word, Ints]]:
        """What the broker kept, once the server is there, in the order in which it came."""
        held, self._held = self._held, []
        return held

    def _later(self, number: int, word: Word, devices: Ints, *, least: int) -> None:
        delay = self._rng.integers(least, self._most + 1, len(devices))
        for one in np.unique(delay):
            self._due[number + int(one)].append((word, devices[delay == one]))
