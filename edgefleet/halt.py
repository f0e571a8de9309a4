"""The fleet halt: one signed, retained document that stops every rollout on every device until a newer one lifts it.

It is addressed to a fleet, not to a device, and travels on a topic that devices may only read. It outlives the server: the broker keeps
it, and each device keeps the newest that it has seen. A device that never saw one is not halted.
"""

from typing import Final, Literal

import msgspec

from edgefleet.errors import ArtifactError
from edgefleet.messages import Halt
from edgefleet.signed import Acceptance, judge_position, open_signed
from edgefleet.signing import PublicKey, SigningKey

MAX_PAYLOAD_BYTES: Final = 4_096
MAX_REASON_CHARS: Final = 500
_WHAT: Final = "fleet halt"


class HaltPayload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed document.

    Attributes:
        document: Says that it is no desired state, which the same key signs.
        counter: Grows with each document of a fleet, so that an old lift cannot be sent again.
        issued_at: Microseconds UTC.
        halted: True stops, False lifts.
        reason: Why, for the people at the device.
        ordered_by: Who, for the same.
    """

    document: Literal["fleet-halt"] = "fleet-halt"
    format_version: int
    fleet: str
    epoch: int
    counter: int
    issued_at: int
    halted: bool
    reason: str = ""
    ordered_by: str = ""


def sign_halt(payload: HaltPayload, key: SigningKey) -> Halt:
    """Serialise once and sign those bytes."""
    content = msgspec.json.encode(payload)
    return Halt(payload=content, signatures=[(key.public.keyid, key.sign(content))])


def open_halt(message: Halt, key: PublicKey, fleet: str) -> HaltPayload:
    """Verify the signature, then parse.

    Raises:
        ArtifactError: Not signed by the director key, too large, malformed, of another version, or for another fleet.
    """
    payload = open_signed(message, key, HaltPayload, _WHAT, MAX_PAYLOAD_BYTES)
    if payload.format_version != 1:
        raise ArtifactError(f"{_WHAT}: format version {payload.format_version} is unknown, this agent speaks 1; upgrade the agent")
    if payload.fleet != fleet:
        raise ArtifactError(f"{_WHAT} is for {payload.fleet[:64]}, not for {fleet}; nothing was changed")
    return payload


def judge_halt(payload: HaltPayload, content: bytes, stored: tuple[int, int, bytes] | None) -> Acceptance:
    """Compare a verified document with the one stored last as (epoch, counter, payload bytes).

    Raises:
        ArtifactError: Same counter, other bytes (equivocation).
    """
    return judge_position((payload.epoch, payload.counter), content, stored, _WHAT)
