"""Good bytes for every target: damage to what is right reaches further than noise."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from device_agent.doors.batch.journal import Journal as BatchJournal
from device_agent.health import Health
from device_agent.scorer import Scorer
from device_agent.telemetry.open_window import SNAPSHOT_NAME, OpenWindow
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.journal import Journal
from edgefleet.bundle import Bundle
from edgefleet.desired import open_desired
from edgefleet.halt import HaltPayload
from edgefleet.messages import Desired, decode, encode
from edgefleet.package import npz_bytes
from edgefleet.signing import SigningKey
from tests.fuzz.targets import MESSAGES, METHODS, TARGETS
from tests.unit.device_agent.agent_world import DEVICE, FLEET, Enrolled, enroll, rows, weights
from tests.unit.device_agent.bundles import forest, forest_arrays
from tests.unit.edgefleet.test_contract_messages import EXAMPLES

ROW = [0.5, 1.0, -1.0, 0.0, 2.0]
NAMED = {f"f{i}": value for i, value in enumerate(ROW)}
TENSOR = {"name": "inputs", "datatype": "FP32", "shape": [1, 5], "data": ROW}


def seeds(bundle: Bundle, folder: Path, tflite: bytes) -> dict[str, list[bytes]]:
    """By target; each at least one that its target takes.

    Args:
        bundle: What `Device` opens.
        folder: For files that are made on the way.
        tflite: A graph of LiteRT.
    """
    infer = json.dumps({"id": "a", "inputs": [TENSOR], "outputs": [{"name": "label"}]}).encode()
    head = json.dumps({"inputs": [{**TENSOR, "data": None, "parameters": {"binary_data_size": 20}}]}).encode()
    binary = b"\1" + len(head).to_bytes(2) + head + np.array(ROW, "<f4").tobytes()
    csv = b'f0,f1,f2,f3,f4\n1,2,3,4,5\n"1",2,,4,5\n'
    found = {
        "messages": [bytes([MESSAGES.index(type(one))]) + encode(one) for one in EXAMPLES],
        "desired": [plain := _desired(folder), plain[:-1] + b',"mood":{"a":[1]},"may_ignore":["mood"]}'],
        "halt": [_halt(True), _halt(False)],
        "manifest": [bundle.locate("manifest.json").read_bytes()],
        "http_infer": [b"\0\0\0" + infer, binary, b"\x08\0\0" + infer],
        "http_invocations": [
            json.dumps({"dataframe_split": {"columns": list(NAMED), "data": [ROW]}}).encode(),
            json.dumps({"dataframe_records": [NAMED]}).encode(),
            json.dumps({"inputs": {name: [value] for name, value in NAMED.items()}}).encode(),
        ],
        "http_csv": [csv],
        "http_index": [b'{"ready": true}'],
        "http_head": [b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"],
        "mqtt_message": [
            b"\1" + json.dumps({"rows": [ROW, NAMED], "id": 7, "key": "k", "probabilities": True}).encode(),
            b"\2" + msgspec.msgpack.encode({"row": ROW, "explain": True}),
            b"\0" + json.dumps(ROW).encode(),
        ],
        "sensor_line": [json.dumps(ROW).encode(), json.dumps(NAMED).encode()],
        "ndjson_lines": [(json.dumps(ROW) + "\n" + json.dumps(NAMED) + "\n").encode()],
        "csv_lines": [csv],
        "oip_lines": [infer + b"\n" + infer],
        "reference": [bundle.read("reference.npz")],
        "explainer": _explainers(bundle),
        "onnx_graph": [bundle.read("onnx-fp32.onnx")],
        "tflite_graph": [tflite],
        "identity": [(enroll(folder / "enrolled").folder / "identity.json").read_bytes()],
        "health_file": [msgspec.json.encode(_health())],
        "batch_journal": [
            msgspec.json.encode(BatchJournal(input_name="in.csv", input_size_bytes=3, input_sha256="a" * 64, options={"bundle": "b"}))
        ],
        "slot": [json.dumps({"format_version": 1, "bundle_digest": "a" * 64, "variant": "onnx-fp32", "files": {"a": "b" * 64}}).encode()],
    }
    return found | _telemetry(bundle, folder) | {"update_journal": [_update_journal(folder)]}


def write_corpus(found: dict[str, list[bytes]], folder: Path) -> None:
    """As the fuzzer reads it: the first byte is the target's number."""
    folder.mkdir()
    for number, target in enumerate(TARGETS):
        for i, content in enumerate(found[target]):
            (folder / f"{target}-{i}").write_bytes(bytes([number]) + content)


def _halt(halted: bool) -> bytes:
    return msgspec.json.encode(
        HaltPayload(format_version=1, fleet=FLEET, epoch=1, counter=7, issued_at=5, halted=halted, reason="fire", ordered_by="olga")
    )


def _desired(folder: Path) -> bytes:
    key = SigningKey.load_or_create(folder / "another.key")
    message = decode(Desired, Enrolled(folder, key).desired("a" * 64))
    open_desired(message, key.public, FLEET, DEVICE)
    return message.payload


def _explainers(bundle: Bundle) -> list[bytes]:
    linear: dict[str, Any] = {"method": np.array("linear"), "weight": weights(1), "mean": np.zeros(5), "base": np.zeros(3)}
    trees = npz_bytes(forest_arrays(forest()[0]))
    sampled = bundle.read("explain-onnx-fp32.npz")
    made = {"linear": npz_bytes(linear), "treeshap": trees, "sampled": sampled}
    return [bytes([METHODS.index(method)]) + content for method, content in made.items()]


def _health() -> Health:
    required = [field for field in msgspec.structs.fields(Health) if field.required]
    return msgspec.convert({field.name: {int: 1, float: 1.0, str: "", bool: False}.get(field.type, []) for field in required}, Health)


def _telemetry(bundle: Bundle, folder: Path) -> dict[str, list[bytes]]:
    disk = Disk()
    spool = Spool(folder / "spool", 1, 100_000, disk)
    for i in range(3):
        spool.put("event", "tiny", "", i, i, b"body")
    segment = next((folder / "spool").glob("*.seg")).read_bytes()
    with Scorer.open(bundle) as scorer:
        scorer.score_batch(rows(30))
        window = scorer.take_window()
    assert window is not None
    opened = OpenWindow(folder, 1, spool, disk)
    opened.add([window])
    opened.keep()
    return {
        "spool_segment": [segment],
        "statistics": [window.body.statistics],
        "open_window": [(folder / SNAPSHOT_NAME).read_bytes()],
    }


def _update_journal(folder: Path) -> bytes:
    journal = Journal(folder / "journal", Disk())
    journal.append({"event": "FETCHED", "progress": {"state": "verified", "subject": "a" * 64}})
    return (folder / "journal").read_bytes()
