from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.desired import DesiredPayload, open_desired, sign_desired
from edgefleet.errors import ArtifactError
from edgefleet.halt import MAX_PAYLOAD_BYTES, HaltPayload, judge_halt, open_halt, sign_halt
from edgefleet.messages import Desired, Halt
from edgefleet.signed import Acceptance
from edgefleet.signing import SigningKey


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "director.key")


def payload(counter: int = 5, **changes: Any) -> HaltPayload:
    values: dict[str, Any] = {
        "format_version": 1, "fleet": "home", "epoch": 1, "counter": counter, "issued_at": 1, "halted": True, "reason": "fire",
    }  # fmt: skip
    return HaltPayload(**(values | changes))


def test_a_signed_halt_opens_for_its_fleet(key: SigningKey) -> None:
    assert open_halt(sign_halt(payload(), key), key.public, "home") == payload()


def test_a_halt_of_another_key_is_refused(key: SigningKey, tmp_path: Path) -> None:
    stranger = SigningKey.load_or_create(tmp_path / "other.key")
    with pytest.raises(ArtifactError, match="fleet halt: not signed by the director key"):
        open_halt(sign_halt(payload(), stranger), key.public, "home")


def test_a_halt_that_was_turned_into_a_lift_is_refused(key: SigningKey) -> None:
    signed = sign_halt(payload(), key)
    changed = Halt(payload=signed.payload.replace(b'"halted":true', b'"halted":false'), signatures=signed.signatures)
    with pytest.raises(ArtifactError, match="not signed"):
        open_halt(changed, key.public, "home")


def test_a_halt_of_another_fleet_is_refused(key: SigningKey) -> None:
    with pytest.raises(ArtifactError, match="for away, not for home"):
        open_halt(sign_halt(payload(fleet="away"), key), key.public, "home")


def test_a_desired_state_is_no_halt_and_a_halt_no_desired_state_although_one_key_signs_both(key: SigningKey) -> None:
    wish = DesiredPayload(format_version=1, fleet="home", device="d-1", epoch=1, counter=9, issued_at=1, models={})
    desired, halt = sign_desired(wish, key), sign_halt(payload(), key)
    with pytest.raises(ArtifactError, match="malformed"):
        open_halt(Halt(payload=desired.payload, signatures=desired.signatures), key.public, "home")
    with pytest.raises(ArtifactError, match="malformed"):
        open_desired(Desired(payload=halt.payload, signatures=halt.signatures), key.public, "home", "d-1")


def test_an_unknown_version_an_unknown_field_and_too_many_bytes_are_refused(key: SigningKey) -> None:
    with pytest.raises(ArtifactError, match="format version 9 is unknown"):
        open_halt(sign_halt(payload(format_version=9), key), key.public, "home")
    for document, words in (
        (msgspec.to_builtins(payload()) | {"surprise": 1}, "surprise"),
        (msgspec.to_builtins(payload()) | {"reason": "x" * MAX_PAYLOAD_BYTES}, f"exceed the limit of {MAX_PAYLOAD_BYTES}"),
    ):
        content = msgspec.json.encode(document)
        with pytest.raises(ArtifactError, match=words):
            open_halt(Halt(payload=content, signatures=[(key.public.keyid, key.sign(content))]), key.public, "home")


@pytest.mark.parametrize(("stored", "expected"), [(4, Acceptance.NEW), (5, Acceptance.REPEATED), (6, Acceptance.STALE)])
def test_an_old_lift_does_not_lift_a_newer_halt(stored: int, expected: Acceptance) -> None:
    assert judge_halt(payload(halted=False), b"same", (1, stored, b"same")) is expected


def test_two_halts_with_one_counter_are_an_equivocation() -> None:
    with pytest.raises(ArtifactError, match="fleet halt: two different documents"):
        judge_halt(payload(), b"this", (1, 5, b"that"))
