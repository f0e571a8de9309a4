from pathlib import Path

import msgspec
import pytest

from edgefleet.desired import Acceptance, DesiredModel, DesiredPayload, TrialPolicy, judge_counter, open_desired, sign_desired
from edgefleet.errors import ArtifactError
from edgefleet.messages import Desired
from edgefleet.signing import SigningKey


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "director.key")


def payload(counter: int = 5, device: str = "d-1", version: int = 1) -> DesiredPayload:
    model = DesiredModel(bundle_digest="ab" * 32, release="1", release_counter=1, rollout="r-1", nonce="n", trial=TrialPolicy())
    return DesiredPayload(
        format_version=version, fleet="home", device=device, epoch=1, counter=counter, issued_at=1, models={"digits": model}
    )


def test_a_signed_document_opens_for_its_device(key: SigningKey) -> None:
    assert open_desired(sign_desired(payload(), key), key.public, "home", "d-1") == payload()


def test_a_document_of_another_key_is_refused(key: SigningKey, tmp_path: Path) -> None:
    stranger = SigningKey.load_or_create(tmp_path / "other.key")
    with pytest.raises(ArtifactError, match="not signed by the director key"):
        open_desired(sign_desired(payload(), stranger), key.public, "home", "d-1")


def test_one_changed_byte_is_refused(key: SigningKey) -> None:
    signed = sign_desired(payload(), key)
    changed = Desired(payload=signed.payload.replace(b'"counter":5', b'"counter":6'), signatures=signed.signatures)
    with pytest.raises(ArtifactError, match="not signed"):
        open_desired(changed, key.public, "home", "d-1")


def test_a_document_for_another_device_is_refused(key: SigningKey) -> None:
    with pytest.raises(ArtifactError, match="for home/d-2, not for home/d-1"):
        open_desired(sign_desired(payload(device="d-2"), key), key.public, "home", "d-1")


def test_an_unknown_format_version_is_refused(key: SigningKey) -> None:
    with pytest.raises(ArtifactError, match="format version 9 is unknown"):
        open_desired(sign_desired(payload(version=9), key), key.public, "home", "d-1")


def test_an_unknown_field_is_refused(key: SigningKey) -> None:
    content = msgspec.json.encode(msgspec.to_builtins(payload()) | {"surprise": 1})
    signed = Desired(payload=content, signatures=[(key.public.keyid, key.sign(content))])
    with pytest.raises(ArtifactError, match="surprise"):
        open_desired(signed, key.public, "home", "d-1")


@pytest.mark.parametrize(("stored", "expected"), [(4, Acceptance.NEW), (5, Acceptance.REPEATED), (6, Acceptance.STALE)])
def test_only_a_higher_counter_is_news(stored: int, expected: Acceptance) -> None:
    assert judge_counter(payload(), b"same", (1, stored, b"same")) is expected


def test_two_documents_with_one_counter_are_an_equivocation() -> None:
    with pytest.raises(ArtifactError, match="equivocation"):
        judge_counter(payload(), b"this", (1, 5, b"that"))


def test_a_key_file_is_readable_by_its_owner_only(key: SigningKey, tmp_path: Path) -> None:
    assert (tmp_path / "director.key").stat().st_mode & 0o777 == 0o600
    assert SigningKey.load_or_create(tmp_path / "director.key").public.keyid == key.public.keyid


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_text("zz")
    with pytest.raises(ArtifactError, match=r"bad\.key: not an Ed25519 private key"):
        SigningKey.load_or_create(tmp_path / "bad.key")
