"""Every decoder of the device against damaged, invented and hostile bytes: a value, or an error of ours; never another exception."""

import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.doors.stream import SensorFile, parse_line
from device_agent.health import HEALTH_NAME, Health, read_health
from device_agent.telemetry import drops
from device_agent.telemetry.open_window import SNAPSHOT_NAME, OpenWindow
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.journal import frame, read_frames
from edgefleet.desired import DesiredPayload, open_desired, sign_desired
from edgefleet.errors import EdgefleetError
from edgefleet.manifest import parse_manifest
from edgefleet.messages import Acked, Desired, ExplanationBody, Heartbeat, PayloadBody, Reported, Telemetry, WindowBody, decode, encode
from edgefleet.signing import SigningKey
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.agent_world import DEVICE, FLEET, Enrolled, make_bundle, rows, weights
from tests.unit.edgefleet.test_contract_messages import EXAMPLES

KINDS = [Telemetry, Acked, Reported, Heartbeat, WindowBody, ExplanationBody, PayloadBody, Desired]
FAST = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

# Edits of good bytes reach further than noise: (where, how many go, what comes).
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 6), st.binary(max_size=6)), max_size=5)
value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4),
    max_leaves=30,
)


def damaged(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, gone, come in changes:
        at = round(where * len(seed))
        seed = seed[:at] + come + seed[at + gone :]
    return seed


def survives(decoder: Callable[[bytes], Any], content: bytes) -> Any:
    """What the decoder gives, None for an error of ours; any other exception fails the test."""
    try:
        return decoder(content)
    except EdgefleetError:
        return None


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with Scorer.open(make_bundle(tmp_path_factory.mktemp("bundle"), weights(1))) as opened:
        yield opened


@pytest.fixture(scope="module")
def statistics(scorer: Scorer) -> bytes:
    scorer.score_batch(rows(30))
    window = scorer.take_window()
    assert window is not None
    return window.body.statistics


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@FAST
@given(seed=st.sampled_from(EXAMPLES), changes=edits, invented=st.lists(value, max_size=12))
def test_messages(kind: Any, seed: Any, changes: list[tuple[float, int, bytes]], invented: list[Any]) -> None:
    for content in (damaged(encode(seed), changes), msgspec.msgpack.encode(invented), msgspec.msgpack.encode([1, *invented])):
        found = survives(lambda given: decode(kind, given), content)
        if found is not None:
            again = encode(found)
            assert encode(decode(kind, again)) == again


@FAST
@given(changes=edits, invented=st.lists(value, max_size=12), counts=st.lists(st.integers(-5, 2**63), max_size=30))
def test_statistics(statistics: bytes, changes: list[tuple[float, int, bytes]], invented: list[Any], counts: list[int]) -> None:
    fields = msgspec.msgpack.decode(statistics)
    for i in (2, 3, 4, 5, 10, 11):
        altered = [*fields]
        if i < len(fields):
            altered[i] = counts if isinstance(fields[i], list) else sum(counts) % 2**64
        content = msgspec.msgpack.encode(altered)
        _check_statistics(survives(InputStatistics.from_bytes, content))
    _check_statistics(survives(InputStatistics.from_bytes, damaged(statistics, changes)))
    _check_statistics(survives(InputStatistics.from_bytes, msgspec.msgpack.encode(invented)))


def _check_statistics(found: InputStatistics | None) -> None:
    if found is not None:
        both = found.merge(found)
        assert both.rows == 2 * found.rows
        assert InputStatistics.from_bytes(found.to_bytes()).rows == found.rows


@FAST
@given(changes=edits, invented=value, field=st.integers(0, 40))
def test_manifests(scorer: Scorer, changes: list[tuple[float, int, bytes]], invented: Any, field: int) -> None:
    content = scorer.bundle.locate("manifest.json").read_bytes()
    survives(parse_manifest, damaged(content, changes))
    document = json.loads(content)
    document[sorted(document)[field % len(document)]] = invented
    survives(parse_manifest, json.dumps(document, default=str, skipkeys=True).encode())


HOSTILE = [
    b"[1e999, -1e999, NaN, Infinity, 0]",
    b"[" + b"1" * 400 + b", 0, 0, 0, 0]",
    b"[" + b"9" * 5000 + b"]",
    b"[" * 5000,
    b'{"f0":' * 3000,
    b'{"f0": 1, "f0": 2, "f1": null}',
    b"[[1, 2, 3, 4, 5]]",
    b'[true, "1", {}, [], null]',
    b'{"\\ud800": 1}',
    b'["\\ud800", 1, 2, 3, 4]',
    b"\xff\xfe[1]",
    b'{"f0": "' + b"x" * 70_000 + b'"}',
]


@FAST
@given(line=st.binary(max_size=60) | value.map(lambda v: json.dumps(v, default=str, skipkeys=True).encode()), changes=edits)
@example(line=b"[0, 0, 0, 0, 0]", changes=[])
def test_lines_of_rows_are_answered_or_refused_and_all_are_counted(
    scorer: Scorer, line: bytes, changes: list[tuple[float, int, bytes]]
) -> None:
    models = Answering()
    models.running = scorer
    lines = [line, damaged(b'{"f0": 1, "f1": 2.5, "f2": -3e2, "f3": 0, "f4": 1}', changes), *HOSTILE]
    parsed = [row for given in lines if (row := survives(parse_line, given)) is not None]
    for row in parsed:
        survives(models.score, row)
    scorer.take_window()

    assert models.rows + models.rejected + models.unanswered == len(parsed)
    assert models.unanswered == 0


@FAST
@given(pieces=st.lists(st.binary(max_size=40) | st.sampled_from([b"[1]\n", b"\n", b"[1", b"]\n", b"\r\n", b"\x00"]), max_size=30))
def test_a_sensors_file_gives_each_line_once_or_counts_it_whatever_the_pieces(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sensor"
        path.touch()
        sensor, got = SensorFile(path), 0
        for piece in pieces:
            with path.open("ab") as stream:
                stream.write(piece)
            got += len(sensor.poll())
        sensor.close()

    whole = b"".join(pieces).split(b"\n")[:-1]
    assert got + sensor.rejected_lines == sum(bool(line.strip()) for line in whole)


KEY = SigningKey.load_or_create(Path(tempfile.mkdtemp()) / "director.key")


def _opened(message: Desired, _: bytes) -> DesiredPayload:
    return open_desired(message, KEY.public, FLEET, DEVICE)


@FAST
@given(changes=edits, invented=value, field=st.integers(0, 9), unsigned=edits)
def test_desired_states(
    changes: list[tuple[float, int, bytes]], invented: Any, field: int, unsigned: list[tuple[float, int, bytes]]
) -> None:
    good = decode(Desired, Enrolled(Path(), KEY).desired("a" * 64))
    document = json.loads(good.payload)
    document[sorted(document)[field % len(document)]] = invented
    altered = json.dumps(document, default=str, skipkeys=True).encode()
    for payload in (damaged(good.payload, changes), altered):
        signed = Desired(payload=payload, signatures=[(KEY.public.keyid, KEY.sign(payload))])
        found = survives(partial(_opened, signed), b"")
        if found is not None:
            assert (found.fleet, found.device) == (FLEET, DEVICE)
            assert open_desired(sign_desired(found, KEY), KEY.public, FLEET, DEVICE) == found
    wire = damaged(encode(good), unsigned)
    message = survives(lambda given: decode(Desired, given), wire)
    if message is not None and message.payload != good.payload:
        assert survives(partial(_opened, message), b"") is None


@FAST
@given(noise=st.binary(max_size=200), invented=st.lists(value, max_size=9), changes=edits)
def test_files_that_the_agent_finds_at_its_start(noise: bytes, invented: list[Any], changes: list[tuple[float, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, disk = Path(name), Disk()
        first = Spool(folder / "spool", 1, 100_000, disk)
        for i in range(3):
            first.put("event", "tiny", "", i, i, b"body")
        segment = next((folder / "spool").glob("*.seg"))
        segment.write_bytes(damaged(segment.read_bytes(), changes) + frame(msgspec.msgpack.encode([1, *invented])) + noise)
        (folder / "spool" / drops.DROPPED_NAME).write_bytes(noise)
        (folder / SNAPSHOT_NAME).write_bytes(frame(msgspec.msgpack.encode([1, 7, 0, invented])))
        (folder / HEALTH_NAME).write_bytes(noise)

        spool = Spool(folder / "spool", 2, 100_000, disk)
        opened = OpenWindow(folder, 2, spool, disk)
        opened.recover(lambda _: None)
        for key, message in spool.to_send():
            assert decode(Telemetry, message).boot == key[0]
        spool.put("event", "tiny", "", 9, 9, b"after")
        survives(lambda _: read_health(folder), b"")
        assert (2, 1) in [key for key, _ in spool.to_send()]
        read_frames(noise)
        assert not (folder / SNAPSHOT_NAME).exists()


def test_a_health_file_of_an_older_agent_is_read() -> None:
    required = [field for field in msgspec.structs.fields(Health) if field.required]
    old = {field.name: {int: 1, float: 1.0, str: "", bool: False}.get(field.type, []) for field in required}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / HEALTH_NAME).write_bytes(msgspec.json.encode(old))

        health = read_health(Path(folder))

    assert (health.rows, health.rows_lost, health.clock_offset_ms, health.versions) == (1, 0, None, {})
