"""Broker passwords of devices: one line per device in Mosquitto's password file, then a reload."""

import contextlib
import logging
import os
import secrets
import signal
import time
from pathlib import Path
from typing import Final

from edgefleet.errors import ConfigError, StorageError
from edgefleet.files import write_durably
from edgefleet.locks import one_at_a_time
from fleet_server.passwords import mosquitto_line

LOG = logging.getLogger(__name__)

STARTING_S: Final = 0.5
_LOOK_S: Final = 0.02
_LAST_PID: Final = 2**31 - 1


def give_password(user: str, password_file: Path, pid_file: Path | None) -> str:
    """Make a password for `user`, put its hash into the file (replacing an older one) and let the broker reload.

    Returns:
        The password; only its hash is kept.

    Raises:
        StorageError: The file cannot be read or written.
        ConfigError: The pid file names no process of a broker, or one that this user may not signal.
    """
    password = secrets.token_urlsafe(24)
    try:
        with one_at_a_time(_lock_file(password_file)):
            kept = [line for line in _lines(password_file) if line.partition(":")[0] != user]
            write_durably(password_file, "".join([*kept, mosquitto_line(user, password)]).encode(), mode=0o600)
    except OSError as err:
        raise StorageError(
            f"{password_file}: {err.strerror or err}; the broker's password file, and its folder, must be writable by this server"
        ) from err
    if pid_file is not None:
        _reload(pid_file)
    return password


def take_password(user: str, password_file: Path, pid_file: Path | None) -> None:
    """Remove the line of `user`, if there is one, and let the broker reload; a connection that `user` has open ends with it.

    Raises:
        StorageError: The file cannot be read or written.
        ConfigError: As `give_password`.
    """
    try:
        with one_at_a_time(_lock_file(password_file)):
            before = _lines(password_file)
            kept = [line for line in before if line.partition(":")[0] != user]
            if kept != before:
                write_durably(password_file, "".join(kept).encode(), mode=0o600)
    except OSError as err:
        raise StorageError(
            f"{password_file}: {err.strerror or err}; {user!r} could still reach the broker, so it stays: make the file writable"
        ) from err
    if pid_file is not None:
        # Also where the line is gone: an earlier try may have ended here, and the broker still know the password.
        _reload(pid_file)


def _lock_file(password_file: Path) -> Path:
    # Two enrolments at once, of one server or of two fleets on one broker, would each write the file without the other's line.
    return password_file.with_name(f".{password_file.name}.lock")


def _lines(password_file: Path) -> list[str]:
    return password_file.read_text(encoding="utf-8").splitlines(keepends=True) if password_file.exists() else []


def _reload(pid_file: Path) -> None:
    try:
        written = pid_file.read_text(encoding="ascii").strip()
        pid = int(written) if written else None
    except FileNotFoundError:
        return  # a broker that is not running reads the password file when it starts
    except (OSError, ValueError) as err:
        raise ConfigError(f"{pid_file}: no process id of the broker in it: {err}; name the file of pid_file in mosquitto.conf") from err
    if pid is None:
        return  # it starts at this moment: it makes this file before it reads the password file
    if not 1 < pid <= _LAST_PID:
        raise ConfigError(f"{pid_file}: {str(pid)[:20]} is no process id of a broker; name the file of pid_file in mosquitto.conf")
    if not _waits_for_hangup(pid):
        LOG.warning(
            "%s: process %d does not listen for a reload, it is left alone; restart the broker if it refuses devices or knows removed ones",
            pid_file,
            pid,
        )
        return
    try:
        # A process id that a killed broker left behind is nobody's.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
    except PermissionError as err:
        raise ConfigError(
            f"{pid_file}: process {pid} may not be told to reload: {err.strerror}; run this server as the broker's user, or as root"
        ) from err


def _waits_for_hangup(pid: int) -> bool:
    """Whether SIGHUP is caught there: it would end a broker that is still starting, and any other process that got an old broker's id."""
    deadline = time.monotonic() + STARTING_S
    while (caught := _caught_signals(pid)) is not None:
        if caught >> (signal.SIGHUP - 1) & 1:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True


def _caught_signals(pid: int) -> int | None:
    """Mask of the signals that a process has a handler for; None when it is gone, or the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    masks = [line.partition(":")[2] for line in status.splitlines() if line.startswith("SigCgt:")]
    return int(masks[0], 16) if masks else None
