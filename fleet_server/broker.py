"""A real MQTT broker for a demo or a test, as a child of this process.

Order of choice: the URL given, else a private Mosquitto (PATH, then /usr/sbin), else `iotcore` (a broker inside a wheel, no access
control), else a refusal with the one install line. A private broker listens on loopback only and ends with its parent.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from edgefleet.errors import MissingPartError, TransportError
from edgefleet.files import write_durably
from edgefleet.ports import free_port
from edgefleet.processes import end_with_parent
from edgefleet.topics import PREFIX, acl_patterns
from fleet_server.broker_probe import answers_connect
from fleet_server.passwords import mosquitto_line

INSTALL_LINE: Final = (
    "apt-get install mosquitto, or pip install 'edgefleet[demo]' for the broker in a wheel, or name one with --broker mqtt://HOST:PORT"
)
START_TIMEOUT_S: Final = 20.0
STOP_TIMEOUT_S: Final = 10.0
SERVER_USER: Final = "fleet-server"

Kind = Literal["given", "mosquitto", "iotcore"]


class Broker:
    """A running broker: its URL, its kind, and for a private one its end.

    Attributes:
        url: mqtt://HOST:PORT.
        kind: `given` (somebody else's), `mosquitto` or `iotcore` (ours).
        passwords: Mosquitto password file that enrolment appends to, or None.
        pid_file: File that holds the broker's process id, for a reload signal, or None.
    """

    def __init__(self, url: str, kind: Kind, child: subprocess.Popen[bytes] | None = None, folder: Path | None = None) -> None:
        self.url, self.kind, self._child = url, kind, child
        self.passwords = folder / "passwords" if folder is not None and kind == "mosquitto" else None
        self.pid_file = folder / "mosquitto.pid" if folder is not None and kind == "mosquitto" else None

    def __enter__(self) -> "Broker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def alive(self) -> bool:
        """Whether the broker is still there (a given one is assumed to be)."""
        return self._child is None or self._child.poll() is None

    def stop(self) -> None:
        """End a private broker: SIGTERM so that it saves its state, SIGKILL when it does not go."""
        if self._child is None or self._child.poll() is not None:
            return
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.terminate()
        try:
            self._child.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def find_mosquitto() -> str | None:
    """Path of the Mosquitto program: PATH first, then /usr/sbin, where Debian puts it."""
    found = shutil.which("mosquitto")
    if found is None and os.access("/usr/sbin/mosquitto", os.X_OK):
        return "/usr/sbin/mosquitto"
    return found


def open_broker(choice: str, folder: Path, server_password: str) -> Broker:
    """Open the broker that `choice` names.

    Args:
        choice: `auto`, `mosquitto`, `iotcore`, or an mqtt:// URL.
        folder: Where a private broker keeps its files.
        server_password: Password of the user `fleet-server` on a private Mosquitto.

    Raises:
        MissingPartError: No broker can be had; the message is the install line.
        TransportError: The broker named does not answer.
    """
    if choice.startswith("mqtt://"):
        host, _, port = choice.removeprefix("mqtt://").rstrip("/").partition(":")
        if not answers_connect(host, int(port or 1883), START_TIMEOUT_S):
            raise TransportError(f"no MQTT broker answers at {choice}; start it, or let --broker auto run a private one")
        return Broker(choice, "given")
    program = find_mosquitto() if choice in ("auto", "mosquitto") else None
    if program is not None:
        return _start_mosquitto(program, folder, server_password)
    if choice in ("auto", "iotcore") and _has_iotcore():
        return _start_iotcore(folder)
    raise MissingPartError(f"no MQTT broker was found (asked for {choice}): {INSTALL_LINE}")


def mosquitto_configuration(folder: Path, port: int, user: str) -> str:
    """Configuration of a private Mosquitto on loopback with passwords and access control.

    `user` matters: started as root, Mosquitto would drop to another account and could no longer write its files here.
    """
    return "\n".join(
        [
            f"user {user}",
            "per_listener_settings false",
            f"pid_file {folder / 'mosquitto.pid'}",
            "set_tcp_nodelay true",
            "max_packet_size 262144",
            "max_inflight_messages 100",
            "max_queued_messages 100000",
            "max_queued_bytes 67108864",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 60",
            "max_keepalive 1200",
            "allow_anonymous false",
            f"password_file {folder / 'passwords'}",
            f"acl_file {folder / 'acl'}",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            f"listener {port} 127.0.0.1",
            "",
        ]
    )


def _start_mosquitto(program: str, folder: Path, server_password: str) -> Broker:
    folder.mkdir(parents=True, exist_ok=True)
    acl = [f"user {SERVER_USER}", f"topic readwrite {PREFIX}/#", "topic read $SYS/broker/#", "", *acl_patterns(), ""]
    write_durably(folder / "acl", "\n".join(acl).encode(), mode=0o600)
    write_durably(folder / "passwords", mosquitto_line(SERVER_USER, server_password).encode(), mode=0o600)
    user = pwd.getpwuid(os.getuid()).pw_name
    for port in _ports():
        write_durably(folder / "mosquitto.conf", mosquitto_configuration(folder, port, user).encode(), mode=0o600)
        child = _spawn([program, "-c", str(folder / "mosquitto.conf")], folder / "mosquitto.log")
        broker = Broker(f"mqtt://127.0.0.1:{port}", "mosquitto", child, folder)
        if _wait_until_it_answers(broker, port):
            return broker
    raise TransportError(f"a private Mosquitto did not start: {_tail(folder / 'mosquitto.log')}")


def _start_iotcore(folder: Path) -> Broker:
    folder.mkdir(parents=True, exist_ok=True)
    for port in _ports():
        child = _spawn([sys.executable, "-m", "fleet_server.broker_iotcore", str(port)], folder / "iotcore.log", keep_stdin=True)
        broker = Broker(f"mqtt://127.0.0.1:{port}", "iotcore", child, folder)
        if _wait_until_it_answers(broker, port):
            return broker
    raise TransportError(f"the broker in the iotcore wheel did not start: {_tail(folder / 'iotcore.log')}")


def _ports() -> Iterator[int]:
    for _ in range(3):  # another process may take the port between our asking and the broker's binding
        yield free_port()


def _spawn(command: list[str], log: Path, *, keep_stdin: bool = False) -> subprocess.Popen[bytes]:
    # Output goes to a file: an orphaned broker that held a pipe would hang whoever reads it.
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if keep_stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509  # it only makes one system call
        )


def _wait_until_it_answers(broker: Broker, port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and broker.alive():
        if answers_connect("127.0.0.1", port, 1.0):
            return True
        time.sleep(0.05)
    broker.stop()
    return False


def _has_iotcore() -> bool:
    import importlib.util

    return importlib.util.find_spec("iotcore") is not None


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-300:].strip()
    return "no output"
