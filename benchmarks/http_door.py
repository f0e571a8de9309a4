"""What a row over HTTP costs: the door beside MLServer 1.7 and beside itself in granian, all before the same graph.

One row of 20 numbers as JSON by the Open Inference Protocol, a client of bare sockets on loopback, interleaved rounds, medians. CPU is
user and system time of all processes of a server. MLServer and granian live in environments that the tests make: without them their rows
are left out, and stderr says so: EDGEFLEET_FOREIGN=FOLDER ./run test -m foreign
"""

import argparse
import json
import re
import selectors
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import http_servers
from benchmarks.figures import Figure, show
from benchmarks.http_servers import Server
from benchmarks.scorer_graphs import FEATURES, logistic_graph, write_bundle

MLSERVER: Final = "mlserver==1.7.1"
GRANIAN: Final = "granian==2.8.7"
BATCH_ROWS: Final = 100
_OK: Final = b"HTTP/1.1 200"
_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Seen:
    """Medians' material of one server: by connections requests a second, p99 in milliseconds, CPU microseconds per request."""

    rate: dict[int, list[float]] = field(default_factory=lambda: {1: [], 8: []})
    p99_ms: dict[int, list[float]] = field(default_factory=lambda: {1: [], 8: []})
    cpu_us: dict[int, list[float]] = field(default_factory=lambda: {1: [], 8: []})
    requests: int = 0
    memory_bytes: int = 0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http_door", description="Cost of a row over HTTP.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round of one server (default 2)")
    options = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(512, FEATURES)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        bundle = write_bundle(folder / "bundle", logistic_graph(), x)
        granian, graph = _foreign(GRANIAN), bundle / "onnx-fp32.onnx"
        python = granian or Path(sys.executable)  # the first has a device's packages only, of which one runtime
        servers = [stack.enter_context(http_servers.door(python, bundle))]
        if (peer := _foreign(MLSERVER)) is not None:
            servers.append(stack.enter_context(http_servers.mlserver(peer, graph, folder / "mlserver")))
        if granian is not None:
            servers.append(stack.enter_context(http_servers.granian(granian, bundle)))
        seen = measure(servers, json_request(x[:1]), options.rounds, options.seconds)
        figures = compare(seen, http_servers.bare_memory_bytes(python, graph)) + batches(servers[0], x[:BATCH_ROWS], options.rounds)
    show(figures, options.json)


def measure(servers: list[Server], request: bytes, rounds: int, seconds: float) -> dict[str, Seen]:
    """Interleaved rounds at one and at eight connections, after one round that nobody counts."""
    seen = {server.name: Seen() for server in servers}
    for server in servers:
        drive(server.port, request, 8, min(seconds, 1.0))
    for _ in range(rounds):
        for connections in (1, 8):
            for server in servers:
                cpu, start = server.cpu_s(), time.perf_counter()
                taken = drive(server.port, request, connections, seconds)
                one = seen[server.name]
                one.rate[connections].append(len(taken) / (time.perf_counter() - start))
                one.cpu_us[connections].append((server.cpu_s() - cpu) / len(taken) * 1e6)
                one.p99_ms[connections].append(float(np.percentile(taken, 99)) * 1e3)
                one.requests += len(taken)
    for server in servers:
        seen[server.name].memory_bytes = server.memory_bytes()
    return seen


def compare(seen: dict[str, Seen], bare_bytes: int) -> list[Figure]:
    """Figures of each server, and the ratios that have limits.

    Memory is judged beyond that of a Python that only runs the graph: numpy and the runtime are in every server alike.
    """
    figures = [Figure("Python that runs the graph: memory", bare_bytes / 1e6, "MB", None, 1)]
    for name, one in seen.items():
        for connections in (1, 8):
            at = f"{name}, {connections} connection{'s' if connections > 1 else ''}"
            figures.append(Figure(f"{at}: requests/s", _median(one.rate[connections]), "1/s", None, one.requests))
            figures.append(Figure(f"{at}: CPU a request", _median(one.cpu_us[connections]), "us", None, one.requests))
            figures.append(Figure(f"{at}: p99", _median(one.p99_ms[connections]), "ms", None, one.requests))
        figures.append(Figure(f"{name}: memory", one.memory_bytes / 1e6, "MB", None, 1))
    door, peer, granian = seen["door"], seen.get("MLServer"), seen.get("granian")
    if peer is not None:
        n = door.requests + peer.requests
        figures += [
            Figure("requests/s at 8 connections, MLServer / door", _ratio(peer.rate[8], door.rate[8]), "ratio", 1 / 3.5, n),
            Figure("CPU a request at 1 connection, door / MLServer", _ratio(door.cpu_us[1], peer.cpu_us[1]), "ratio", 0.25, n),
            Figure("p99 at 1 connection, door / MLServer", _ratio(door.p99_ms[1], peer.p99_ms[1]), "ratio", 1.0, n),
            Figure("p99 at 8 connections, door / MLServer", _ratio(door.p99_ms[8], peer.p99_ms[8]), "ratio", 1.0, n),
            Figure("memory, door / MLServer", door.memory_bytes / peer.memory_bytes, "ratio", None, 1),
            Figure("memory beyond the graph's, door / MLServer", _beyond(door, bare_bytes) / _beyond(peer, bare_bytes), "ratio", 0.125, 1),
        ]
        if granian is not None:
            ratio = _ratio(peer.rate[8], granian.rate[8])
            figures.append(Figure("requests/s at 8 connections, MLServer / door in granian", ratio, "ratio", 1 / 12, n))
    return figures


def batches(server: Server, x: Any, rounds: int) -> list[Figure]:
    """Binary tensors beside JSON for 100 rows of 20 numbers."""
    ways = {"JSON": json_request(x), "binary": binary_request(x)}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, request in ways.items():
            times[way].append(statistics.median(drive(server.port, request, 1, 0.5)) * 1e3)
    figures = [Figure(f"door, {len(x)} rows as {way}: p50", _median(found), "ms", None, rounds) for way, found in times.items()]
    return [*figures, Figure(f"{len(x)} rows, binary / JSON", _ratio(times["binary"], times["JSON"]), "ratio", 1.0, rounds)]


def drive(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    """Seconds that each request took; every connection has one under way at any time.

    The client must cost less than the servers: the answers to equal requests have equal lengths, so that only the first is parsed.
    """
    taken: list[float] = []
    length = 0
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        for _ in range(connections):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request)
            selector.register(sock, selectors.EVENT_READ, [time.perf_counter(), b""])
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end or not taken:
            for key, _ in selector.select(1.0):
                peer, state = key.fileobj, key.data
                assert isinstance(peer, socket.socket)  # noqa: S101  # nothing else is registered
                answer = peer.recv(1 << 16)
                if len(answer) != length or state[1] or not answer.startswith(_OK):
                    state[1] += answer
                    if not _complete(state[1]):
                        continue
                    length = len(state[1])
                now = time.perf_counter()
                taken.append(now - state[0])
                state[:] = [now, b""]
                peer.sendall(request)
    return taken


def json_request(x: Any) -> bytes:
    """The rows as flat JSON."""
    body = json.dumps({"inputs": [{"name": "inputs", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}]}).encode()
    return _post(body)


def binary_request(x: Any) -> bytes:
    """The rows as a binary tensor, answers binary too."""
    tensor = {"name": "inputs", "datatype": "FP32", "shape": list(x.shape), "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return _post(head + x.tobytes(), f"Inference-Header-Content-Length: {len(head)}\r\n")


def _post(body: bytes, more: str = "") -> bytes:
    head = f"POST /v2/models/benchmark/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if not head.startswith(_OK):
        raise SystemExit(f"an answer is not 200: {answer[:300]!r}")
    length = _LENGTH.search(head)
    return length is not None and len(body) >= int(length[1])


def _foreign(requirement: str) -> Path | None:
    python = http_servers.foreign(requirement)
    if python is None:
        print(f"left out: {requirement} is not in EDGEFLEET_FOREIGN", file=sys.stderr)
    return python


def _beyond(seen: Seen, bare_bytes: int) -> int:
    return max(seen.memory_bytes - bare_bytes, 0)


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios of the rounds, which share what else the machine did."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


if __name__ == "__main__":
    main()
