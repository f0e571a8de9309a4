"""The MQTT door in a storm: too many rows, bad ones among them, models swapped and shared, the broker killed; the sums stay right."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.update.trial import Trial
from edgefleet.ports import free_port
from tests.unit.device_agent.agent_world import QUICK, eventually, make_bundle, mosquitto, rows, weights
from tests.unit.device_agent.mqtt_world import Caller, opened, settled

pytestmark = [pytest.mark.broker, pytest.mark.conversions]
ROW = [0.5, 1.0, -1.0, 0.0, 2.0]


class Storm:
    """Changes models without a pause until it is over."""

    def __init__(self, models: Answering, folder: Path) -> None:
        self.bundles = [make_bundle(folder / str(seed), weights(seed)) for seed in (1, 2)]
        self.models, self.over, self.swaps, self.errors = models, threading.Event(), 0, list[Exception]()
        self.compared = self.shed = 0
        self.thread = threading.Thread(target=self._blow, daemon=True)

    def _blow(self) -> None:
        while not self.over.wait(0.02):
            try:
                self._once()
            except Exception as err:
                self.errors.append(err)

    def _once(self) -> None:
        candidate, trial = Scorer.open(self.bundles[self.swaps % 2]), Trial(QUICK, 0.0, compared=True)
        self.models.begin_trial(candidate, trial)
        self.models.begin_split(Scorer.open(self.bundles[1]), 300, f"storm-{self.swaps}")
        self.over.wait(0.1)
        self.models.end_split()
        self.models.install(candidate)
        self.swaps += 1
        self.compared, self.shed = self.compared + trial.both, self.shed + trial.shed


def messages(n: int) -> list[Any]:
    rng = np.random.default_rng(7)
    kinds: list[Any] = [ROW, {"rows": rows(8).tolist(), "key": "k"}, [1, 2], b"nonsense", {"row": ROW, "explain": True}, [ROW, ["x"]]]
    return [kinds[int(rng.integers(len(kinds)))] for _ in range(n)]


def test_every_message_that_reached_the_door_is_counted_once_and_answered(tmp_path: Path) -> None:
    port, models = free_port(), Answering()
    models.install(Scorer.open(make_bundle(tmp_path / "first", weights(1))))
    storm = Storm(models, tmp_path)
    before = psutil.Process().memory_info().rss
    with mosquitto(tmp_path / "b1", port) as (_, _, child):
        door = opened(models, port)
        storm.thread.start()
        with Caller(port) as caller:
            for message in messages(4000):
                caller.send(message, qos=0)
            settled(door, 3000)  # the caller's own broker may drop some of QoS 0
        child.kill()
        child.wait()
        eventually("the loss", lambda: not door.connected)
    reached = door.counts.messages
    with mosquitto(tmp_path / "b2", port):
        eventually("the return", lambda: door.connected, 90.0)
        with Caller(port) as caller:
            for i, message in enumerate(messages(500)):
                caller.send(message, CorrelationData=str(i).encode())

            def answered() -> list[int]:
                # Answers from before the broker's death may come now, without a number.
                return sorted(int(number) for _, _, number, _ in list(caller.got) if number)

            eventually("500 answers", lambda: len(answered()) >= 500, 60.0)
            assert answered() == list(range(500))
            statuses = {caller.read(i)["status"] for i in range(len(caller.got))}
        storm.over.set()
        storm.thread.join()
        counts = door.counts
        door.close()

    windows = models.take_windows(1)
    assert storm.errors == []
    assert storm.swaps > 3
    assert reached + 500 <= counts.messages <= 4500
    assert counts.offered == counts.scored + counts.shed + sum(counts.rejected.values())
    assert statuses <= {"ok", "rejected", "shed"}
    assert "internal" not in counts.rejected
    assert sum(window.body.answered for window in windows) == models.rows == counts.scored
    assert storm.compared > 0
    assert psutil.Process().memory_info().rss - before < 200 * 2**20
    models.close()
