from typing import Any

import msgspec
import pytest

from edgefleet.errors import ArtifactError
from edgefleet.messages import (
    MAX_MESSAGE_BYTES,
    Acked,
    AttestationBody,
    AttributionSums,
    Desired,
    DeviceLoad,
    EventBody,
    ExplanationBody,
    Halt,
    Heartbeat,
    PayloadBody,
    Presence,
    ProjectState,
    Reported,
    Telemetry,
    WindowBody,
    attestation_payload,
    decode,
    encode,
)
from edgefleet.shadow_counts import ShadowCounts

DIGEST = "ab" * 32
EXAMPLES: list[Any] = [
    Telemetry(boot=7, seq=3, oldest_seq=1, kind="window", project="digits", model_digest=DIGEST, start_at=1, end_at=2, body=b"x"),
    Acked(stored=[(7, 3), (9, 1)], at=5),
    Reported(
        epoch=1,
        counter=4,
        projects={"digits": ProjectState(bundle_digest=DIGEST, model_digest=DIGEST, state="committed", attempt=1)},
        quarantined=[DIGEST],
        runtimes=["litert"],
    ),
    Presence(state="online", boot=7),
    Heartbeat(boot=7, at=5, running={"digits": DIGEST}, rows=10),
    Heartbeat(boot=7, at=5, running={}, load=DeviceLoad(cpu_permille=12, rss_bytes=90_000_000, temperature_c=41.5, clock_offset_ms=-7)),
    AttestationBody(device="d-1", epoch=1, counter=2, bundle_digest=DIGEST, model_digest=DIGEST, nonce="n", signature=b"s"),
    WindowBody(bundle_digest=DIGEST, statistics=b"", answered=3, classes=[1, 2], scores=[0] * 10, latency_us=[0, 3]),
    WindowBody(
        bundle_digest=DIGEST,
        statistics=b"",
        answered=1,
        classes=[1],
        scores=[],
        latency_us=[],
        shadow=ShadowCounts(running=DIGEST, shadow="cd" * 32, offered=2, compared=1, agreed=1, shed=1, confusion=[(0, 0, 1)]),
        share_1024=768,
        latency_eighths=[8, 3],
        attribution=AttributionSums(rows=1, total=[0.5, -0.5], absolute=[0.5, 0.5], skipped=2),
    ),
    ExplanationBody(
        bundle_digest=DIGEST, label="3", score=0.5, margin=1.0, base=0.25, contributions=[0.5, 0.25], method="treeshap", error=[0.0, 0.0]
    ),
    PayloadBody(bundle_digest=DIGEST, row={"a": 1.5, "b": None, "c": "red"}, label="ok", score=0.5),
    EventBody(name="disk-full", detail="blobs: no space"),
    Desired(payload=b"{}", signatures=[("k", b"s")]),
    Halt(payload=b"{}", signatures=[("k", b"s")]),
]
IDS = [type(example).__name__ for example in EXAMPLES]

# First bytes of each message as they are on the wire: a change here breaks every device in the field.
GOLDEN = {
    "Presence": "9301a66f6e6c696e6507",
    "Acked": "9301929207039209" + "0105",
    "EventBody": "9401a96469736b2d66756c6caf626c6f62733a206e6f207370616365a0",
}


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_a_message_survives_the_wire(message: Any) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_every_truncation_is_refused_and_never_half_read(message: Any) -> None:
    content = encode(message)
    for length in range(len(content)):
        with pytest.raises(ArtifactError):
            decode(type(message), content[:length])


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_another_version_is_refused_by_name(message: Any) -> None:
    fields = msgspec.msgpack.decode(encode(message))
    fields[0] = 2
    with pytest.raises(ArtifactError, match="version 2 is unknown, this side speaks 1"):
        decode(type(message), msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_fields_appended_by_a_later_writer_are_ignored(message: Any) -> None:
    fields = msgspec.msgpack.decode(encode(message))
    assert decode(type(message), msgspec.msgpack.encode([*fields, "later"])) == message


def test_a_message_of_ten_megabytes_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(ArtifactError, match=f"10000000 bytes exceed the limit of {MAX_MESSAGE_BYTES}"):
        decode(Telemetry, bytes(10_000_000))


def test_text_that_is_no_utf_8_is_refused_as_any_other_damage() -> None:
    good = encode(EventBody(name="disk-full", detail="x"))
    with pytest.raises(ArtifactError, match="malformed"):
        decode(EventBody, good.replace(b"disk", b"\x80isk"))


def test_hostile_nesting_is_refused() -> None:
    with pytest.raises(ArtifactError):
        decode(Reported, b"\x91" * 100_000)


@pytest.mark.parametrize("name", GOLDEN)
def test_bytes_on_the_wire_stay_as_they_are(name: str) -> None:
    message = EXAMPLES[IDS.index(name)]
    assert encode(message).hex() == GOLDEN[name]


OLDER = {
    # As the first release of a device or server wrote them, before fields were appended.
    Acked: ("92019292070392" + "0901", Acked(stored=[(7, 3), (9, 1)])),
    Heartbeat: ("98010705" + "80" + "0a000000", Heartbeat(boot=7, at=5, running={}, rows=10)),
}


@pytest.mark.parametrize("kind", OLDER, ids=lambda kind: kind.__name__)
def test_messages_of_an_older_writer_are_read_with_defaults(kind: Any) -> None:
    content, message = OLDER[kind]
    assert decode(kind, bytes.fromhex(content)) == message


def test_an_attestation_signs_everything_but_its_signature() -> None:
    body = EXAMPLES[IDS.index("AttestationBody")]
    payload = attestation_payload(body)
    assert payload == attestation_payload(msgspec.structs.replace(body, signature=b"other"))
    for field, value in {"device": "d-2", "epoch": 9, "counter": 9, "bundle_digest": "x", "model_digest": "x", "nonce": "x"}.items():
        assert payload != attestation_payload(msgspec.structs.replace(body, **{field: value}))


def test_an_attestation_signs_its_floors_and_without_them_what_devices_sign_that_know_none() -> None:
    body = msgspec.structs.replace(EXAMPLES[IDS.index("AttestationBody")], floors={})
    known = ["edgefleet-attestation", 1, body.device, body.epoch, body.counter, body.bundle_digest, body.model_digest, body.nonce]
    assert attestation_payload(body) == msgspec.msgpack.encode(known)
    kept = [attestation_payload(msgspec.structs.replace(body, floors=floors)) for floors in ({}, {"p": 1}, {"p": 2}, {"q": 1})]
    assert len(set(kept)) == 4
