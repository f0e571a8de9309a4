"""What an operator can set, checked when it is set and not when it is needed."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from edgefleet.errors import ConfigError
from edgefleet.identifiers import check_id
from edgefleet.registry import check_url
from fleet_server.drift import DriftPolicy

MAX_VIEWERS: Final = 32
WORKER_THREADS: Final = 16


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Settings of one fleet server.

    Attributes:
        data_dir: Folder of the database, the blobs and the keys; belongs to the server alone.
        host: Address to listen on. Beyond loopback only behind a TLS proxy, see `behind_tls_proxy`.
        port: TCP port, 0 = a free one.
        public_url: Address that devices use, None = the one listened on.
        behind_tls_proxy: The operator's word that a proxy in front speaks TLS; without it only loopback is served.
        fleet: Name of the fleet; signed into every desired state.
        broker_url: mqtt://HOST:PORT, None = no ingest and no publishing (API and page only).
        public_broker_url: What devices get at enrolment, None = broker_url.
        broker_username: User of the server at the broker, None = anonymous.
        broker_password_file: File whose first line is that user's password.
        mosquitto_password_file: Password file that enrolment appends to, None = devices connect without password.
        mosquitto_pid_file: File with the broker's process id; it gets SIGHUP after each change of the password file.
        anonymous_role: What a visitor without a token may do; only on loopback.
        drift_round_s: Seconds between drift rounds.
        drift_policy: Limits of the drift rule.
        scheduler_poll_s: Seconds between looks for due rollouts.
        refresh_s: Seconds in which every desired state is published again, slowly.
        max_blob_bytes: Largest file of a bundle.
        telemetry_days: Days that raw telemetry is kept.
        mlflow_url: MLflow server where what is in service is registered, None = nowhere. Its password belongs into the environment.
        mlflow_prefix: Before the project's id in the name there: two fleets that share a server must not move each other's alias.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str | None = None
    behind_tls_proxy: bool = False
    fleet: str = "fleet"
    broker_url: str | None = None
    public_broker_url: str | None = None
    broker_username: str | None = None
    broker_password_file: Path | None = None
    mosquitto_password_file: Path | None = None
    mosquitto_pid_file: Path | None = None
    anonymous_role: Literal["viewer"] | None = None
    drift_round_s: float = 3600.0
    drift_policy: DriftPolicy = field(default_factory=DriftPolicy)
    scheduler_poll_s: float = 1.0
    refresh_s: float = 3600.0
    max_blob_bytes: int = 512 * 1024 * 1024
    telemetry_days: float = 7.0
    mlflow_url: str | None = None
    mlflow_prefix: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be unsafe or cannot work."""
        check_id(self.fleet, "fleet")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} is not a TCP port: 0 to 65535")
        if not is_loopback(self.host):
            self._check_public()
        for url in (self.broker_url, self.public_broker_url):
            if url is not None:
                parse_broker_url(url)
        for name in ("drift_round_s", "scheduler_poll_s", "refresh_s", "telemetry_days"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.mlflow_url is not None:
            check_url(self.mlflow_url, "mlflow")
        if self.mlflow_prefix:
            check_id(self.mlflow_prefix, "mlflow prefix")

    def _check_public(self) -> None:
        if not self.behind_tls_proxy:
            raise ConfigError(
                f"host {self.host!r} is reachable by others and this server speaks no TLS: put a TLS proxy in front and listen on "
                "127.0.0.1, or say --behind-tls-proxy if the proxy is on another machine"
            )
        if self.anonymous_role is not None:
            raise ConfigError(f"anonymous role {self.anonymous_role!r} is for loopback only, not for host {self.host!r}: leave it out")

    def broker_password(self) -> str | None:
        """First line of the password file, None without one.

        Raises:
            ConfigError: The file cannot be read.
        """
        if self.broker_password_file is None:
            return None
        try:
            return self.broker_password_file.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(f"{self.broker_password_file}: the broker's password cannot be read: {err}") from err


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_broker_url(url: str) -> tuple[str, int]:
    """Host and port of mqtt://HOST[:PORT].

    Raises:
        ConfigError: Anything else, credentials included (they belong into a file).
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 1883
    except ValueError as err:
        raise ConfigError(f"broker {url[:80]!r} is no URL: {err}") from err
    if parts.scheme != "mqtt" or not host or parts.username is not None or parts.path not in ("", "/"):
        raise ConfigError(f"broker {url[:80]!r} is not understood: use mqtt://HOST:PORT, and a password file for the password")
    return host, port
