"""A real HTTP door on a free loopback port before a real bundle, and a client that shows what came over the wire."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.doors.answering import Answering
from device_agent.doors.http.application import Surroundings
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.settings import HttpSettings, Limits
from device_agent.scorer import Scorer

JSON = {"Content-Type": "application/json"}


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def outputs(self) -> dict[str, Any]:
        return {one["name"]: one["data"] for one in self.json["outputs"]}


@dataclass
class World:
    models: Answering
    door: HttpDoor
    port: int

    def ask(self, method: str, path: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request on a connection of its own; a body that is no bytes is sent as JSON."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def infer(self, *inputs: Mapping[str, Any], path: str = "tiny", **more: Any) -> Reply:
        return self.ask("POST", f"/v2/models/{path}/infer", {"inputs": list(inputs), **more})

    def raw(self, content: bytes, *, then_close: bool = False) -> bytes:
        """Everything that the door answers to these bytes until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as sock:
            sock.sendall(content)
            if then_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    def balanced(self) -> bool:
        counts = self.door.counts()
        return counts.offered == counts.scored + sum(counts.rejected.values()) + counts.shed


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def world(
    bundle: Path | None, surroundings: Surroundings | None = None, *, token_file: Path | None = None, **limits: Any
) -> Iterator[World]:
    models = Answering()
    if bundle is not None:
        models.install(Scorer.open(bundle))
    door = HttpDoor(models, HttpSettings(port=0, token_file=token_file, limits=Limits(**limits)), surroundings)
    door.start()
    try:
        yield World(models, door, int(door.url.rpartition(":")[2]))
    finally:
        door.close()
        models.close()


def matrix(x: NDArray[np.float32], **more: Any) -> dict[str, Any]:
    """The tensor `inputs` as flat JSON, NaN as null."""
    flat = [None if np.isnan(v) else float(v) for v in x.ravel().tolist()]
    return {"name": "inputs", "datatype": "FP32", "shape": list(x.shape), "data": flat, **more}


def binary_request(tensors: list[tuple[dict[str, Any], bytes]], **more: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request with binary tensors."""
    inputs = [{**spec, "parameters": {"binary_data_size": len(raw)}} for spec, raw in tensors]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(raw for _, raw in tensors), {"Inference-Header-Content-Length": str(len(head))}


def rows(n: int, features: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(n, features)).astype(np.float32)
