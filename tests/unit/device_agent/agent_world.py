"""The world around a device agent in tests: real bundles, a blob server that obeys the server's rules, a director, a real broker."""

import http.server
import json
import os
import pwd
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
from numpy.typing import NDArray
from paho.mqtt.enums import CallbackAPIVersion

from edgefleet.bundle import Bundle
from edgefleet.desired import DesiredModel, DesiredPayload, TrialPolicy, sign_desired
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, Tolerance, Variant, manifest_bytes
from edgefleet.messages import Acked, M, Presence, Telemetry, decode, encode
from edgefleet.package import npz_bytes
from edgefleet.ports import free_port
from edgefleet.reference import build_reference
from edgefleet.signing import SigningKey
from tests.unit.device_agent.bundles import logistic_graph

T = TypeVar("T")

FEATURES = 5
FLEET, DEVICE, PROJECT, TOKEN = "demo-fleet", "press-7", "tiny", "device-token"
CLASSES = ["low", "mid", "high"]
QUICK = TrialPolicy(soak_s=0.0, soak_rows=10, timeout_s=30.0, agreement_rows=10, min_agreement=0.9)


def rows(n: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


def weights(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(FEATURES, len(CLASSES))).astype(np.float32)


def make_bundle(
    folder: Path,
    matrix: NDArray[np.float32],
    *,
    golden_shift: float = 0.0,
    project: str = PROJECT,
    runtime: str = "onnxruntime",
    explain: bool = True,
    extra_bytes: int = 0,
    graph: bytes | None = None,
    operators: list[str] | None = None,
) -> Bundle:
    """A softmax model with golden rows; `golden_shift` makes them lie about the model, `graph` stands in the place of its file."""
    graph = graph or logistic_graph(matrix, np.zeros(len(CLASSES), np.float32))
    x = rows(16, seed=1)
    margin = x.astype(np.float64) @ matrix.astype(np.float64)
    probabilities = np.exp(margin - margin.max(axis=1, keepdims=True))
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True) + golden_shift
    golden = {"x": x, "label": probabilities.argmax(axis=1).astype(np.int64), "probabilities": probabilities, "margin": margin}
    inputs = [Input(name=f"f{i}", low=-50.0, high=50.0, range_policy="reject") for i in range(FEATURES)]
    reference = build_reference(rows(400, seed=2), inputs, block_rows=50, classes=len(CLASSES))
    files = {"onnx-fp32.onnx": graph, "reference.npz": reference.to_bytes(), "golden.npz": npz_bytes(golden)}
    if explain:
        background = {"method": np.array("sampled"), "background": rows(16, seed=2)}
        files["explain-onnx-fp32.npz"] = npz_bytes(background)
    if extra_bytes:
        files["card.md"] = b"#" * extra_bytes
    variant = Variant(
        name="onnx-fp32",
        runtime=msgspec.convert(runtime, type=Any),
        file="onnx-fp32.onnx",
        model_digest=sha256_hex(graph),
        tolerance=Tolerance(max_error=1e-4, tie_margin=1e-3),
        explainer="explain-onnx-fp32.npz" if explain else None,
        explain_method="sampled" if explain else None,
        operators=_operators(graph) if operators is None else operators,
    )
    manifest = Manifest(
        format_version=1,
        project=project,
        task="classification",
        inputs=inputs,
        classes=CLASSES,
        outputs=["margin", "probabilities"],
        margin_kind="logit",
        shape=[FEATURES],
        window_rows=1,
        variants=[variant],
        reference="reference.npz",
        reference_digest=reference.digest,
        golden="golden.npz",
        package_digest="0" * 64,
        files={n: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for n, content in sorted(files.items())},
        mlflow=MlflowNote(reason="a test's bundle"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return Bundle.open(folder)


def _operators(graph: bytes) -> list[str]:
    from onnx import ModelProto

    return sorted({node.op_type for node in ModelProto.FromString(graph).graph.node})


@dataclass
class BlobServer:
    """Blobs over real HTTP with bearer token and ranges, as GET /api/v1/blobs/<sha256> of the fleet server answers."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    replace: dict[str, bytes] = field(default_factory=dict)
    url: str = ""

    def add(self, bundle: Bundle) -> None:
        self.blobs[bundle.digest] = bundle.locate("manifest.json").read_bytes()
        for name, entry in bundle.manifest.files.items():
            self.blobs[entry.sha256] = bundle.locate(name).read_bytes()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        digest = handler.path.rpartition("/")[2]
        wanted = handler.headers.get("Range")
        self.requests.append((digest, wanted))
        content = self.replace.get(digest, self.blobs.get(digest))
        code = self.refuse.get(digest, 404 if content is None else 200)
        if handler.headers.get("Authorization") != f"Bearer {TOKEN}":
            code = 401
        if code != 200 or content is None:
            handler.send_error(code)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        body = content[start:]
        handler.send_response(206 if wanted else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut_after.pop(digest, len(body))])


@contextmanager
def blob_server() -> Iterator[BlobServer]:
    served = BlobServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is the library's
            served.answer(self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Tests are quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Enrolled:
    """An identity folder, and the director's side of it."""

    folder: Path
    director: SigningKey
    counter: int = 0

    def desired(self, bundle_digest: str | None, trial: TrialPolicy = QUICK, **changes: Any) -> bytes:
        """The next desired state as bytes for the wire; `changes` replace fields of the payload."""
        self.counter += 1
        model = DesiredModel(
            bundle_digest=bundle_digest or "", release="r", release_counter=1, rollout="o", nonce=f"nonce-{self.counter}", trial=trial
        )
        payload = DesiredPayload(
            format_version=1,
            fleet=FLEET,
            device=DEVICE,
            epoch=1,
            counter=self.counter,
            issued_at=1,
            models={PROJECT: model} if bundle_digest else {},
        )
        return encode(sign_desired(msgspec.structs.replace(payload, **changes), self.director))


def enroll(folder: Path, server_url: str = "http://127.0.0.1:9", broker_url: str = "mqtt://127.0.0.1:9", **changes: Any) -> Enrolled:
    folder.mkdir(parents=True, exist_ok=True)
    director = SigningKey.load_or_create(folder.parent / f"{folder.name}-director.key")
    SigningKey.load_or_create(folder / "device.key")
    identity = {
        "format_version": 1,
        "device_id": DEVICE,
        "fleet": FLEET,
        "project": PROJECT,
        "labels": {"site": "a"},
        "director_key": director.public.hex,
        "server_url": server_url,
        "token": TOKEN,
        "broker_url": broker_url,
        "mqtt_username": "",
        "mqtt_password": "",
    }
    (folder / "identity.json").write_text(json.dumps(identity | changes))
    return Enrolled(folder, director)


def eventually(what: str, probe: Callable[[], T | bool | None], timeout_s: float = 60.0) -> T:
    """What the probe gives once it is true; fails with `what` after the time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not (value := probe()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        pause.wait(0.02)
    return cast(T, value)


@contextmanager
def mosquitto(folder: Path, port: int | None = None, more: Sequence[str] = ()) -> Iterator[tuple[str, int, subprocess.Popen[bytes]]]:
    """A private Mosquitto on loopback; the `user` line keeps it from dropping to an account that cannot write here."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    program = "/usr/sbin/mosquitto" if os.access("/usr/sbin/mosquitto", os.X_OK) else "mosquitto"
    user = pwd.getpwuid(os.getuid()).pw_name
    lines = [f"user {user}", "set_tcp_nodelay true", "allow_anonymous true", "log_dest none", f"listener {port} 127.0.0.1", *more, ""]
    (folder / "mosquitto.conf").write_text("\n".join(lines))
    child = subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}", port, child
    finally:
        if child.poll() is None:
            child.terminate()
        child.wait(60)


class Fleet:
    """The server's side of the topics of one device: keeps what comes, acknowledges what is told to."""

    def __init__(self, port: int, device: str = DEVICE) -> None:
        self.base, self.acknowledging = f"ef/v1/d/{device}", True
        self.got: list[tuple[str, bytes]] = []
        self.stored: dict[int, set[int]] = {}
        self._lock = threading.Lock()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fleet-server")
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        self.client.reconnect_delay_set(1, 1)
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def publish(self, leaf: str, payload: bytes, *, retain: bool = True) -> None:
        self.client.publish(f"{self.base}/{leaf}", payload, qos=1, retain=retain)

    def last(self, leaf: str) -> bytes | None:
        with self._lock:
            found = [payload for name, payload in self.got if name == leaf]
        return found[-1] if found else None

    def said(self, kind: type[M], leaf: str) -> M | None:
        """The last message of a leaf, decoded."""
        payload = self.last(leaf)
        return None if payload is None else decode(kind, payload)

    def presence(self) -> str:
        presence = self.said(Presence, "presence")
        return presence.state if presence else ""

    def telemetry(self, kind: str | None = None) -> list[Telemetry]:
        with self._lock:
            records = [decode(Telemetry, payload) for name, payload in self.got if name == "t"]
        return [record for record in records if kind is None or record.kind == kind]

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(f"{self.base}/{leaf}", 1) for leaf in ("t", "hb", "reported", "presence")])

    def _on_message(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        with self._lock:
            self.got.append((leaf, bytes(message.payload)))
        if leaf == "t" and self.acknowledging:
            record = decode(Telemetry, bytes(message.payload))
            mine = self.stored.setdefault(record.boot, set())
            mine.add(record.seq)
            upto = record.oldest_seq
            while upto + 1 in mine:
                upto += 1
            if upto in mine:
                client.publish(f"{self.base}/acked", encode(Acked(stored=[(record.boot, upto)])), qos=1, retain=True)
