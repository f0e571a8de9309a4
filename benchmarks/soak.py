"""Soak: a whole agent at full load for long, with a broker and a server: no row unaccounted for, no statistic lost, memory flat.

Rows come by every door at once: two threads that call the agent, clients of the HTTP and the MQTT door, a followed file, which is rotated,
and files in a watched folder; one row in 64 is bad. At the end `offered = scored + rejected + shed` must hold over all doors, and the
windows that arrived must hold the same numbers (those of the folder are its watcher's, which is a program of its own in the field).
Memory is the resident size of this process, agent and load together, fitted by a line after the first fifth of the run.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import tempfile
import threading
import time
from array import array
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import FEATURES, logistic_graph, write_bundle
from benchmarks.soak_doors import TOPIC_IN, TOPIC_OUT, FolderLoad, MqttLoad
from benchmarks.soak_server import PROJECT, Server, connected, enroll, mosquitto
from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.doors.http.settings import HttpSettings
from device_agent.doors.mqtt.settings import MqttOptions
from device_agent.scorer import Scorer
from device_agent.telemetry.selfwatch import own_cost
from edgefleet.errors import EdgefleetError
from edgefleet.ports import free_port

CALLERS: Final = 2
BAD_EVERY: Final = 64
FILE_ROWS: Final = 500
ROTATE_BYTES: Final = 20_000_000
BACKLOG_ROWS: Final = 5_000
LOOK_S: Final = 0.25
DRAIN_S: Final = 120.0
# A leak of one small object per row would be 50 MB per million rows; allocators and the broker's client move by a few.
GROWTH_LIMIT_MB: Final = 3.0
# A shorter run fits a line through noise.
LEAST_ROWS: Final = 500_000
LEAST_LOOKS: Final = 8
BAD: Final[tuple[Any, ...]] = ([1.0], ["x"] * FEATURES, [1e9] * FEATURES, {"f0": 1.0}, [None] * FEATURES)
BAD_LINES: Final = ("not json", "[1, 2", '"text"', "[" * 200, "[1e999]")


@dataclass
class Load:
    """What was offered so far, and when to stop."""

    rows: int
    until_s: float
    by_calls: int = 0
    by_file: int = 0
    by_http: int = 0
    by_mqtt: int = 0
    by_folder: int = 0
    refused: int = 0
    # Seconds, rows offered, resident bytes, one look after the other: a list of tuples would grow by 3 MB an hour itself.
    looks: "array[float]" = field(default_factory=lambda: array("d"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def offered(self) -> int:
        """Rows offered at all doors."""
        return self.by_calls + self.by_file + self.by_http + self.by_mqtt + self.by_folder

    def offer(self, door: str, rows: int) -> None:
        """Count rows in, before they are offered."""
        with self.lock:
            setattr(self, door, getattr(self, door) + rows)

    def ended(self) -> bool:
        """Whether enough was offered, or the time is over."""
        return self.offered >= self.rows or time.monotonic() >= self.until_s


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A whole agent at full load for long.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows at least (default 1000000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time at the latest (default 60)")
    parser.add_argument("--process", action="store_true", help="a real `edgefleet agent run`, by the doors that other programs reach")
    options = parser.parse_args()
    if options.process:
        from benchmarks.soak_process import soak_process

        show(soak_process(options.rows, options.minutes), options.json)
        return
    show(soak(options.rows, options.minutes), options.json)


def soak(rows: int, minutes: float) -> list[Figure]:
    """Figures of one soak."""
    port, server = free_port(), Server()
    load = Load(rows, time.monotonic() + 60 * minutes)
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name), port), connected(server, port):
        folder = Path(name)
        x = np.random.default_rng(0).normal(size=(1024, FEATURES)).astype(np.float32)
        bundle = write_bundle(folder / "bundle", logistic_graph(), x)
        sensor = folder / "sensor.ndjson"
        sensor.touch()
        doors: dict[str, Any] = {"http": HttpSettings(port=0), "mqtt": MqttOptions(f"mqtt://127.0.0.1:{port}", TOPIC_IN, TOPIC_OUT)}
        agent = Agent(AgentConfig(dir=enroll(folder / "device", port), sensor=sensor, heartbeat_s=5.0, keep_s=5.0, **doors))
        called, watched = MqttLoad(port, x, BAD_EVERY), FolderLoad(folder, bundle, x, BAD_LINES, BAD_EVERY)
        seen = Seen(agent, called, watched)
        agent._models.install(Scorer.open(bundle))
        agent.start()
        start = time.monotonic()
        threads = [threading.Thread(target=_call, args=(agent, load, x, i)) for i in range(CALLERS)]
        threads.append(threading.Thread(target=_write, args=(seen, load, x, sensor)))
        threads.append(threading.Thread(target=ask, args=(agent.http_url, load, x)))
        by_mqtt, by_folder = partial(load.offer, "by_mqtt"), partial(load.offer, "by_folder")
        threads.append(threading.Thread(target=called.run, args=(load.ended, by_mqtt, lambda: agent._mqtt and agent._mqtt.connected)))
        threads.append(threading.Thread(target=watched.run, args=(load.ended, by_folder)))
        for thread in threads:
            thread.start()
        _watch(load, threads)
        wait(lambda: seen.rows() == load.offered and called.answered == called.sent)
        taken_s = time.monotonic() - start
        agent._reports.flush()
        wait(lambda: agent._reports.health().spooled == 0)
        health, rows = agent._reports.health(), seen.rows()
        agent.close()
        called.close()
        watched.close()
    return _figures(load, server, health, seen, rows, taken_s)


class Seen:
    """What became of the rows of all doors."""

    def __init__(self, agent: Agent, called: MqttLoad, watched: FolderLoad) -> None:
        self._agent, self.called, self.watched = agent, called, watched

    def rows(self) -> int:
        """Rows that were scored, rejected or shed."""
        models, tally = self._agent._models, self.watched.watched.tally
        by_models = models.rows + models.rejected + models.unanswered + self._agent._reports.bad_lines
        return int(by_models + self.unread() + self.mqtt().shed + tally.scored + tally.refused)

    def unread(self) -> int:
        """Messages that the MQTT door refused before a model saw them: the bad rows among readable ones are refused for their `count`."""
        return int(self.mqtt().rejected.get("type", 0))

    def mqtt(self) -> Any:
        """Counts of the MQTT door."""
        assert self._agent._mqtt is not None  # noqa: S101  # a soak has one
        return self._agent._mqtt.counts


def growth(load: Load, settle_s: float = 0.0) -> list[Figure]:
    """Slopes of the resident size after the first fifth of the rows and the first `settle_s` seconds."""
    looks = np.array(load.looks).reshape(-1, 3)
    settled = looks[(looks[:, 1] >= 0.2 * load.offered) & (looks[:, 0] >= looks[0, 0] + settle_s)]
    if load.offered < LEAST_ROWS or len(settled) < LEAST_LOOKS:
        return []
    at_s, offered, rss_bytes = settled.T  # bytes per row are MB per million rows
    per_row, per_second = (float(np.polyfit(axis - axis.mean(), rss_bytes, 1)[0]) for axis in (offered, at_s))
    return [
        Figure("memory growth per million rows", per_row, "MB", GROWTH_LIMIT_MB, len(settled)),
        Figure("memory growth per hour at this rate", per_second * 3600 / 1e6, "MB", None, len(settled)),
    ]


def _figures(load: Load, server: Server, health: Any, seen: Seen, rows: int, taken_s: float) -> list[Figure]:
    n, door, tally = load.offered, seen.mqtt(), seen.watched.watched.tally
    return [
        Figure("rows offered", n, "rows", None, n),
        Figure("rows a second, all doors", n / taken_s, "1/s", None, n),
        Figure("offered - scored - rejected - shed", abs(n - rows), "rows", 0, n),
        Figure("rows by call", load.by_calls, "rows", None, n),
        Figure("rows by followed file", load.by_file, "rows", None, n),
        Figure("rows by HTTP", load.by_http, "rows", None, n),
        Figure("rows by MQTT", load.by_mqtt, "rows", None, n),
        Figure("rows by watched folder", load.by_folder, "rows", None, n),
        Figure("MQTT rows that the door did not count", abs(load.by_mqtt - door.offered), "rows", 0, seen.called.sent),
        Figure("unreadable MQTT messages that were taken", abs(seen.called.unreadable - seen.unread()), "count", 0, seen.called.sent),
        Figure("MQTT messages without an answer", seen.called.sent - seen.called.answered, "count", 0, seen.called.sent),
        Figure("folder rows that its watcher did not count", abs(load.by_folder - tally.offered), "rows", 0, seen.watched.watched.files),
        Figure("HTTP requests refused", load.refused, "count", 0, load.by_http // BAD_EVERY),
        Figure("unanswered, for want of a model", health.unanswered, "rows", 0, n),
        Figure("shed", door.shed, "rows", None, n),
        Figure("rejected", health.rejected + seen.unread() + tally.refused, "rows", None, n),
        Figure("scored, but in no window that arrived", abs(health.rows - server.answered), "rows", 0, n),
        Figure("lines and rows rejected before the model", health.rejected - server.rejected, "rows", None, n),
        Figure("telemetry dropped", health.dropped, "records", 0, server.records),
        Figure("telemetry that came twice", server.doubles, "records", None, server.records),
        Figure("telemetry per 1000 rows", 1000 * server.bytes / n, "bytes", None, server.records),
        *growth(load),
        Figure("memory at the end", health.rss_bytes / 1e6, "MB", None, 1),
    ]


def _call(agent: Agent, load: Load, x: Any, number: int) -> None:
    rows = [x[i] if i % 2 else x[i].tolist() for i in range(len(x))]
    for i in itertools.count(number):
        if i % 256 == number and load.ended():
            return
        with contextlib.suppress(EdgefleetError):  # counted by the agent, which is what is compared
            agent.score(BAD[i // BAD_EVERY % len(BAD)] if i % BAD_EVERY == 0 else rows[i % len(rows)])
        load.offer("by_calls", 1)


def ask(url: str | None, load: Load, x: Any) -> None:
    """A client of the HTTP door: batches with one bad row, until the end."""
    rows = x[:BAD_EVERY].copy()
    rows[7] = 1e9
    tensor = {"name": "inputs", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    content = json.dumps({"inputs": [tensor]}).encode()
    where = urlsplit(url or "")
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    while not load.ended():
        connection.request("POST", f"/v2/models/{PROJECT}/infer", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        load.offer("by_http" if answer.status == 200 else "refused", len(rows) if answer.status == 200 else 1)
    connection.close()


def _write(seen: Seen, load: Load, x: Any, sensor: Path) -> None:
    lines = [json.dumps([round(float(v), 3) for v in row]) for row in x[:FILE_ROWS]]
    for i in range(0, FILE_ROWS, BAD_EVERY):
        lines[i] = BAD_LINES[i // BAD_EVERY % len(BAD_LINES)]
    content = "\n".join(lines) + "\n"
    pause = threading.Event()
    while not load.ended():
        if load.offered - seen.rows() > BACKLOG_ROWS:
            pause.wait(0.01)
            continue
        if sensor.stat().st_size > ROTATE_BYTES:
            sensor.rename(sensor.with_suffix(".old"))
        with sensor.open("a") as stream:
            stream.write(content)
        load.offer("by_file", FILE_ROWS)


def _watch(load: Load, threads: list[threading.Thread]) -> None:
    pause = threading.Event()
    while any(thread.is_alive() for thread in threads):
        load.looks.extend((time.monotonic(), load.offered, own_cost().rss_bytes))
        pause.wait(LOOK_S)
    for thread in threads:
        thread.join()


def wait(there: Any, seconds: float = DRAIN_S) -> None:
    """Wait for the rest to go through; what does not is a figure over its limit."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not there() and time.monotonic() < deadline:
        pause.wait(0.1)


if __name__ == "__main__":
    main()
