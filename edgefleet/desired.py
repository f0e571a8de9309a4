"""Desired state of one device: a JSON document, signed by the director key, compared as bytes and never re-serialised.

A device obeys it only if the signature is by the director key it learned at enrolment, it is addressed to this fleet and device, and
(epoch, counter) is newer than what it stored - or equal with byte-identical payload (re-delivery). An equal counter with other bytes is
an equivocation and is refused.
"""

from typing import Final

import msgspec

from edgefleet.errors import ArtifactError
from edgefleet.messages import Desired
from edgefleet.signed import Acceptance, judge_position, open_signed
from edgefleet.signing import PublicKey, SigningKey

MAX_PAYLOAD_BYTES: Final = 65_536
_WHAT: Final = "desired state"

__all__ = [
    "Acceptance",
    "DesiredModel",
    "DesiredPayload",
    "PayloadOrder",
    "TrialPolicy",
    "judge_counter",
    "open_desired",
    "sign_desired",
]


class TrialPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a device tries a new bundle before it commits.

    Attributes:
        soak_s: Least seconds of trial.
        soak_rows: Least rows scored in the trial.
        timeout_s: The trial fails when it is not through by then.
        agreement_rows: Rows scored by both models before agreement is judged.
        min_agreement: Least share of those rows with the same class; None switches the comparison off (`agreement_reason` says why).
        agreement_reason: Why the comparison is off, for the operator.
        attempts: Tries per digest before it is quarantined here.
    """

    soak_s: float = 3600.0
    soak_rows: int = 200
    timeout_s: float = 7200.0
    agreement_rows: int = 50
    min_agreement: float | None = 0.9
    agreement_reason: str = ""
    attempts: int = 3


class DesiredModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one project on one device should run."""

    bundle_digest: str
    release: str
    release_counter: int
    rollout: str
    nonce: str
    trial: TrialPolicy


class PayloadOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's word that a device may send rows as they came in; the device's own configuration must allow it as well.

    Of both sides the lower rate, the lower limit and all redactions count.

    Attributes:
        rows_per_hour: Rows sent at most.
        redact: Names of inputs that never leave the device.
        bytes_per_day: Bytes of sampled rows at most.
        until: Microseconds UTC from which on the order is over, by the device's clock, so that it also ends where no server is heard;
            0 is no end.
    """

    rows_per_hour: float
    redact: list[str] = []
    bytes_per_day: int = 1_000_000
    until: int = 0


# Agents refuse fields that they do not know and may not ignore (unknown_fields.py), so a new field is left out where it says nothing: here
# by `omit_defaults`, in the parts by the default `msgspec.UNSET`, because an agent of another version may have other defaults.
class DesiredPayload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The signed document. `issued_at` is int64 microseconds UTC; `sampling` allows devices to send rows, None is the normal case.

    `lifted` names bundles that the device may try again though they failed there, each with the counter of the document that said so
    first: a device obeys each of them once. Naming a bundle there asks for nothing; what to run stands in `models` alone.
    `floors` is the least release counter that may be asked for, by project: a device keeps the highest that it was ever told. `may_ignore`
    names fields that an agent which does not know them may ignore; all others must be understood.
    """

    format_version: int
    fleet: str
    device: str
    epoch: int
    counter: int
    issued_at: int
    models: dict[str, DesiredModel]
    sampling: PayloadOrder | None = None
    lifted: dict[str, int] = {}
    floors: dict[str, int] = {}
    may_ignore: list[str] = []

    def sampling_at(self, at: int) -> PayloadOrder | None:
        """The order about rows that holds at `at`, microseconds UTC; None: nothing may leave."""
        order = self.sampling
        return None if order is None or 0 < order.until <= at else order


def sign_desired(payload: DesiredPayload, key: SigningKey) -> Desired:
    """Serialise once and sign those bytes."""
    content = msgspec.json.encode(payload)
    return Desired(payload=content, signatures=[(key.public.keyid, key.sign(content))])


def open_desired(message: Desired, key: PublicKey, fleet: str, device: str) -> DesiredPayload:
    """Verify the signature, then parse.

    Raises:
        ArtifactError: Not signed by the director key, too large, malformed, of another version, with a field that this agent does not know
            and may not ignore, or for somebody else.
    """
    payload = open_signed(message, key, DesiredPayload, _WHAT, MAX_PAYLOAD_BYTES)
    if payload.format_version != 1:
        raise ArtifactError(f"desired state: format version {payload.format_version} is unknown, this agent speaks 1; upgrade the agent")
    if (payload.fleet, payload.device) != (fleet, device):
        raise ArtifactError(f"desired state is for {payload.fleet}/{payload.device}, not for {fleet}/{device}; nothing was changed")
    return payload


def judge_counter(payload: DesiredPayload, content: bytes, stored: tuple[int, int, bytes] | None) -> Acceptance:
    """Compare a verified document with the one stored last as (epoch, counter, payload bytes).

    Raises:
        ArtifactError: Same counter, other bytes (equivocation).
    """
    return judge_position((payload.epoch, payload.counter), content, stored, _WHAT)
