"""Settings of the MQTT door, checked before anything connects."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from paho.mqtt.client import topic_matches_sub

from edgefleet.errors import ConfigError
from edgefleet.topics import PREFIX, score_topic

if TYPE_CHECKING:  # the agent's configuration holds ours
    from device_agent.config import Identity

FLEET: Final = "fleet"
MAX_TOPIC_BYTES: Final = 512
MAX_CREDENTIALS_BYTES: Final = 4096


@dataclass(frozen=True)
class MqttOptions:
    """What an operator says.

    Attributes:
        url: mqtt://HOST:PORT or mqtts://HOST:PORT, or `fleet` for the broker and account of the fleet's link.
        topic_in: Topic or filter to listen on; None is `ef/v1/d/<device>/score/in`.
        topic_out: Where callers that name no reply topic are answered; None is `ef/v1/d/<device>/score/out`.
        qos: Of the subscription and of the answers, 0 or 1.
        credentials: File with one line USER:PASSWORD, or None.
        ca: PEM file of the authorities that mqtts trusts, None for the system's.
    """

    url: str
    topic_in: str | None = None
    topic_out: str | None = None
    qos: int = 1
    credentials: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True)
class MqttSettings:
    """The same, resolved for one device."""

    device_id: str
    host: str
    port: int
    tls: bool
    ca: Path | None
    username: str
    password: str
    topic_in: str
    topic_out: str
    qos: int

    @property
    def client_id(self) -> str:
        """Not the link's: a broker closes the older of two connections with the same one."""
        return f"{self.device_id}-door"


def resolve(options: MqttOptions, identity: "Identity") -> MqttSettings:
    """Settings of one device.

    Raises:
        ConfigError: A value is not what it must be; the message names it.
    """
    host, port, tls = _broker(options, identity)
    username, password = _credentials(options, identity)
    topic_in = options.topic_in or score_topic(identity.device_id, "in")
    topic_out = options.topic_out or score_topic(identity.device_id, "out")
    _check_filter(topic_in)
    if problem := reply_problem(topic_out, topic_in, identity.device_id):
        raise ConfigError(f"--mqtt-out {problem}")
    if options.qos not in (0, 1):
        raise ConfigError(f"--mqtt-qos {options.qos} is not 0 or 1; 2 would cost two more messages a row and no row is worth them")
    return MqttSettings(identity.device_id, host, port, tls, options.ca, username, password, topic_in, topic_out, options.qos)


def reply_problem(topic: str, topic_in: str, device_id: str) -> str:
    """Why answers may not go to a topic, "" when they may.

    The door's account may be allowed more than the caller's: it must not be led to write what the caller may not.
    """
    shown = repr(topic[:80])
    if not topic or len(topic.encode(errors="replace")) > MAX_TOPIC_BYTES or "\0" in topic:
        return f"{shown} is no topic: 1 to {MAX_TOPIC_BYTES} bytes without NUL"
    if "+" in topic or "#" in topic or topic.startswith("$"):
        return f"{shown} has a wildcard or begins with $; name one plain topic"
    own = score_topic(device_id, "")
    if topic.split("/")[0] == PREFIX.split("/")[0] and not topic.startswith(own):
        return f"{shown} is one of the fleet's own topics; those below {own} are the door's"
    if topic_matches_sub(topic_in, topic):
        return f"{shown} is what the door itself listens on ({topic_in}): it would answer its answers for ever"
    return ""


def _check_filter(topic: str) -> None:
    levels = topic.split("/")
    wild = any(("+" in level or "#" in level) and level not in ("+", "#") for level in levels) or "#" in levels[:-1]
    if wild or topic.startswith("$") or "\0" in topic or len(topic.encode(errors="replace")) > MAX_TOPIC_BYTES:
        raise ConfigError(f"--mqtt-in {topic[:80]!r} is no topic filter: + and # stand for whole levels, # is the last, $ begins none")


def _broker(options: MqttOptions, identity: "Identity") -> tuple[str, int, bool]:
    if options.url == FLEET:
        return identity.broker_host, identity.broker_port, False
    expected = "expected mqtt://HOST:PORT, mqtts://HOST:PORT or fleet"
    try:
        parts = urlsplit(options.url)
        host, port = parts.hostname, parts.port
    except ValueError as err:
        raise ConfigError(f"--mqtt-door {options.url[:80]!r}: {err}; {expected}") from err
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.query:
        raise ConfigError(f"--mqtt-door {options.url[:80]!r}: {expected}")
    if "@" in parts.netloc:
        raise ConfigError("--mqtt-door: a password in a URL can be seen by everybody on the machine; use --mqtt-credentials FILE")
    tls = parts.scheme == "mqtts"
    if options.ca is not None and not (tls and options.ca.is_file()):
        raise ConfigError(f"--mqtt-ca {options.ca}: {'no such file' if tls else 'only mqtts:// uses it'}")
    return host, port or (8883 if tls else 1883), tls


def _credentials(options: MqttOptions, identity: "Identity") -> tuple[str, str]:
    path = options.credentials
    if path is None:
        return (identity.mqtt_username, identity.mqtt_password) if options.url == FLEET else ("", "")
    try:
        with path.open("rb") as stream:
            line = stream.read(MAX_CREDENTIALS_BYTES + 1).decode().strip("\r\n")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"--mqtt-credentials {path}: {str(err)[:120]}") from err
    user, colon, password = line.partition(":")
    if not user or not colon or "\n" in line or len(line) > MAX_CREDENTIALS_BYTES:
        raise ConfigError(f"--mqtt-credentials {path}: expected one line USER:PASSWORD of at most {MAX_CREDENTIALS_BYTES} bytes")
    return user, password
