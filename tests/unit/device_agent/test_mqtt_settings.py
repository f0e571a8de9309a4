"""What the MQTT door refuses before it connects, and where it answers; TLS and accounts with a real broker."""

import datetime
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from device_agent.config import Identity, load_identity
from device_agent.doors.answering import Answering
from device_agent.doors.mqtt.door import MqttDoor
from device_agent.doors.mqtt.settings import MqttOptions, reply_problem, resolve
from edgefleet.cli.agent import agent
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import DEVICE, enroll, eventually, mosquitto
from tests.unit.device_agent.mqtt_world import settings


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    account = {"mqtt_username": DEVICE, "mqtt_password": "secret"}
    return load_identity(enroll(tmp_path / "d", broker_url="mqtt://broker.lan:1884", **account).folder)


def test_the_fleets_broker_is_used_with_the_devices_account_and_topics(identity: Identity) -> None:
    found = resolve(MqttOptions("fleet"), identity)
    assert (found.host, found.port, found.tls, found.username, found.password) == ("broker.lan", 1884, False, DEVICE, "secret")
    assert (found.topic_in, found.topic_out) == (f"ef/v1/d/{DEVICE}/score/in", f"ef/v1/d/{DEVICE}/score/out")
    assert found.client_id == f"{DEVICE}-door"


def test_another_broker_never_sees_the_fleets_account(identity: Identity, tmp_path: Path) -> None:
    assert resolve(MqttOptions("mqtts://plant.lan"), identity).username == ""
    (tmp_path / "account").write_text("plc:a:b\n")
    found = resolve(MqttOptions("mqtts://plant.lan", credentials=tmp_path / "account"), identity)
    assert (found.port, found.tls, found.username, found.password) == (8883, True, "plc", "a:b")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://x"}, "expected mqtt://HOST:PORT"),
        ({"url": "mqtt://"}, "expected mqtt://HOST:PORT"),
        ({"url": "mqtt://x:99999"}, "Port out of range"),
        ({"url": "mqtt://me:secret@x"}, "use --mqtt-credentials"),
        ({"topic_in": "a/#/b"}, "is no topic filter"),
        ({"topic_in": "a/b+"}, "is no topic filter"),
        ({"topic_in": "$share/g/a"}, "is no topic filter"),
        ({"topic_out": "a/+"}, "has a wildcard"),
        ({"topic_out": "$SYS/x"}, "begins with"),
        ({"topic_in": "plant/#", "topic_out": "plant/out"}, "would answer its answers for ever"),
        ({"topic_out": f"ef/v1/d/{DEVICE}/t"}, "one of the fleet's own topics"),
        ({"topic_out": "x" * 513}, "1 to 512 bytes"),
        ({"qos": 2}, "is not 0 or 1"),
        ({"credentials": Path("/nonexistent")}, "--mqtt-credentials /nonexistent"),
        ({"ca": Path("/nonexistent")}, "only mqtts:// uses it"),
        ({"url": "mqtts://x", "ca": Path("/nonexistent")}, "no such file"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_the_reason(identity: Identity, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("$", r"\$")):
        resolve(MqttOptions(**({"url": "mqtt://x"} | changes)), identity)


@pytest.mark.parametrize("content", [b"nocolon", b":password", b"a:b\nc:d", b"\xff:x", b"a:" + b"x" * 5000])
def test_a_file_that_is_no_account_is_refused_without_its_content(identity: Identity, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "account").write_bytes(content)
    with pytest.raises(ConfigError, match="--mqtt-credentials") as refused:
        resolve(MqttOptions("mqtt://x", credentials=tmp_path / "account"), identity)
    assert "nocolon" not in str(refused.value)


def test_answers_may_go_below_the_devices_own_node_and_to_topics_outside_the_fleet() -> None:
    own = f"ef/v1/d/{DEVICE}/score/in"
    assert reply_problem(f"ef/v1/d/{DEVICE}/score/reply-7", own, DEVICE) == ""
    assert reply_problem("plc/7/answers", own, DEVICE) == ""
    assert "fleet's own topics" in reply_problem("ef/v1/d/other/score/out", own, DEVICE)
    assert "fleet's own topics" in reply_problem("ef/v1/halt", own, DEVICE)


def test_the_command_refuses_options_of_a_door_that_is_not_asked_for(tmp_path: Path) -> None:
    done = CliRunner().invoke(agent, ["run", "--dir", str(tmp_path), "--mqtt-in", "a", "--mqtt-ca", "b"])
    assert done.exit_code == 2
    assert "--mqtt-in, --mqtt-ca without --mqtt-door URL" in done.output


def authority(folder: Path) -> None:
    """ca.pem, and cert.pem with key.pem for 127.0.0.1."""
    folder.mkdir(parents=True)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's authority")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: x509.Name, public: Any, *, ca: bool) -> x509.Certificate:
        made = x509.CertificateBuilder(ca_name, subject, public, x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        return made.sign(ca_key, hashes.SHA256())

    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    (folder / "ca.pem").write_bytes(certificate(ca_name, ca_key.public_key(), ca=True).public_bytes(serialization.Encoding.PEM))
    (folder / "cert.pem").write_bytes(certificate(server, key.public_key(), ca=False).public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))


@contextmanager
def door(port: int, **changes: Any) -> Iterator[MqttDoor]:
    made = MqttDoor(settings(port, **changes), Answering())
    made.start()
    try:
        yield made
    finally:
        made.close()


@pytest.mark.broker
# paho leaves the socket of a handshake that failed to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_tls_the_broker_is_trusted_by_the_authority_named_and_by_no_other(tmp_path: Path) -> None:
    for name in ("a", "b"):
        authority(tmp_path / name)
    lines = [f"cafile {tmp_path / 'a' / 'ca.pem'}", f"certfile {tmp_path / 'a' / 'cert.pem'}", f"keyfile {tmp_path / 'a' / 'key.pem'}"]
    with (
        mosquitto(tmp_path / "m", more=lines) as (_, port, _),
        door(port, tls=True, ca=tmp_path / "b" / "ca.pem") as stranger,
        door(port, tls=True, ca=tmp_path / "a" / "ca.pem", device_id="other-1") as known,
    ):
        eventually("the connection", lambda: known.connected)
        assert not stranger.connected
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="not a PEM file of certificates"):
        MqttDoor(settings(1, tls=True, ca=tmp_path / "no.pem"), Answering())
