"""Who may ask: this machine without ado, others only over TLS and with a token."""

import datetime
import gc
import http.client
import ipaddress
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from device_agent.doors.answering import Answering
from device_agent.doors.http.access import tls_context
from device_agent.doors.http.application import Application
from device_agent.doors.http.connection import Connection
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.quickness import Quickness
from device_agent.doors.http.server import CLOSE_GRACE_S, ByteBudget
from device_agent.doors.http.settings import HttpSettings, Limits
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import eventually
from tests.unit.device_agent.http_world import matrix, rows, world

TOKEN = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cert.pem, key.pem, locked.pem (the key with a password) and token."""
    folder = tmp_path_factory.mktemp("secrets")
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    for file, lock in (("key.pem", serialization.NoEncryption()), ("locked.pem", serialization.BestAvailableEncryption(b"secret"))):
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
        (folder / file).write_bytes(pem)
    (folder / "token").write_text(TOKEN + "\n")
    return folder


@pytest.fixture
def guarded(forest: Path, secrets: Path) -> Iterator[HttpDoor]:
    """Open to every address of this machine."""
    models = Answering()
    models.install(Scorer.open(forest))
    settings = HttpSettings(
        0,
        "0.0.0.0",  # noqa: S104  # what is tested
        secrets / "cert.pem",
        secrets / "key.pem",
        secrets / "token",
        Limits(receive_s=1.0),
    )
    door = HttpDoor(models, settings)
    door.start()
    yield door
    door.close()
    models.close()


def ask(door: HttpDoor, secrets: Path, token: str | None, path: str = "/v2/models/tiny/infer") -> tuple[int, dict[str, str], bytes]:
    port = int(door.url.rpartition(":")[2])
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=ssl.create_default_context(cafile=secrets / "cert.pem"))
    body = json.dumps({"inputs": [matrix(rows(1))]}) if path.endswith("infer") else None
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connection.request("POST" if body else "GET", path, body, headers)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_beyond_this_machine_a_row_is_scored_over_tls_with_the_token_only(guarded: HttpDoor, secrets: Path) -> None:
    assert guarded.url.startswith("https://")
    assert ask(guarded, secrets, TOKEN)[0] == 200
    for wrong in (None, "", TOKEN[:-1], TOKEN + "0", TOKEN.upper()):
        status, headers, body = ask(guarded, secrets, wrong)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN.encode() not in body
    for path in ("/", "/metrics", "/openapi.json", "/v2"):
        assert ask(guarded, secrets, None, path)[0] == 401
        assert ask(guarded, secrets, TOKEN, path)[0] == 200
    assert ask(guarded, secrets, None, "/v2/health/ready")[0] == 200  # an orchestrator's probe has no token
    assert guarded.counts().scored == 1


def test_without_the_token_nobody_is_told_which_model_is_here(guarded: HttpDoor, secrets: Path) -> None:
    for path in ("/v2/models/x", "/v2/models/x/infer", "/v2/models/tiny/versions/77", "/nothing", "/invocations/infer"):
        status, _, body = ask(guarded, secrets, None, path)
        assert status == 401
        assert b"tiny" not in body
        assert ask(guarded, secrets, TOKEN, path)[0] == 404


def test_a_client_that_speaks_no_tls_gets_nothing_and_holds_up_nobody(guarded: HttpDoor, secrets: Path) -> None:
    port = int(guarded.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain, socket.create_connection(("127.0.0.1", port), timeout=20):
        plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
        assert b"HTTP/1.1 200" not in answer
        assert ask(guarded, secrets, TOKEN)[0] == 200


def test_a_client_that_is_gone_before_its_handshake_leaves_no_socket_behind(secrets: Path) -> None:
    tls = tls_context(secrets / "cert.pem", secrets / "key.pem")
    application = Application(Answering(), Limits())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gone = socket.create_connection(listener.getsockname(), timeout=60)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets the connection
        with listener.accept()[0] as accepted:
            gone.close()
            with pytest.raises(OSError):  # noqa: PT011  # which one is the system's choice
                Connection(accepted, application, Limits(), ByteBudget(1), tls, Quickness())
            gc.collect()  # a socket that nobody closed would be told now, and warnings are errors
            assert accepted.fileno() >= 0


def test_closing_ends_a_client_that_dawdles_with_its_handshake_at_once(forest: Path, secrets: Path) -> None:
    models = Answering()
    models.install(Scorer.open(forest))
    door = HttpDoor(models, HttpSettings(0, "127.0.0.1", secrets / "cert.pem", secrets / "key.pem", limits=Limits(receive_s=20.0)))
    door.start()
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=60) as dawdler:
        eventually("its thread waits for the handshake", lambda: any(t.name == "http-connection" for t in threading.enumerate()))
        start = time.monotonic()
        door.close()
        assert time.monotonic() - start < CLOSE_GRACE_S
        assert dawdler.recv(10) == b""
    models.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "device.example"])  # noqa: S104  # what is refused
def test_other_addresses_without_tls_and_token_are_refused_with_what_is_missing(host: str, secrets: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"needs --http-tls-cert, --http-tls-key, --http-token-file; give them, or listen on 127\.0\.0\.1"
    ):
        HttpDoor(Answering(), HttpSettings(0, host))
    with pytest.raises(ConfigError, match="needs --http-token-file;"):
        HttpDoor(Answering(), HttpSettings(0, host, secrets / "cert.pem", secrets / "key.pem"))
    with pytest.raises(ConfigError, match="needs --http-tls-cert, --http-tls-key;"):
        HttpDoor(Answering(), HttpSettings(0, host, token_file=secrets / "token"))


def test_half_a_pair_a_locked_key_and_a_wrong_file_are_refused_by_name(secrets: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --http-tls-key too"):
        HttpDoor(Answering(), HttpSettings(0, tls_cert=secrets / "cert.pem"))
    with pytest.raises(ConfigError, match=r"locked\.pem.*not encrypted"):
        HttpDoor(Answering(), HttpSettings(0, tls_cert=secrets / "cert.pem", tls_key=secrets / "locked.pem"))
    with pytest.raises(ConfigError, match="both must be PEM"):
        HttpDoor(Answering(), HttpSettings(0, tls_cert=secrets / "token", tls_key=secrets / "key.pem"))
    with pytest.raises(ConfigError, match="nowhere"):
        HttpDoor(Answering(), HttpSettings(0, tls_cert=tmp_path / "nowhere", tls_key=secrets / "key.pem"))


@pytest.mark.parametrize("content", [b"", b"short", b"with a space in the middle", b"\xff" * 32, b"x" * 5000])
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        HttpDoor(Answering(), HttpSettings(0, token_file=tmp_path / "token"))


def test_a_missing_token_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*openssl rand -hex 32"):
        HttpDoor(Answering(), HttpSettings(0, token_file=tmp_path / "token"))


def test_on_this_machine_a_token_alone_guards_too(forest: Path, secrets: Path) -> None:
    with world(forest, token_file=secrets / "token") as one:
        assert one.ask("GET", "/v2").status == 401
        assert one.ask("GET", "/v2", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/ping", "/v2/health/live/"])
def test_who_has_no_token_is_told_so_before_a_large_body_is_read_and_takes_no_room(forest: Path, secrets: Path, path: str) -> None:
    body = json.dumps({"inputs": [matrix(rows(1))]}).encode() + b" " * 80_000
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with world(forest, token_file=secrets / "token", bodies_bytes=100_000) as one:
        with socket.create_connection(("127.0.0.1", one.port), timeout=60) as stranger:
            stranger.sendall(head + body[:70_000])
            assert stranger.recv(65_536).startswith(b"HTTP/1.1 401 ")

            ours = one.ask("POST", "/v2/models/tiny/infer", body, {"Authorization": f"Bearer {TOKEN}"})

        assert ours.status == 200
        assert (one.door.counts().scored, one.balanced()) == (1, True)


def test_a_web_page_can_neither_point_its_name_here_nor_post_rows_from_a_browser(forest: Path) -> None:
    body = {"inputs": [matrix(rows(1))]}
    with world(forest) as one:
        rebound = one.ask("POST", "/v2/models/tiny/infer", body, {"Host": "evil.example"})
        posted = one.ask("POST", "/v2/models/tiny/infer", body, {"Origin": "http://evil.example"})
        own = one.ask("POST", "/v2/models/tiny/infer", body, {"Host": f"localhost:{one.port}", "Origin": f"http://localhost:{one.port}"})

        assert (rebound.status, posted.status, own.status) == (421, 403, 200)
        assert one.ask("GET", "/v2", headers={"Host": "[::1]:80"}).status == 200
        assert one.door.counts().scored == 1
