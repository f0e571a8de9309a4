"""Soak: a whole agent at full load for long, with a broker and a server: no row unaccounted for, no statistic lost, memory flat.

Rows come by two threads that call the agent, by a client of the HTTP door, and by a followed file, which is rotated; one row in 64 is bad.
At the end `offered = scored + rejected + shed` must hold at the doors, and the windows that arrived must hold the same numbers. Memory is
the resident size of this process, agent and load together, fitted by a line after the first fifth of the run.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import FEATURES, logistic_graph, write_bundle
from benchmarks.soak_server import PROJECT, Server, connected, enroll, mosquitto
from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.doors.http.settings import HttpSettings
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
    refused: int = 0
    memory: list[tuple[int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def offered(self) -> int:
        """Rows offered at all doors."""
        return self.by_calls + self.by_file + self.by_http

    def ended(self) -> bool:
        """Whether enough was offered, or the time is over."""
        return self.offered >= self.rows or time.monotonic() >= self.until_s


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="A whole agent at full load for long.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows at least (default 1000000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time at the latest (default 60)")
    options = parser.parse_args()
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
        agent = Agent(
            AgentConfig(dir=enroll(folder / "device", port), sensor=sensor, heartbeat_s=5.0, keep_s=5.0, http=HttpSettings(port=0))
        )
        agent._models.install(Scorer.open(bundle))
        agent.start()
        start = time.monotonic()
        threads = [threading.Thread(target=_call, args=(agent, load, x, i)) for i in range(CALLERS)]
        threads.append(threading.Thread(target=_write, args=(agent, load, x, sensor)))
        threads.append(threading.Thread(target=_ask, args=(agent, load, x)))
        for thread in threads:
            thread.start()
        _watch(load, threads)
        _wait(lambda: _seen(agent) == load.offered)
        taken_s = time.monotonic() - start
        agent._reports.flush()
        _wait(lambda: agent._reports.health().spooled == 0)
        health = agent._reports.health()
        agent.close()
    return _figures(load, server, health, taken_s)


def _figures(load: Load, server: Server, health: Any, taken_s: float) -> list[Figure]:
    n = load.offered
    settled = [look for look in load.memory if look[0] >= 0.2 * n]
    growth = []
    if n >= LEAST_ROWS and len(settled) >= LEAST_LOOKS:
        offered, rss_bytes = np.array(settled, float).T  # bytes per row are MB per million rows
        slope = float(np.polyfit(offered - offered.mean(), rss_bytes, 1)[0])
        growth = [Figure("memory growth per million rows", slope, "MB", GROWTH_LIMIT_MB, len(settled))]
    unaccounted = abs(n - health.rows - health.rejected - health.unanswered)
    return [
        Figure("rows offered", n, "rows", None, n),
        Figure("rows a second, all doors", n / taken_s, "1/s", None, n),
        Figure("offered - scored - rejected - shed", unaccounted, "rows", 0, n),
        Figure("rows by HTTP", load.by_http, "rows", None, n),
        Figure("HTTP requests refused", load.refused, "count", 0, load.by_http // BAD_EVERY),
        Figure("shed", health.unanswered, "rows", 0, n),
        Figure("rejected", health.rejected, "rows", None, n),
        Figure("scored, but in no window that arrived", abs(health.rows - server.answered), "rows", 0, n),
        Figure("lines and rows rejected before the model", health.rejected - server.rejected, "rows", None, n),
        Figure("telemetry dropped", health.dropped, "records", 0, server.records),
        Figure("telemetry that came twice", server.doubles, "records", None, server.records),
        Figure("telemetry per 1000 rows", 1000 * server.bytes / n, "bytes", None, server.records),
        *growth,
        Figure("memory at the end", health.rss_bytes / 1e6, "MB", None, 1),
    ]


def _call(agent: Agent, load: Load, x: Any, number: int) -> None:
    rows = [x[i] if i % 2 else x[i].tolist() for i in range(len(x))]
    for i in itertools.count(number):
        if i % 256 == number and load.ended():
            return
        with contextlib.suppress(EdgefleetError):  # counted by the agent, which is what is compared
            agent.score(BAD[i // BAD_EVERY % len(BAD)] if i % BAD_EVERY == 0 else rows[i % len(rows)])
        with load.lock:
            load.by_calls += 1


def _ask(agent: Agent, load: Load, x: Any) -> None:
    rows = x[:BAD_EVERY].copy()
    rows[7] = 1e9
    tensor = {"name": "inputs", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    content = json.dumps({"inputs": [tensor]}).encode()
    where = urlsplit(agent.http_url or "")
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    while not load.ended():
        connection.request("POST", f"/v2/models/{PROJECT}/infer", content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        with load.lock:
            load.by_http += len(rows) if answer.status == 200 else 0
            load.refused += answer.status != 200
    connection.close()


def _write(agent: Agent, load: Load, x: Any, sensor: Path) -> None:
    lines = [json.dumps([round(float(v), 3) for v in row]) for row in x[:FILE_ROWS]]
    for i in range(0, FILE_ROWS, BAD_EVERY):
        lines[i] = BAD_LINES[i // BAD_EVERY % len(BAD_LINES)]
    content = "\n".join(lines) + "\n"
    pause = threading.Event()
    while not load.ended():
        if load.offered - _seen(agent) > BACKLOG_ROWS:
            pause.wait(0.01)
            continue
        if sensor.stat().st_size > ROTATE_BYTES:
            sensor.rename(sensor.with_suffix(".old"))
        with sensor.open("a") as stream:
            stream.write(content)
        with load.lock:
            load.by_file += FILE_ROWS


def _watch(load: Load, threads: list[threading.Thread]) -> None:
    pause = threading.Event()
    while any(thread.is_alive() for thread in threads):
        load.memory.append((load.offered, own_cost().rss_bytes))
        pause.wait(LOOK_S)
    for thread in threads:
        thread.join()


def _seen(agent: Agent) -> int:
    models = agent._models
    return models.rows + models.rejected + models.unanswered + agent._reports.bad_lines


def _wait(there: Any) -> None:
    """Wait for the rest to go through; what does not is a figure over its limit."""
    deadline, pause = time.monotonic() + DRAIN_S, threading.Event()
    while not there() and time.monotonic() < deadline:
        pause.wait(0.1)


if __name__ == "__main__":
    main()
