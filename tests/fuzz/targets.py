"""Every decoder of the device as a function of bytes: it answers, or raises an error of ours; whatever else it does is a fault.

Used by Hypothesis in the first stage and by a coverage-guided fuzzer in the second, which has an environment of its own: nothing here
needs more than a device has.
"""

import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from device_agent.config import load_identity
from device_agent.doors.answering import Answering
from device_agent.doors.batch.journal import read_journal
from device_agent.doors.batch.lines import BoundedLines
from device_agent.doors.batch.oip import LocalLines, OipSource
from device_agent.doors.batch.rows import Position
from device_agent.doors.batch.text import CsvSource, NdjsonSource, Reading, TextSource
from device_agent.doors.http.application import Application
from device_agent.doors.http.exchange import Refused, Request
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.wire import parse_head
from device_agent.doors.mqtt.connection import Arrival
from device_agent.doors.mqtt.door import MqttDoor
from device_agent.doors.mqtt.settings import MqttSettings
from device_agent.doors.stream import parse_line
from device_agent.explain import open_explainer
from device_agent.health import HEALTH_NAME, read_health
from device_agent.scorer import Scorer
from device_agent.telemetry import drops
from device_agent.telemetry.open_window import SNAPSHOT_NAME, OpenWindow
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.journal import Journal
from device_agent.update.store import Store
from edgefleet.desired import open_desired
from edgefleet.errors import EdgefleetError
from edgefleet.graphs import check_graph
from edgefleet.halt import open_halt
from edgefleet.manifest import parse_manifest
from edgefleet.messages import (
    Acked,
    AttestationBody,
    Desired,
    EventBody,
    ExplanationBody,
    Halt,
    Heartbeat,
    PayloadBody,
    Presence,
    Reported,
    Telemetry,
    WindowBody,
    decode,
    encode,
)
from edgefleet.reference import Reference
from edgefleet.signing import SigningKey
from edgefleet.statistics import InputStatistics

FLEET, DEVICE = "demo-fleet", "press-7"
MESSAGES: Final = (
    Telemetry, Acked, Reported, Heartbeat, WindowBody, ExplanationBody, PayloadBody, Desired, Presence, AttestationBody, EventBody,
    Halt,
)  # fmt: skip
METHODS: Final = ("linear", "treeshap", "amortised", "sampled")
CONTENT_TYPES: Final = (None, "application/json", "application/msgpack", "text/plain")
_ROWS_PER_CHUNK: Final = 16


class Device:
    """What the decoders stand in: an opened bundle with its doors, and a director's key."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.models = Answering()
        self.scorer = Scorer.open(bundle)
        self.models.install(self.scorer)
        self.http = Application(self.models, Limits(elements=200), local_only=False)
        settings = MqttSettings(DEVICE, "127.0.0.1", 1, False, None, "", "", "plant/rows", "plant/answers", 1)
        self.mqtt = MqttDoor(settings, self.models)  # never started: it has no broker, and counts its answers as unsent
        self.director = SigningKey.load_or_create(folder / "director.key")
        self.inputs = self.scorer.bundle.manifest.inputs
        self.names = tuple(column.name for column in self.inputs)

    def close(self) -> None:
        """Let go of everything."""
        self.mqtt.close()
        self.models.close()


def messages(_: Device, data: bytes) -> None:
    """The first byte chooses the message."""
    kind: Any = MESSAGES[data[0] % len(MESSAGES) if data else 0]
    again = encode(decode(kind, data[1:]))
    assert encode(decode(kind, again)) == again


def statistics(_: Device, data: bytes) -> None:
    found = InputStatistics.from_bytes(data)
    assert found.merge(found).rows == 2 * found.rows
    assert InputStatistics.from_bytes(found.to_bytes()).rows == found.rows


def desired(device: Device, data: bytes) -> None:
    """Signed, for a signature ends every other fuzzing."""
    director = device.director
    signed = Desired(payload=data, signatures=[(director.public.keyid, director.sign(data))])
    found = open_desired(signed, director.public, FLEET, DEVICE)
    assert (found.fleet, found.device) == (FLEET, DEVICE)


def halt(device: Device, data: bytes) -> None:
    """Signed, for a signature ends every other fuzzing."""
    director = device.director
    signed = Halt(payload=data, signatures=[(director.public.keyid, director.sign(data))])
    assert open_halt(signed, director.public, FLEET).fleet == FLEET


def manifest(_: Device, data: bytes) -> None:
    parse_manifest(data)


def http_infer(device: Device, data: bytes) -> None:
    """The first byte chooses packing, explainer and whether there is a binary tail; the next two are the length of the JSON."""
    flags, length, body = data[:1] or b"\0", int.from_bytes(data[1:3]), data[3:]
    headers = {"inference-header-content-length": str(length)} if flags[0] & 1 else {}
    headers |= {"content-encoding": "gzip" if flags[0] & 4 else "deflate"} if flags[0] & 2 else {}
    _post(device, f"/v2/models/tiny{'.explainer' if flags[0] & 8 else ''}/infer", body, headers)


def http_invocations(device: Device, data: bytes) -> None:
    _post(device, "/invocations", data, {"content-type": "application/json"})


def http_csv(device: Device, data: bytes) -> None:
    _post(device, "/invocations", data, {"content-type": "text/csv"})


def http_index(device: Device, data: bytes) -> None:
    _post(device, "/v2/repository/index", data, {})


def _post(device: Device, path: str, body: bytes, headers: dict[str, str]) -> None:
    response = device.http(Request("POST", path, headers, body))
    counts = device.http.counters.now()
    assert response.status in (200, 400, 404, 413, 415), (response.status, response.body)
    assert counts.offered == counts.scored + sum(counts.rejected.values()) + counts.shed


def http_head(_: Device, data: bytes) -> None:
    try:
        assert parse_head(data).length >= 0
    except Refused as err:
        assert 400 <= err.status < 600  # noqa: PT017  # the error is what is looked at


def mqtt_message(device: Device, data: bytes) -> None:
    """The first byte chooses the content type."""
    kind = CONTENT_TYPES[data[0] % len(CONTENT_TYPES) if data else 0]
    device.mqtt._handle(Arrival("plant/rows", data[1:], kind, None, None, 0, 1, False, 0, float("inf")))
    counts = device.mqtt.counts
    assert counts.offered == counts.scored + counts.shed + sum(counts.rejected.values())
    assert "internal" not in counts.rejected


def sensor_line(device: Device, data: bytes) -> None:
    device.models.score(parse_line(data))


def ndjson_lines(device: Device, data: bytes) -> None:
    _score_lines(device, data, NdjsonSource)


def csv_lines(device: Device, data: bytes) -> None:
    _score_lines(device, data, CsvSource)


def oip_lines(device: Device, data: bytes) -> None:
    source = OipSource(BytesIO(data), Reading(inputs=device.inputs), 1, len(data), Position())
    lines = LocalLines(device.scorer)
    for chunk in source.chunks():
        answer = lines.answer(chunk)
        assert answer.tally.offered == answer.tally.scored + answer.tally.refused


def _score_lines(device: Device, data: bytes, source: type[TextSource]) -> None:
    """Every line that is not blank is one row, in its place; those that are rows are scored."""
    text = source(BytesIO(data), Reading(inputs=device.inputs), _ROWS_PER_CHUNK, len(data), Position())
    found = 0
    for chunk in text.chunks():
        found += len(chunk.rows)
        device.models.score_batch([row for row in chunk.rows if not isinstance(row, Exception)])
    if source is NdjsonSource:
        lines, wanted = BoundedLines(BytesIO(data)), 0
        while (line := lines.take()) is not None:
            wanted += not isinstance(line.content, bytes) or bool(line.content.strip())
        assert found == wanted


def spool_segment(_: Device, data: bytes) -> None:
    """What an earlier start left: a segment, and the count of what was dropped (its last eight bytes)."""
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Disk()
        (folder / "000000000001.seg").write_bytes(data)
        (folder / drops.DROPPED_NAME).write_bytes(data[-8:])
        spool = Spool(folder, 2, 100_000, disk)
        for key, message in spool.to_send():
            assert decode(Telemetry, message).boot == key[0]
        spool.put("event", "tiny", "", 9, 9, b"after")
        assert (2, 1) in [key for key, _ in spool.to_send()]


def open_window(_: Device, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Disk()
        (folder / SNAPSHOT_NAME).write_bytes(data)
        OpenWindow(folder, 2, Spool(folder / "spool", 2, 100_000, disk), disk).recover(lambda _: None)
        assert not (folder / SNAPSHOT_NAME).exists()


def update_journal(_: Device, data: bytes) -> None:
    _from_file(data, lambda path: Journal(path, Disk()))


def slot(_: Device, data: bytes) -> None:
    def read(path: Path) -> None:
        folder = path.parent
        (folder / "slots").mkdir()
        path.rename(folder / "slots" / f"{'a' * 64}.json")
        (folder / "releases").write_bytes(data)
        (folder / "active").write_bytes(data)
        store = Store(folder, Disk())
        assert type(store.release_of("b" * 64)) in (int, type(None))
        assert len(store.pointer("active")) in (0, 64)
        store.slot("a" * 64)

    _from_file(data, read)


def identity(device: Device, data: bytes) -> None:
    def read(path: Path) -> None:
        path.rename(path.with_name("identity.json"))
        SigningKey.load_or_create(path.with_name("device.key"))
        load_identity(path.parent)

    _from_file(data, read)


def health_file(_: Device, data: bytes) -> None:
    def read(path: Path) -> None:
        path.rename(path.with_name(HEALTH_NAME))
        read_health(path.parent)

    _from_file(data, read)


def batch_journal(_: Device, data: bytes) -> None:
    _from_file(data, read_journal)


def _from_file(data: bytes, read: Callable[[Path], Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        path.write_bytes(data)
        read(path)


def reference(_: Device, data: bytes) -> None:
    Reference.from_bytes(data)


def explainer(device: Device, data: bytes) -> None:
    """The first byte chooses the method that the manifest says."""
    open_explainer(data[1:], METHODS[data[0] % len(METHODS) if data else 0], device.names, 3)


def onnx_graph(_: Device, data: bytes) -> None:
    check_graph(data, "onnxruntime", "graph")


def tflite_graph(_: Device, data: bytes) -> None:
    check_graph(data, "litert", "graph")


TARGETS: Final[dict[str, Callable[[Device, bytes], None]]] = {
    function.__name__: function
    for function in (
        messages, statistics, desired, manifest, http_infer, http_invocations, http_csv, http_index, http_head, mqtt_message, sensor_line,
        ndjson_lines, csv_lines, oip_lines, spool_segment, open_window, update_journal, slot, identity, health_file, batch_journal,
        reference, explainer, onnx_graph, tflite_graph, halt,
    )
}  # fmt: skip


def survives(device: Device, target: str, data: bytes) -> bool:
    """Whether the target took the data; False for an error of ours, any other exception is the caller's."""
    try:
        TARGETS[target](device, data)
    except EdgefleetError:
        return False
    return True
