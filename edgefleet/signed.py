"""Documents that the director signs: verified as bytes, then parsed; their order is (epoch, counter) and never goes back."""

from enum import Enum
from typing import Final, Protocol, TypeVar

import msgspec

from edgefleet.errors import ArtifactError
from edgefleet.signing import PublicKey
from edgefleet.unknown_fields import decode_signed

MAX_SIGNATURES: Final = 8

T = TypeVar("T", bound=msgspec.Struct)


class Envelope(Protocol):
    """A message that carries signed bytes."""

    @property
    def payload(self) -> bytes:
        """The document as it was signed."""

    @property
    def signatures(self) -> list[tuple[str, bytes]]:
        """(key id, signature)."""


class Acceptance(Enum):
    """What a verified document means to a device that stored (epoch, counter, payload)."""

    NEW = "new"
    REPEATED = "repeated"
    STALE = "stale"


def open_signed(message: Envelope, key: PublicKey, kind: type[T], what: str, limit_bytes: int) -> T:
    """Verify the signature, then parse.

    Args:
        message: As it came.
        key: Of the director.
        kind: What the document must be.
        what: Its name in messages, for example "desired state".
        limit_bytes: Longest document that is looked at.

    Raises:
        ArtifactError: Too large, not signed by this key, malformed, or with a field that is not known here and must be.
    """
    if len(message.payload) > limit_bytes:
        raise ArtifactError(f"{what}: {len(message.payload)} bytes exceed the limit of {limit_bytes}")
    if not any(keyid == key.keyid and key.verifies(signature, message.payload) for keyid, signature in message.signatures[:MAX_SIGNATURES]):
        raise ArtifactError(f"{what}: not signed by the director key {key.keyid[:12]}; nothing was changed")
    return decode_signed(message.payload, kind, what)


def judge_position(position: tuple[int, int], content: bytes, stored: tuple[int, int, bytes] | None, what: str) -> Acceptance:
    """Compare a verified document's (epoch, counter) and bytes with what was stored last.

    Raises:
        ArtifactError: Same counter, other bytes (equivocation).
    """
    if stored is None or position > stored[:2]:
        return Acceptance.NEW
    epoch, counter, known = stored
    if position < (epoch, counter):
        return Acceptance.STALE
    if content != known:
        raise ArtifactError(f"{what}: two different documents share counter {counter} of epoch {epoch} (equivocation); the first one stays")
    return Acceptance.REPEATED
