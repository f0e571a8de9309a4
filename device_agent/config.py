"""The identity folder that `edgefleet enroll` wrote, and the settings of one agent.

The folder is the device's whole state: identity, key, journal, blobs, spool. Reading it is the only thing this module does.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from device_agent.doors.http.settings import HttpSettings
from device_agent.doors.mqtt.settings import MqttOptions
from device_agent.doors.shadow import BUDGET_FRACTION
from device_agent.telemetry.payload import PayloadSettings
from edgefleet.errors import ConfigError, EdgefleetError
from edgefleet.identifiers import check_id
from edgefleet.manifest import Runtime
from edgefleet.signing import PublicKey, SigningKey

IDENTITY_NAME: Final = "identity.json"
KEY_NAME: Final = "device.key"
IDENTITY_VERSION: Final = 1
MAX_IDENTITY_BYTES: Final = 65_536
_ENROLL = "run `edgefleet enroll` for this device again"


class _IdentityFile(msgspec.Struct, frozen=True, kw_only=True):
    format_version: int
    device_id: str
    fleet: str
    project: str
    director_key: str
    server_url: str
    token: str
    broker_url: str
    labels: dict[str, str] = {}
    mqtt_username: str = ""
    mqtt_password: str = ""


@dataclass(frozen=True)
class Identity:
    """Who this device is and whom it obeys.

    Attributes:
        device_id: Name of the device, also its MQTT client id.
        fleet: Fleet that desired states must name.
        project: The project whose model this device runs.
        labels: Labels given at enrolment.
        director_key: Key that signs desired states.
        server_url: Base URL of the fleet server, without a trailing slash.
        token: Bearer token for blobs.
        broker_host: Host of the broker.
        broker_port: Its port.
        mqtt_username: User for the broker, "" for none.
        mqtt_password: Its password.
        key: The device's own signing key.
    """

    device_id: str
    fleet: str
    project: str
    labels: dict[str, str]
    director_key: PublicKey
    server_url: str
    token: str
    broker_host: str
    broker_port: int
    mqtt_username: str
    mqtt_password: str
    key: SigningKey


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one agent process.

    Attributes:
        dir: Identity folder.
        runtimes: Only these runtimes may be used; None allows every installed one.
        model_memory_bytes: Variants that need more, by `device_agent.choose.memory_needed`, are passed over; None: no limit.
        window_s: A statistics window closes after this many seconds,
        window_rows: or after this many rows, whichever comes first.
        heartbeat_s: Seconds between two heartbeats.
        sensor: NDJSON file to follow, or None.
        sensor_from_start: Score the lines that are already in the file as well.
        explain_every: Every k-th row is explained and summed, and one at the start; 0 switches it off.
        explain_cpu_fraction: Share of one core that explanations may take; rows that were due beyond it are counted as skipped.
        payload: What this device allows to be sent of its rows, None nothing; the operator must allow it as well.
        spool_limit_bytes: Telemetry kept on disk; when it is full the oldest is dropped and counted.
        keep_s: Seconds between two snapshots of the open window on the disk: the rows that kill -9 or a power cut may cost.
        send_records_per_s: Records sent per second at most, in the long run.
        send_bytes_per_s: Bytes sent per second at most, in the long run.
        mirror: Base URL to fetch blobs from instead of the server; content is checked by hash, whoever serves it.
        attest_s: Seconds between two attestations of the same model.
        selftest_timeout_s: The self-test's child process is ended after this.
        selftest_memory_bytes: Address space of that child.
        mqtt: The MQTT door, or None.
        trial_cpu_fraction: Share of one core that a candidate on trial may take beside the running model.
        http: The HTTP door, or None.
    """

    dir: Path
    runtimes: tuple[Runtime, ...] | None = None
    model_memory_bytes: int | None = None
    window_s: float = 3600.0
    window_rows: int = 500
    heartbeat_s: float = 300.0
    sensor: Path | None = None
    sensor_from_start: bool = False
    explain_every: int = 0
    explain_cpu_fraction: float = 0.05
    payload: PayloadSettings | None = None
    spool_limit_bytes: int = 16 * 1024 * 1024
    keep_s: float = 30.0
    send_records_per_s: float = 50.0
    send_bytes_per_s: float = 65_536.0
    mirror: str | None = None
    attest_s: float = 86_400.0
    selftest_timeout_s: float = 120.0
    selftest_memory_bytes: int = 8 * 1024**3
    mqtt: MqttOptions | None = None
    trial_cpu_fraction: float = BUDGET_FRACTION
    http: HttpSettings | None = None

    def __post_init__(self) -> None:
        for name in ("window_s", "heartbeat_s", "keep_s", "send_records_per_s", "send_bytes_per_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} {getattr(self, name)} is out of range, expected a number above 0")
        if self.model_memory_bytes is not None and self.model_memory_bytes < 1:
            raise ConfigError(f"model_memory_bytes {self.model_memory_bytes} is out of range, expected at least 1, or None for no limit")
        if not 0 < self.explain_cpu_fraction <= 1:
            raise ConfigError(f"explain_cpu_fraction {self.explain_cpu_fraction} is out of range, expected above 0 and at most 1")

    @property
    def reconnect_spread_s(self) -> float:
        """Upper bound of the random wait before the first reconnect: who may report every few seconds may also return in that time."""
        return min(30.0, self.heartbeat_s)


def load_identity(folder: Path) -> Identity:
    """Read and check identity.json and device.key.

    Raises:
        ConfigError: Missing, unreadable, of another version, or a value is not what it must be; the remedy is a new enrolment.
    """
    path = folder / IDENTITY_NAME
    raw = _read_json(path)
    if (version := raw.get("format_version")) != IDENTITY_VERSION:
        raise ConfigError(f"{path}: format version {version!r} is unknown, this agent reads {IDENTITY_VERSION}; {_ENROLL}")
    try:
        file = msgspec.convert(raw, _IdentityFile)
        host, port = _broker(file.broker_url)
        return Identity(
            device_id=check_id(file.device_id, "device id"),
            fleet=check_id(file.fleet, "fleet"),
            project=check_id(file.project, "project"),
            labels=file.labels,
            director_key=PublicKey(file.director_key),
            server_url=_http(file.server_url),
            token=file.token,
            broker_host=host,
            broker_port=port,
            mqtt_username=file.mqtt_username,
            mqtt_password=file.mqtt_password,
            key=_key(folder / KEY_NAME),
        )
    except (msgspec.ValidationError, EdgefleetError) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"{path}: {str(err)[:200]}; {_ENROLL}") from err


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_IDENTITY_BYTES + 1)
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}; {_ENROLL}") from err
    if len(content) > MAX_IDENTITY_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_IDENTITY_BYTES} bytes; {_ENROLL}")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as err:
        raise ConfigError(f"{path}: not JSON: {str(err)[:120]}; {_ENROLL}") from err
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object; {_ENROLL}")
    return value


def _key(path: Path) -> SigningKey:
    # load_or_create would make a key that the server does not know: attestations would never verify.
    if not path.is_file():
        raise ConfigError(f"{path}: missing; {_ENROLL}")
    try:
        return SigningKey.load_or_create(path)
    except OSError as err:
        raise ConfigError(f"{path}: {err.strerror}; {_ENROLL}") from err


def _broker(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError as err:
        raise ConfigError(f"broker_url {url[:120]!r}: {err}; {_ENROLL}") from err
    if parts.scheme != "mqtt" or not host:
        raise ConfigError(f"broker_url {url[:120]!r} is not mqtt://host:port; {_ENROLL}")
    return host, port


def _http(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"server_url {url[:120]!r} is not http:// or https://; {_ENROLL}")
    return url.rstrip("/")
