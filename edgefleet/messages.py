"""Every message between device and server: msgpack arrays, version first, append only, bounded before they are decoded.

Encoding rules: element 0 is the version; new fields are appended with a default and never removed; times are int64 microseconds UTC;
a device's start is a random `boot` (63 bits, so that every database can hold it); sequences count from 1 per boot.
Truth is the server's database; retained messages are a cache that the server refills.
"""

from typing import Final, Literal, TypeVar

import msgspec

from edgefleet.errors import ArtifactError
from edgefleet.shadow_counts import ShadowCounts

MESSAGE_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 262_144
MAX_QUARANTINED: Final = 16

DeviceState = Literal["idle", "refused", "downloading", "verified", "self-test", "trial", "committed", "rolled-back", "quarantined"]
# A device sends `payload` only on a signed order of the operator, which only a server gives that knows the kind.
TelemetryKind = Literal["window", "attestation", "explanation", "event", "payload"]


class _Message(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    version: int = MESSAGE_VERSION


class Telemetry(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `t`: one spooled record; the device keeps it until `Acked` covers (boot, seq).

    `oldest_seq` is the oldest sequence of this boot that the device still holds: what is older was stored by the server or dropped
    (and counted) by the device, so it is no gap.
    """

    boot: int
    seq: int
    oldest_seq: int
    kind: TelemetryKind
    project: str
    model_digest: str
    start_at: int
    end_at: int
    body: bytes


class Acked(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `acked`: per boot the highest sequence s such that all of oldest_seq..s are stored or set aside; at most 4 boots.

    `at` is the server's clock when it wrote this, 0 from servers that do not tell it.
    """

    stored: list[tuple[int, int]]
    at: int = 0


class ProjectState(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What a device says about one project: the bundle it works on, the one it runs, and how the last update went."""

    bundle_digest: str
    model_digest: str
    state: DeviceState
    reason: str = ""
    attempt: int = 0
    # The bundle that the state speaks of; differs from bundle_digest (the running one) while an update is under way or has failed.
    subject_digest: str = ""


class Reported(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `reported` (retained): what runs here, echoing the (epoch, counter) of the desired state it answers.

    `halted` says that the device begins nothing because of a fleet halt, `halt_counter` which document about it is the newest that it
    accepted (0: none), `halts_refused` how many it refused since its start. `floors` are the release counters below which it takes nothing,
    by project.
    """

    epoch: int
    counter: int
    projects: dict[str, ProjectState]
    quarantined: list[str] = []
    runtimes: list[str] = []
    agent_version: str = ""
    floors: dict[str, int] = {}
    halted: bool = False
    halt_counter: int = 0
    halts_refused: int = 0


class Presence(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `presence` (retained, will): whether the device is connected."""

    state: Literal["online", "offline", "lost"]
    boot: int = 0


class DeviceLoad(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """What the device watches about itself; None where it cannot be known.

    `cpu_permille` is the processor time of the agent in thousandths of one core over the last seconds, `clock_offset_ms` how far the
    device's clock is behind the server's (negative: ahead), `clock_jumps` how often the device's clock was set since the agent's start.
    """

    cpu_permille: int
    rss_bytes: int
    disk_free_bytes: int | None = None
    temperature_c: float | None = None
    clock_offset_ms: int | None = None
    clock_jumps: int = 0


class Heartbeat(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `hb`: a sign of life with the running bundle and the load of the device; unsigned."""

    boot: int
    at: int
    running: dict[str, str]
    rows: int = 0
    spooled: int = 0
    dropped: int = 0
    rejected: int = 0
    load: DeviceLoad | None = None


class AttestationBody(_Message, array_like=True, frozen=True, kw_only=True):
    """Body of a `attestation` record: a device signs what it runs, so that PROMOTE rests on more than a claim on a topic.

    `signature` is Ed25519 by the device key over `attestation_payload` of the same values. `floors` as in `Reported`.
    """

    device: str
    epoch: int
    counter: int
    bundle_digest: str
    model_digest: str
    nonce: str
    signature: bytes = b""
    floors: dict[str, int] = {}


class AttributionSums(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Sums of the contributions of explained rows, in margin units for the predicted class, in the order of the manifest's inputs.

    Merging is addition. `skipped` counts rows that were due but not explained, because the budget for explanations was used up.
    """

    rows: int = 0
    total: list[float] = []
    absolute: list[float] = []
    skipped: int = 0


class WindowBody(_Message, array_like=True, frozen=True, kw_only=True):
    """Body of a `window` record: additive statistics of one time window, no payload.

    `statistics` is `InputStatistics.to_bytes`; classes and scores count answered rows only; `latency_us` are counts per power-of-two
    bucket of microseconds (element i counts latencies in [2^i, 2^(i+1))), and merge by addition; `latency_eighths` are the same latencies
    as `latency.to_wire` writes them, empty from devices that know only the former. `outliers` counts rows that the model was given and
    the outlier detector flagged, None where no detector runs. `attribution` holds the explained rows, None where none was due.
    `shadow` is how a model on trial compared meanwhile. `share_1024` is set while two models share the rows: this model's share in steps of
    1/1024; the other's window tells the rest.
    """

    bundle_digest: str
    statistics: bytes
    answered: int
    classes: list[int]
    scores: list[int]
    latency_us: list[int]
    rejected: dict[str, int] = {}
    score_sum: float = 0.0
    outliers: int | None = None
    latency_eighths: list[int] = []
    attribution: AttributionSums | None = None
    shadow: ShadowCounts | None = None
    share_1024: int | None = None


class ExplanationBody(_Message, array_like=True, frozen=True, kw_only=True):
    """Body of an `explanation` record; contributions are margin units for the predicted class, in the order of the manifest's inputs.

    `row` is empty unless the operator and the device's own configuration both allow payload to leave the device. `segments` [S][F] are the
    contributions of a window's time segments, the oldest first, cut as `edgefleet.players.segment_of_rows` does; empty without segments.
    """

    bundle_digest: str
    label: str
    score: float
    margin: float
    base: float
    contributions: list[float]
    method: str
    error: list[float] | None = None
    gap: float = 0.0
    row: list[float] = []
    segments: list[list[float]] = []


class PayloadBody(_Message, array_like=True, frozen=True, kw_only=True):
    """Body of a `payload` record: one row as it came in, by input name, without the inputs that are redacted.

    Sent only when the operator's signed desired state and the device's own configuration both allow it.
    """

    bundle_digest: str
    row: dict[str, float | str | None]
    label: str = ""
    score: float | None = None


class EventBody(_Message, array_like=True, frozen=True, kw_only=True):
    """Body of an `event` record: something an operator may want to read, for example an update step or a disk that is full."""

    name: str
    detail: str
    bundle_digest: str = ""


class Desired(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `desired` (retained): signed bytes that are never re-serialised. See `desired.py` for what they say."""

    payload: bytes
    signatures: list[tuple[str, bytes]]


class Halt(_Message, array_like=True, frozen=True, kw_only=True):
    """Topic `ef/v1/halt` (retained, of the whole fleet): signed bytes that are never re-serialised. See `halt.py` for what they say."""

    payload: bytes
    signatures: list[tuple[str, bytes]]


M = TypeVar("M", bound=_Message)


def encode(message: _Message) -> bytes:
    """Msgpack bytes of a message."""
    return msgspec.msgpack.encode(message)


class _VersionOnly(msgspec.Struct, array_like=True):
    version: int


def decode(kind: type[M], payload: bytes) -> M:
    """Decode a message of a known kind.

    Args:
        kind: The message type that the topic (or the record's kind) demands.
        payload: Bytes from the wire, at most MAX_MESSAGE_BYTES.

    Raises:
        ArtifactError: Too large, not of this version, or not of this shape. The message names value, limit and remedy.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ArtifactError(
            f"{kind.__name__}: {len(payload)} bytes exceed the limit of {MAX_MESSAGE_BYTES}; the sender must split or drop it"
        )
    try:
        version = msgspec.msgpack.decode(payload, type=_VersionOnly).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ArtifactError(f"{kind.__name__}: {len(payload)} bytes are no message of ours: {str(err)[:200]}") from err
    if version != MESSAGE_VERSION:
        raise ArtifactError(f"{kind.__name__}: version {version} is unknown, this side speaks {MESSAGE_VERSION}; upgrade the older side")
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise ArtifactError(f"{kind.__name__}: malformed: {str(err)[:200]}") from err


def attestation_payload(body: AttestationBody) -> bytes:
    """The bytes that a device signs: all fields but the signature; without floors those that devices sign which know none."""
    running = [body.device, body.epoch, body.counter, body.bundle_digest, body.model_digest, body.nonce]
    floors = [sorted(body.floors.items())] if body.floors else []
    return msgspec.msgpack.encode(["edgefleet-attestation", body.version, *running, *floors])
