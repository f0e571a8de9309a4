"""A fleet server over a real data folder with a clock that tests move, bundles that it accepts, and devices that obey the rules.

The device here is a simulator: it verifies desired states with the contract's own code, reports, attests with its key, and numbers its
telemetry as the real agent does. It keeps no model.
"""

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from flask import Flask
from flask.testing import FlaskClient
from numpy.typing import NDArray

from edgefleet.desired import DesiredModel, open_desired
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, Override, Tolerance, Variant, manifest_bytes
from edgefleet.messages import (
    AttestationBody,
    Desired,
    DeviceState,
    EventBody,
    ExplanationBody,
    Heartbeat,
    Presence,
    ProjectState,
    Reported,
    Telemetry,
    TelemetryKind,
    WindowBody,
    attestation_payload,
    decode,
    encode,
)
from edgefleet.package import npz_bytes
from edgefleet.reference import BINS, Reference, build_reference
from edgefleet.signing import PublicKey, SigningKey
from edgefleet.statistics import InputStatistics
from edgefleet.topics import device_topic
from fleet_server.app import create_app
from fleet_server.auth import Actor
from fleet_server.config import ServerConfig
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.services import Services
from fleet_server.store import Database
from fleet_server.store.database import FILE_NAME
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DESIRED

PROJECT = "digits"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OPERATOR = Actor("olga", "operator")
POLICY: dict[str, Any] = {
    "name": "test",
    "waves": [1, 3, "100%"],
    "soak_s": 3.0,
    "soak_rows": 20,
    "deadline_s": 60.0,
    "hold_s": 120.0,
    "max_explicit_failures_before_abort": 1,
    "trial": {"soak_s": 1.0, "soak_rows": 5, "timeout_s": 30.0, "min_agreement": 0.8, "drifted_devices": "skip"},
}


@dataclass
class Clock:
    """Time that stands until a test moves it."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class MadeBundle:
    """A bundle folder and what is in it."""

    folder: Path
    manifest: Manifest
    digest: str
    reference: Reference


def make_bundle(
    folder: Path,
    label: str = "one",
    *,
    features: int = 3,
    seed: int = 0,
    overrides: list[Override] | None = None,
    project: str = PROJECT,
    shape: Sequence[int] = (),
) -> MadeBundle:
    """A bundle that the server accepts: manifest, reference and gates are real, the graph is one that nobody runs."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [Input(name=f"f{i}") for i in range(features)]
    rows = np.random.default_rng(seed).normal(size=(800, features)).astype(np.float32)
    reference = build_reference(rows, inputs, block_rows=20, shape=shape)
    gates = [{"gate": "G1", "verdict": "pass", "value": 0.9, "limit": 0.8, "n": 100, "low": 0.8, "high": 1.0, "sentence": "Good."}]
    contents = {
        "onnx-fp32.onnx": _graph(label),
        "reference.npz": reference.to_bytes(),
        "golden.npz": npz_bytes({"x": rows[:2]}),
        "gates.json": msgspec.json.encode(gates),
    }
    files = {name: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for name, content in contents.items()}
    manifest = Manifest(
        format_version=1,
        project=project,
        task="classification",
        inputs=inputs,
        classes=["a", "b"],
        outputs=["margin", "probabilities"],
        margin_kind="log-odds",
        shape=list(shape) or [features],
        statistics=[] if reference.summaries is None else reference.summaries.names,
        window_rows=1,
        variants=[
            Variant(
                name="onnx-fp32",
                runtime="onnxruntime",
                file="onnx-fp32.onnx",
                model_digest=files["onnx-fp32.onnx"].sha256,
                tolerance=Tolerance(max_error=1e-3, tie_margin=1e-3),
                operators=["Identity"],
            )
        ],
        reference="reference.npz",
        reference_digest=files["reference.npz"].sha256,
        golden="golden.npz",
        package_digest="0" * 64,
        files=files,
        overrides=overrides or [],
        mlflow=MlflowNote(reason="a test"),
    )
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return MadeBundle(folder, manifest, sha256_hex(manifest_bytes(manifest)), reference)


def _graph(label: str) -> bytes:
    """An ONNX file of one operator; other labels give other bytes."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 2]) for name in ("inputs", "margin")]
    graph = helper.make_graph([helper.make_node("Identity", ["inputs"], ["margin"])], label, ends[:1], ends[1:])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


@functools.cache
def _new_database() -> bytes:
    """The database of a first start: its migrations run once per process of tests, and not once per test."""
    with tempfile.TemporaryDirectory() as folder:
        Database.open(Path(folder)).close()
        return (Path(folder) / FILE_NAME).read_bytes()


@dataclass
class World:
    """One server."""

    app: Flask
    services: Services
    clock: Clock
    devices: dict[str, "SimulatedDevice"] = field(default_factory=dict)

    @classmethod
    def open(cls, data_dir: Path, **settings: Any) -> "World":
        clock = Clock()
        if not (data_dir / FILE_NAME).exists():
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            (data_dir / FILE_NAME).write_bytes(_new_database())
        app = create_app(ServerConfig(data_dir=data_dir, **settings), clock=clock)
        return cls(app, app.extensions["edgefleet"], clock)

    def close(self) -> None:
        self.app.extensions["edgefleet-feed"].close()
        self.services.db.close()

    def client(self) -> FlaskClient:
        return self.app.test_client()

    def signed_in(self) -> FlaskClient:
        """A browser in which the admin signed in on the page."""
        client, here = self.client(), {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
        assert client.post("/login", data={"token": self.admin_token(), "next": "/"}, headers=here).status_code == 303
        return client

    def admin_token(self) -> str:
        return (self.services.config.data_dir / "admin.token").read_text().strip()

    def push(self, bundle: MadeBundle, version: str = "1") -> str:
        """Upload and push; the release id."""
        from fleet_server import usecases

        for name, entry in bundle.manifest.files.items():
            with (bundle.folder / name).open("rb") as stream:
                self.services.blobs.put(entry.sha256, stream, entry.size_bytes)
        content = (bundle.folder / "manifest.json").read_bytes()
        row = usecases.push_release(
            self.services, project=bundle.manifest.project, version=version, manifest=content, note="", actor=OPERATOR
        )
        return row.release_id

    def enroll(self, device_id: str, folder: Path, **labels: str) -> "SimulatedDevice":
        from fleet_server import usecases

        key = SigningKey.load_or_create(folder / f"{device_id}.key")
        enrolled = usecases.enroll_device(
            self.services, device_id=device_id, project=PROJECT, public_key=key.public.hex, labels=labels, actor=OPERATOR
        )
        device = SimulatedDevice(device_id, key, PublicKey(enrolled.director_key), enrolled.fleet)
        self.devices[device_id] = device
        return device

    def receive(self, *messages: Incoming) -> dict[str, Any]:
        return store_batch(self.services.db, list(messages), to_micros(self.clock()))

    def desired(self, device_id: str) -> DesiredModel | None:
        """What the device would obey: the stored message, verified with the contract's code."""
        import sqlalchemy as sa

        with self.services.db.read() as connection:
            content = connection.scalar(sa.select(DESIRED.c.message).where(DESIRED.c.device_id == device_id))
        return None if content is None else self.devices[device_id].obey(content)


@dataclass
class SimulatedDevice:
    """A device without a model."""

    device_id: str
    key: SigningKey
    director: PublicKey
    fleet: str
    boot: int = 7
    seq: int = 0
    running: str = ""
    model: str = ""
    counter: int = 0
    epoch: int = 1
    quarantined: list[str] = field(default_factory=list)
    wanted: DesiredModel | None = None

    def obey(self, content: bytes) -> DesiredModel | None:
        payload = open_desired(decode(Desired, content), self.director, self.fleet, self.device_id)
        assert payload.counter >= self.counter, "the counter of a device only grows"
        self.counter, self.epoch = payload.counter, payload.epoch
        self.wanted = payload.models.get(PROJECT)
        return self.wanted

    def message(self, leaf: str, payload: bytes, *, retained: bool = False) -> Incoming:
        return Incoming(device_topic(self.device_id, leaf), payload, retained, 1, 1, 1)

    def presence(self, state: str = "online", *, retained: bool = False) -> Incoming:
        return self.message("presence", encode(Presence(state=state, boot=self.boot)), retained=retained)  # type: ignore[arg-type]

    def heartbeat(self, at: int = 0) -> Incoming:
        return self.message("hb", encode(Heartbeat(boot=self.boot, at=at, running={PROJECT: self.running}, rows=5)))

    def reported(self, state: DeviceState, subject: str = "", reason: str = "", *, retained: bool = False, **changes: Any) -> Incoming:
        said = ProjectState(bundle_digest=self.running, model_digest=self.model, state=state, reason=reason, subject_digest=subject)
        report = Reported(
            epoch=self.epoch, counter=self.counter, projects={PROJECT: said}, quarantined=self.quarantined, runtimes=["onnxruntime"]
        )
        return self.message("reported", encode(msgspec.structs.replace(report, **changes)), retained=retained)

    def telemetry(
        self, kind: TelemetryKind, body: bytes, *, seq: int | None = None, oldest: int = 1, end_at: int = 2_000_000, project: str = PROJECT
    ) -> Incoming:
        if seq is None:
            self.seq += 1
        record = Telemetry(
            boot=self.boot,
            seq=self.seq if seq is None else seq,
            oldest_seq=oldest,
            kind=kind,
            project=project,
            model_digest=self.model,
            start_at=1_000_000,
            end_at=end_at,
            body=body,
        )
        return self.message("t", encode(record))

    def attestation(self, **changes: Any) -> Incoming:
        return self.telemetry("attestation", encode(self.attested(**changes)))

    def attested(self, **changes: Any) -> AttestationBody:
        assert self.wanted is not None
        values: dict[str, Any] = {
            "device": self.device_id,
            "epoch": self.epoch,
            "counter": self.counter,
            "bundle_digest": self.running,
            "model_digest": self.model,
            "nonce": self.wanted.nonce,
        } | changes
        body = AttestationBody(**values)
        return msgspec.structs.replace(body, signature=self.key.sign(attestation_payload(body)))

    def window(self, bundle: MadeBundle, rows: int = 30, *, x: NDArray[np.float32] | None = None, **changes: Any) -> Incoming:
        return self.telemetry("window", encode(window_body(bundle, rows, x=x)), **changes)

    def event(self, name: str = "note", detail: str = "x") -> Incoming:
        return self.telemetry("event", encode(EventBody(name=name, detail=detail)))

    def explanation(self, bundle: MadeBundle, label: str = "a") -> Incoming:
        contributions = [0.5] * len(bundle.manifest.inputs)
        body = ExplanationBody(
            bundle_digest=bundle.digest, label=label, score=0.9, margin=1.7, base=0.2, contributions=contributions, method="treeshap"
        )
        return self.telemetry("explanation", encode(body))

    def install(self, bundle: MadeBundle) -> list[Incoming]:
        """What a device says while it takes a bundle on without a fault."""
        began = self.reported("downloading", bundle.digest)
        self.running, self.model = bundle.digest, bundle.manifest.variants[0].model_digest
        return [began, self.reported("committed", bundle.digest), self.attestation()]

    def fail(self, bundle: MadeBundle, reason: str = "disagrees with the running model") -> list[Incoming]:
        """What a device says whose trial fails."""
        began = self.reported("trial", bundle.digest)
        self.quarantined.append(bundle.digest)
        return [began, self.reported("rolled-back", bundle.digest, reason)]


def window_body(bundle: MadeBundle, rows: int, *, x: NDArray[np.float32] | None = None) -> WindowBody:
    statistics = InputStatistics.empty(bundle.reference)
    values = np.zeros((rows, len(bundle.manifest.inputs)), np.float32) if x is None else x
    statistics.update(values, bundle.reference)
    return WindowBody(
        bundle_digest=bundle.digest,
        statistics=statistics.to_bytes(),
        answered=len(values),
        classes=[len(values), 0],
        scores=[len(values)] + [0] * (BINS - 1),
        latency_us=[0, 0, 0, len(values)],
    )
