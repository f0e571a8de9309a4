"""Broker passwords of devices: one line per device in Mosquitto's password file, then a reload."""

import contextlib
import os
import secrets
import signal
import threading
from pathlib import Path

from edgefleet.errors import ConfigError, StorageError
from edgefleet.files import write_durably
from fleet_server.passwords import mosquitto_line

# Two enrolments at once would each write the file without the other's line.
_LOCK = threading.Lock()


def give_password(user: str, password_file: Path, pid_file: Path | None) -> str:
    """Make a password for `user`, put its hash into the file (replacing an older one) and let the broker reload.

    Returns:
        The password; only its hash is kept.

    Raises:
        StorageError: The file cannot be read or written.
    """
    password = secrets.token_urlsafe(24)
    with _LOCK:
        try:
            before = password_file.read_text(encoding="utf-8").splitlines(keepends=True) if password_file.exists() else []
            kept = [line for line in before if line.partition(":")[0] != user]
            write_durably(password_file, "".join([*kept, mosquitto_line(user, password)]).encode(), mode=0o600)
        except OSError as err:
            raise StorageError(
                f"{password_file}: {err.strerror or err}; the broker's password file must be writable by this server"
            ) from err
    if pid_file is not None:
        _reload(pid_file)
    return password


def take_password(user: str, password_file: Path, pid_file: Path | None) -> None:
    """Remove the line of `user`, if there is one, and let the broker reload; a connection that `user` has open ends with it.

    Raises:
        StorageError: The file cannot be read or written.
    """
    with _LOCK:
        try:
            before = password_file.read_text(encoding="utf-8").splitlines(keepends=True) if password_file.exists() else []
            kept = [line for line in before if line.partition(":")[0] != user]
            if kept == before:
                return
            write_durably(password_file, "".join(kept).encode(), mode=0o600)
        except OSError as err:
            raise StorageError(
                f"{password_file}: {err.strerror or err}; {user!r} could still reach the broker, so it stays: make the file writable"
            ) from err
    if pid_file is not None:
        _reload(pid_file)


def _reload(pid_file: Path) -> None:
    if not pid_file.exists():
        return  # a broker that is not running reads the password file when it starts
    try:
        pid = int(pid_file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as err:
        raise ConfigError(f"{pid_file}: no process id of the broker in it: {err}; name the file of pid_file in mosquitto.conf") from err
    if pid <= 1:
        raise ConfigError(f"{pid_file}: {pid} is no process id of a broker")
    # A process id that a killed broker left behind.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
