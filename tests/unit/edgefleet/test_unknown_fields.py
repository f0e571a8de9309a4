"""Documents of a newer server: what may be ignored is, what must be understood is refused by name, and nothing is left to guess."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgefleet.desired import DesiredModel, DesiredPayload, PayloadOrder, TrialPolicy, open_desired
from edgefleet.errors import ArtifactError
from edgefleet.halt import HaltPayload, open_halt
from edgefleet.messages import Desired, Halt
from edgefleet.signing import SigningKey
from edgefleet.unknown_fields import MAX_NAME_CHARS, MAX_NAMES, decode_signed, unknown_fields

MODEL = DesiredModel(bundle_digest="ab" * 32, release="1", release_counter=1, rollout="r-1", nonce="n", trial=TrialPolicy())
PLAIN = DesiredPayload(format_version=1, fleet="home", device="d-1", epoch=1, counter=5, issued_at=1, models={"digits": MODEL})
ORDERED = msgspec.structs.replace(PLAIN, sampling=PayloadOrder(rows_per_hour=1.0))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.load_or_create(Path(tmp_path_factory.mktemp("key")) / "director.key")


def newer(document: DesiredPayload, *paths: str, ignorable: list[Any] | None = None, value: Any = 1) -> bytes:
    """What a server sends that knows further fields."""
    raw = msgspec.json.decode(msgspec.json.encode(document))
    for path in paths:
        *steps, last = path.split(".")
        part = raw
        for name in steps:
            part = part["digits" if name == "*" else name]
        part[last] = value
    if ignorable is not None:
        raw["may_ignore"] = ignorable
    return msgspec.json.encode(raw)


def opened(content: bytes, key: SigningKey) -> DesiredPayload:
    return open_desired(Desired(payload=content, signatures=[(key.public.keyid, key.sign(content))]), key.public, "home", "d-1")


@pytest.mark.parametrize("path", ["mood", "models.*.mood", "models.*.trial.mood", "sampling.mood"])
@pytest.mark.parametrize("value", [1, None, {"soak_s": [1]}])
def test_a_field_that_may_be_ignored_is_ignored_wherever_it_stands(path: str, value: Any, key: SigningKey) -> None:
    content = newer(ORDERED, path, ignorable=["else", path], value=value)

    assert opened(content, key) == msgspec.structs.replace(ORDERED, may_ignore=["else", path])
    assert unknown_fields(content, DesiredPayload) == [path]


@pytest.mark.parametrize("ignorable", [None, [], ["mood"], ["trial.mood"], ["models"], ["models.*"], ["models.digits.trial.mood"]])
def test_a_field_that_must_be_understood_is_refused_with_its_name_and_the_remedy(ignorable: list[Any] | None, key: SigningKey) -> None:
    content = newer(PLAIN, "models.*.trial.mood", ignorable=ignorable)

    with pytest.raises(
        ArtifactError, match=r"desired state: this agent .* does not know models\.\*\.trial\.mood, which must be understood; update"
    ):
        opened(content, key)


def test_one_field_that_must_be_understood_is_enough_and_only_it_is_named(key: SigningKey) -> None:
    content = newer(PLAIN, "mood", "models.*.hush", "weather", ignorable=["mood", "weather"])

    with pytest.raises(ArtifactError, match=r"does not know models\.\*\.hush, which must be understood"):
        opened(content, key)


def test_a_known_field_is_obeyed_also_where_it_is_named_as_one_to_ignore(key: SigningKey) -> None:
    said = msgspec.structs.replace(PLAIN, lifted={"ab" * 32: 3}, may_ignore=["lifted", "models"])

    assert opened(msgspec.json.encode(said), key) == said
    content = newer(PLAIN, "models", "mood", ignorable=["models", "mood"])
    with pytest.raises(ArtifactError, match="malformed"):
        opened(content, key)


@pytest.mark.parametrize(
    "ignorable",
    ["mood", {"mood": 1}, [1], None, ["x"] * (MAX_NAMES + 1), ["x" * (MAX_NAME_CHARS + 1)]],
    ids=["text", "table", "number", "nothing", "too many", "too long"],
)
def test_a_list_that_is_none_or_too_long_lets_nothing_pass(ignorable: Any, key: SigningKey) -> None:
    raw = msgspec.json.decode(newer(PLAIN, "mood")) | {"may_ignore": ignorable}

    with pytest.raises(ArtifactError, match="malformed"):
        opened(msgspec.json.encode(raw), key)


def test_many_unknown_fields_are_named_in_a_message_that_stays_short(key: SigningKey) -> None:
    with pytest.raises(ArtifactError, match="and more, which must be understood") as refused:
        opened(newer(PLAIN, *(f"{i}" + "x" * 300 for i in range(40))), key)
    assert len(str(refused.value)) < 900


HALT = HaltPayload(format_version=1, fleet="home", epoch=1, counter=5, issued_at=1, halted=True)


def test_a_halt_follows_the_same_rule(key: SigningKey) -> None:
    def halt(**fields: Any) -> Halt:
        content = msgspec.json.encode(msgspec.to_builtins(HALT) | fields)
        return Halt(payload=content, signatures=[(key.public.keyid, key.sign(content))])

    assert open_halt(halt(mood=1, may_ignore=["mood"]), key.public, "home") == HALT
    with pytest.raises(ArtifactError, match=r"fleet halt: this agent .* does not know mood"):
        open_halt(halt(mood=1), key.public, "home")


def test_a_document_that_says_nothing_more_has_only_the_fields_that_the_first_agents_knew() -> None:
    """A new field belongs into a document only where it says something: an older agent refuses what it does not know."""
    raw = msgspec.json.decode(msgspec.json.encode(PLAIN))

    assert set(raw) == {"format_version", "fleet", "device", "epoch", "counter", "issued_at", "models"}
    assert set(raw["models"]["digits"]) == {"bundle_digest", "release", "release_counter", "rollout", "nonce", "trial"}
    assert set(raw["models"]["digits"]["trial"]) == {
        "soak_s", "soak_rows", "timeout_s", "agreement_rows", "min_agreement", "agreement_reason", "attempts",
    }  # fmt: skip
    assert set(msgspec.json.decode(msgspec.json.encode(ORDERED))["sampling"]) == {"rows_per_hour", "redact", "bytes_per_day", "until"}
    halt = msgspec.json.decode(msgspec.json.encode(HALT))
    assert set(halt) == {"document", "format_version", "fleet", "epoch", "counter", "issued_at", "halted", "reason", "ordered_by"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@example({"mood": 2**70, "counter": 2**70, "may_ignore": ["mood"]})
@example({"mood": "\ud800", "fleet": "\ud800", "may_ignore": ["mood"]})
@example({"mood": 1, "epoch": 1e400, "may_ignore": ["mood"]})
@given(st.dictionaries(st.sampled_from(["mood", "models", "sampling", "floors", "may_ignore", "lifted", "counter"]), _JSON))
def test_whatever_stands_in_a_document_it_opens_or_is_refused_as_an_artifact(changes: dict[str, Any]) -> None:
    content = json.dumps(msgspec.to_builtins(PLAIN) | changes).encode("utf-8", "surrogatepass")
    try:
        found = decode_signed(content, DesiredPayload, "desired state")
    except ArtifactError:
        return
    assert set(unknown_fields(content, DesiredPayload)) <= set(found.may_ignore)
