"""Locks between processes, by flock: the lock of a dead process is gone with it, so a file that a kill left behind locks nobody out."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from edgefleet.errors import ConfigError, StorageError


class FolderLock:
    """One process per folder. Held from its making until `release`, or the end of the process.

    Args:
        path: The lock's file in the folder; made when missing, and never removed.
        who: What runs there, for the message: `agent`, `fleet server`.

    Raises:
        ConfigError: Another process holds it; the message says which.
        StorageError: The file cannot be made, or the file system has no locks.
    """

    def __init__(self, path: Path, who: str) -> None:
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as err:
            raise StorageError(f"{path}: {err.strerror or err}; make room, and the folder writable for its owner") from err
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            holder = os.read(self._handle, 20).decode(errors="replace").strip()
            os.close(self._handle)
            raise ConfigError(f"{path.parent}: another {who} (process {holder or 'unknown'}) runs on this folder; stop it first") from err
        except OSError as err:
            os.close(self._handle)
            raise StorageError(f"{path}: {err.strerror or err}; use a folder of a file system that knows flock") from err
        # The number is only for the message above; a full disk must not keep the process from its work.
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.write(self._handle, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let the next process in; a second time does nothing, for the number may be another file's by then."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


@contextlib.contextmanager
def one_at_a_time(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `path` for a block; threads of this process and other processes wait for each other.

    Args:
        path: The lock's file; made when missing, removed after the block. One that a kill left behind is nobody's.
        wait: False: be refused instead, where somebody has it.

    Raises:
        BlockingIOError: Somebody has it, and it is not waited for.
        OSError: It cannot be made.
    """
    while not _is_at(handle := _locked(path, wait), path):
        os.close(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name: a lock's file is removed by its holder, and who waited for it holds another."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _locked(path: Path, wait: bool) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle
