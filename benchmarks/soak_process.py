"""The soak of a real `edgefleet agent run` process with `edgefleet agent score --watch` beside it, and of their memory alone.

Rows come through the doors that other programs reach: HTTP, MQTT, the followed file and the watched folder. The model is put into the
identity folder as an update would leave it. Counts are those that the processes tell when they end.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import Figure
from benchmarks.scorer_graphs import FEATURES, logistic_graph, write_bundle
from benchmarks.soak import BAD_EVERY, BAD_LINES, FILE_ROWS, LOOK_S, ROTATE_BYTES, Load, ask, growth, wait
from benchmarks.soak_doors import FOLDER_ROWS, TOPIC_IN, TOPIC_OUT, MqttLoad
from benchmarks.soak_server import PROJECT, Server, connected, enroll, mosquitto
from device_agent.health import Health, read_health
from device_agent.update.disk import Disk
from device_agent.update.store import Store
from edgefleet.bundle import Bundle
from edgefleet.errors import ConfigError
from edgefleet.ports import free_port

ASKERS: Final = 2
# The status is two seconds old at worst.
BACKLOG_ROWS: Final = 100_000
START_S: Final = 60.0
# Two young processes: windows, spool and allocators fill up within the first minute.
SETTLE_S: Final = 60.0
END_S: Final = 60.0
_EDGEFLEET: Final = (sys.executable, "-m", "edgefleet", "agent")


def soak_process(rows: int, minutes: float) -> list[Figure]:
    """Figures of one soak."""
    port, http_port, server = free_port(), free_port(), Server()
    load = Load(rows, time.monotonic() + 60 * minutes)
    with tempfile.TemporaryDirectory() as name, mosquitto(Path(name), port), connected(server, port):
        folder = Path(name)
        x = np.random.default_rng(0).normal(size=(1024, FEATURES)).astype(np.float32)
        bundle = write_bundle(folder / "bundle", logistic_graph(), x)
        device = enroll(folder / "device", port)
        install(device, bundle)
        sensor, inbox, outbox = folder / "sensor.ndjson", folder / "inbox", folder / "outbox"
        sensor.touch()
        inbox.mkdir()
        outbox.mkdir()
        run = [*_EDGEFLEET, "run", "--dir", str(device), "--http", str(http_port), "--sensor", str(sensor), "--keep-seconds", "5"]
        run += ["--mqtt-door", f"mqtt://127.0.0.1:{port}", "--mqtt-in", TOPIC_IN, "--mqtt-out", TOPIC_OUT, "--heartbeat-seconds", "5"]
        watch = [*_EDGEFLEET, "score", "--bundle", str(bundle), "--watch", str(inbox), "--output", str(outbox), "--json"]
        children = [_started(run, folder / "agent.log"), _started(watch, folder / "watcher.log")]
        called = MqttLoad(port, x, BAD_EVERY)
        try:
            wait(partial(_answers, http_port), START_S)
            start = time.monotonic()
            url = f"http://127.0.0.1:{http_port}"
            threads = [threading.Thread(target=ask, args=(url, load, x)) for _ in range(ASKERS)]
            threads.append(threading.Thread(target=_append, args=(device, load, x, sensor)))
            threads.append(threading.Thread(target=_put_files, args=(load, x, inbox, outbox)))
            by_mqtt = partial(load.offer, "by_mqtt")
            threads.append(threading.Thread(target=called.run, args=(load.ended, by_mqtt, partial(_listens, folder / "agent.log"))))
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                load.looks.extend((time.monotonic(), load.offered, sum(_resident_bytes(child.pid) for child in children)))
                threading.Event().wait(LOOK_S)
            wait(lambda: called.answered == called.sent and _counted(device) >= load.offered - load.by_folder - called.unreadable)
            taken_s, memory = time.monotonic() - start, [_resident_bytes(child.pid) for child in children]
        finally:
            said = [_ended(child) for child in children]
            called.close()
        health, tally = read_health(device), json.loads(said[1] or "{}")
        wait(lambda: server.answered >= health.rows, END_S)
    return _figures(load, server, health, tally, called, memory, taken_s)


def install(device: Path, bundle: Path) -> None:
    """Leave a bundle in an identity folder as a finished update does."""
    opened, store = Bundle.open(bundle), Store(device, Disk())
    variant = opened.manifest.variants[0]
    contents = {opened.digest: opened.locate("manifest.json")}
    contents |= {opened.manifest.files[name].sha256: opened.locate(name) for name in opened.manifest.variant_files(variant.name)}
    for digest, path in contents.items():
        store.make_room_for(digest)
        store.blob_path(digest).write_bytes(path.read_bytes())
    store.write_slot(opened.digest, opened.manifest, variant.name)
    store.point("active", opened.digest)


def _figures(
    load: Load, server: Server, health: Health, tally: dict[str, Any], called: MqttLoad, memory: list[int], taken_s: float
) -> list[Figure]:
    n, door = load.offered, health.doors["mqtt"]
    refused = sum(tally["rejected"].values())
    seen = health.rows + health.rejected + health.unanswered + called.unreadable + door["shed"] + tally["scored"] + refused
    return [
        Figure("rows offered", n, "rows", None, n),
        Figure("rows a second, all doors", n / taken_s, "1/s", None, n),
        Figure("offered - scored - rejected - shed", abs(n - seen), "rows", 0, n),
        Figure("rows by followed file", load.by_file, "rows", None, n),
        Figure("rows by HTTP", load.by_http, "rows", None, n),
        Figure("rows by MQTT", load.by_mqtt, "rows", None, n),
        Figure("rows by watched folder", load.by_folder, "rows", None, n),
        Figure("MQTT messages without an answer", called.sent - called.answered, "count", 0, called.sent),
        Figure("HTTP requests refused", load.refused, "count", 0, load.by_http // BAD_EVERY),
        Figure("shed", door["shed"], "rows", None, n),
        Figure("rejected", health.rejected + called.unreadable + refused, "rows", None, n),
        Figure("scored, but in no window that arrived", abs(health.rows - server.answered), "rows", 0, n),
        Figure("telemetry dropped", health.dropped, "records", 0, server.records),
        *growth(load, SETTLE_S),
        Figure("memory of the agent at the end", memory[0] / 1e6, "MB", None, 1),
        Figure("memory of the folder's watcher at the end", memory[1] / 1e6, "MB", None, 1),
    ]


def _started(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream)


def _ended(child: "subprocess.Popen[bytes]") -> bytes:
    child.send_signal(signal.SIGTERM)
    try:
        return child.communicate(timeout=END_S)[0]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[0]


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):  # it ended: the figures will show that
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.suppress(OSError):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    return 0, b""


def _answers(port: int) -> bool:
    return _get(port, f"/v2/models/{PROJECT}/ready")[0] == 200


def _listens(log: Path) -> bool:
    """Whether the MQTT door has subscribed: what comes before is kept by nobody."""
    return b"MQTT door: listening" in log.read_bytes()


def _status(device: Path) -> Health | None:
    with contextlib.suppress(ConfigError):
        return read_health(device)
    return None


def _counted(device: Path) -> int:
    health = _status(device)
    return 0 if health is None else health.rows + health.rejected + health.unanswered + health.doors.get("mqtt", {}).get("shed", 0)


def _append(device: Path, load: Load, x: Any, sensor: Path) -> None:
    lines = [json.dumps([round(float(v), 3) for v in row]) for row in x[:FILE_ROWS]]
    for i in range(0, FILE_ROWS, BAD_EVERY):
        lines[i] = BAD_LINES[i // BAD_EVERY % len(BAD_LINES)]
    content, pause = "\n".join(lines) + "\n", threading.Event()
    while not load.ended():
        if load.offered - load.by_folder - _counted(device) > BACKLOG_ROWS:
            pause.wait(0.2)
            continue
        if sensor.stat().st_size > ROTATE_BYTES:
            sensor.rename(sensor.with_suffix(".old"))
        with sensor.open("a") as stream:
            stream.write(content)
        load.offer("by_file", FILE_ROWS)


def _put_files(load: Load, x: Any, inbox: Path, outbox: Path) -> None:
    lines = [json.dumps([round(float(v), 3) for v in row]) for row in x[:FOLDER_ROWS]]
    lines[7] = BAD_LINES[0]
    content, pause = "\n".join(lines) + "\n", threading.Event()
    for i in itertools.count():
        if load.ended():
            return
        name = inbox / f"{i:08d}.ndjson"
        part = name.with_suffix(".partial")
        part.write_text(content)
        part.rename(name)
        load.offer("by_folder", len(lines))
        _until(partial(_is_done, outbox, name), pause)
        name.unlink()


def _is_done(outbox: Path, name: Path) -> bool:
    """Whether a file's answers are there under their own name; then they and their journal go."""
    answers = outbox / f"{name.stem}.scores.ndjson"
    journal = outbox / f"{answers.name}.journal"
    if not answers.exists() or '"done"' not in (journal.read_text() if journal.exists() else ""):
        return False
    answers.unlink()
    journal.unlink()
    return True


def _until(done: Callable[[], bool], pause: threading.Event) -> None:
    deadline = time.monotonic() + END_S
    while not done() and time.monotonic() < deadline:
        pause.wait(0.02)
