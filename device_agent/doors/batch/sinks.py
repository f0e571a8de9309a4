"""Where answers go: text that grows in OUT.partial and is cut to its last whole chunk, or a stream that nobody cuts."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from device_agent.doors.batch.rows import Answered
from edgefleet.errors import ConfigError, InputError, StorageError
from edgefleet.files import sync_folder
from edgefleet.locks import one_at_a_time

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutputBusy(ConfigError):
    """Another process writes this output: later it may be free, or done."""


class Sink(Protocol):
    """One output."""

    def write(self, answered: Any) -> None:
        """Add a chunk's answers."""
        ...

    def keep(self) -> int | None:
        """Bring all that was added to the disk; how much that is, or None where it can only be told at a later chunk's end."""
        ...

    def complete(self) -> int | None:
        """Bring everything to the disk, as `keep`: no more comes."""
        ...

    def close(self) -> None:
        """Let go of it as it is."""
        ...


class StreamSink:
    """A pipe or a terminal: every chunk is flushed."""

    def __init__(self, stream: BinaryIO, render: Callable[[Any], bytes], head: bytes = b"") -> None:
        self._stream, self._render, self._head = stream, render, head

    def write(self, answered: Answered) -> None:
        """Write and flush a chunk."""
        self._put(self._take_head() + self._render(answered))

    def keep(self) -> int | None:
        """Nothing is kept of a stream."""
        return None

    def complete(self) -> int | None:
        """Write the head where no row came."""
        self._put(self._take_head())
        return None

    def close(self) -> None:
        """The stream is the caller's."""

    def _put(self, content: bytes) -> None:
        if content:
            self._stream.write(content)
            self._stream.flush()

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        return head


class TextSink:
    """A text file that appears under its name when it is whole.

    Args:
        path: Its name; until then it is `path` + ".partial".
        render: Text of a chunk.
        head: Text before the first chunk.
        whole: Bytes of an earlier run to go on from; the rest is cut. 0 = start anew.
        receipt: Journal of an earlier run, None for none: it is removed before bytes that it speaks of are.

    Raises:
        OutputBusy: Another process writes it; nothing was changed.
        InputError: The partial file has lost bytes that its journal promises.
        StorageError: It cannot be written.
    """

    def __init__(
        self, path: Path, render: Callable[[Any], bytes], head: bytes = b"", whole: int = 0, *, receipt: Path | None = None
    ) -> None:
        self._path, self._partial, self._render = path, partial_of(path), render
        self._handle = held(self._partial, os.O_RDWR | os.O_CREAT)
        try:
            self._open(head, whole, receipt)
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, answered: Answered) -> None:
        """Append a chunk; when the disk refuses, what it took of it is cut off again."""
        self.append(self._render(answered))

    def append(self, content: bytes) -> None:
        """Append bytes, all or none of them."""
        try:
            with writing(self._partial):
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(self._handle, rest) :]
        except StorageError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._whole)
            raise
        self._whole += len(content)

    def keep(self) -> int | None:
        """Wait for the disk; the bytes that are whole."""
        with writing(self._partial):
            os.fsync(self._handle)
        return self._whole

    def complete(self) -> int | None:
        """The same as `keep`."""
        return self.keep()

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _open(self, head: bytes, whole: int, receipt: Path | None) -> None:
        size = os.fstat(self._handle).st_size
        if size < whole:
            raise InputError(f"{self._partial} has {size} bytes, its journal says {whole}; start anew without --resume")
        with writing(self._partial):
            if whole == 0 and receipt is not None:
                receipt.unlink(missing_ok=True)
            os.ftruncate(self._handle, whole)
            os.lseek(self._handle, whole, os.SEEK_SET)
        self._whole = whole
        if whole == 0:
            self.append(head)


@contextlib.contextmanager
def alone(output: Path | None) -> Iterator[None]:
    """Be the one process that scores into an output, from the look at its journal until the answers have their name; None is a stream.

    The lock's file is there meanwhile; one that a kill left behind is nobody's.

    Raises:
        OutputBusy: Another process does.
        StorageError: The lock's file cannot be made.
    """
    with contextlib.ExitStack() as stack:
        if output is not None:
            path = output.with_name(output.name + ".lock")
            with writing(path):
                try:
                    stack.enter_context(one_at_a_time(path, wait=False))
                except BlockingIOError as err:
                    raise OutputBusy(_busy(output)) from err
        yield


def held(path: Path, flags: int) -> int:
    """An open file or folder that no other process holds like this until it is closed.

    Raises:
        OutputBusy: Another one does.
        StorageError: It cannot be opened.
    """
    with writing(path):
        handle = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        os.close(handle)
        raise OutputBusy(_busy(path)) from err
    return handle


def _busy(path: Path) -> str:
    return f"{path}: another process writes it; wait for it, or name another --output"


def partial_of(path: Path) -> Path:
    """Name of an output that is not whole."""
    return path.with_name(path.name + ".partial")


def place_text(path: Path) -> None:
    """Give a whole text its final name, durably; nothing is left to do when that was done.

    Raises:
        StorageError: The disk refuses.
        InputError: It is under neither name.
    """
    partial = partial_of(path)
    with writing(path):
        if partial.exists():
            partial.replace(path)
            sync_folder(path.parent)
    if not path.exists():
        raise InputError(f"{path}: the answers were removed, only their journal is left; start anew without --resume")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the disk as `StorageError`, with what to do."""
    try:
        yield
    except OSError as err:
        why = "the disk is full" if err.errno in _FULL else (err.strerror or str(err))
        raise StorageError(
            f"{path}: cannot be written: {why}; make it writable or make room; what is whole is kept, --resume goes on"
        ) from err
