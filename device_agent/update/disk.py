"""The only module of the agent that writes: every change of a file is one operation here, so that each can be made to fail.

Errors of the disk become `StorageError` with the path and the bytes that were to be written; everything else in the agent treats that as
"later", never as "done".
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edgefleet.errors import StorageError
from edgefleet.files import make_folder, sync_folder

_REMEDY = {
    errno.ENOSPC: "the disk is full; make room, the agent goes on by itself",
    errno.EDQUOT: "the quota is used up; make room, the agent goes on by itself",
    errno.EROFS: "the file system is read-only; remount it writable",
}

Before = Callable[[str, Path], None]


class Disk:
    """File operations under one folder.

    Args:
        before: Called with the name of the operation and its path before each one; a fault test raises OSError or ends the process here.
    """

    def __init__(self, before: Before | None = None) -> None:
        self._before = before

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents; their names are durable when this returns."""
        if folder.is_dir():
            return
        with self._doing("make_folder", folder, 0):
            make_folder(folder)

    def write_part(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Write a temporary file; it means nothing before it is synced and renamed."""
        with self._doing("write_part", path, len(content)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)

    def append_part(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Append chunks to a part file as they come; what was written stays for a later resume when the source fails."""
        with self._doing("append_part", path, 0):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "wb", buffering=0) as stream:
            # Only the writes are the disk's: an error of the source must stay what it is.
            for chunk in chunks:
                with self._doing("append_chunk", path, len(chunk)):
                    _write_all(stream.fileno(), chunk)

    def append(self, path: Path, content: bytes, durable: bool) -> None:
        """Append to a log file in one write; `durable` also waits for the disk."""
        with self._doing("append", path, len(content)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                _write_all(handle, content)
                if durable:
                    os.fdatasync(handle)
            finally:
                os.close(handle)

    def truncate(self, path: Path, size_bytes: int) -> None:
        """Cut a log file behind its last good record, durably."""
        with self._doing("truncate", path, 0):
            os.truncate(path, size_bytes)
            self._sync(path)

    def fsync(self, path: Path) -> None:
        """Wait until the file's bytes are on the disk."""
        with self._doing("fsync", path, 0):
            self._sync(path)

    def seal(self, path: Path) -> None:
        """Make a file read-only: blobs never change."""
        with self._doing("seal", path, 0):
            path.chmod(0o444)

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` in one step; readers see the old file or the new one."""
        with self._doing("rename", target, 0):
            source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file; one that is already gone is fine."""
        with self._doing("unlink", path, 0):
            path.unlink(missing_ok=True)

    def fsync_dir(self, folder: Path) -> None:
        """Make renames and new names in the folder survive a power cut."""
        with self._doing("fsync_dir", folder, 0):
            sync_folder(folder)

    def replace(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Write, sync, rename, sync the folder: after a power cut the file holds the old bytes or the new ones."""
        part = path.with_name(f".part-{path.name}")
        self.write_part(part, content, mode)
        self.fsync(part)
        self.rename(part, path)
        self.fsync_dir(path.parent)

    def replace_lightly(self, path: Path, content: bytes) -> None:
        """Replace without waiting for the disk: for status files that are written every few seconds and mean nothing after a power cut."""
        part = path.with_name(f".part-{path.name}")
        self.write_part(part, content)
        self.rename(part, path)

    def _sync(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _doing(self, operation: str, path: Path, size_bytes: int) -> Iterator[None]:
        try:
            if self._before is not None:
                self._before(operation, path)
            yield
        except OSError as err:
            raise storage_error(path, size_bytes, err) from err


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]


def storage_error(path: Path, size_bytes: int, err: OSError) -> StorageError:
    """The StorageError for an OSError: path, bytes needed, and what to do."""
    needed = f" ({size_bytes} bytes to write)" if size_bytes else ""
    remedy = _REMEDY.get(err.errno or 0, "check the disk and the folder's owner")
    return StorageError(f"{path}{needed}: {err.strerror or err}; {remedy}")
