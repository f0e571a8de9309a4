"""The window that is still open, on disk every half minute: what kill -9 or a power cut costs is bounded and counted.

Pieces are taken from the scorer and merged here; `keep` writes what is held, durably, in one file. A start that finds the file puts its
windows into the spool: exactly once, because a window that was closed after the file was written stands in the spool behind the sequence
number that the file names. Loss bound: the rows since the last `keep`. Memory: one window per model and
share of the rows, at most eight.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from device_agent.telemetry.merging import merge_windows
from device_agent.telemetry.spool import Spool, Stored
from device_agent.telemetry.windows import Window
from device_agent.update.disk import Disk
from device_agent.update.journal import frame, read_frames
from edgefleet.errors import EdgefleetError, StorageError
from edgefleet.messages import MAX_MESSAGE_BYTES, WindowBody, decode, encode

SNAPSHOT_NAME: Final = "open-window"
SNAPSHOT_VERSION: Final = 1
MAX_WINDOWS: Final = 8
MAX_SNAPSHOT_BYTES: Final = MAX_WINDOWS * MAX_MESSAGE_BYTES


class _Piece(msgspec.Struct, array_like=True, frozen=True):
    start_at: int
    end_at: int
    model_digest: str
    body: bytes


class _Snapshot(msgspec.Struct, array_like=True, frozen=True):
    version: int
    boot: int
    after_seq: int
    pieces: list[_Piece]


class OpenWindow:
    """Windows that are not closed yet; used by one thread, which is also the one that frees records of the spool.

    Args:
        folder: Identity folder.
        boot: Random number of this start.
        spool: Where closed windows go.
        disk: Where all writing goes through.

    Attributes:
        recovered: Windows of an earlier start that were found in the file.
        lost: Windows that were given up because the disk refused them for too long.
    """

    def __init__(self, folder: Path, boot: int, spool: Spool, disk: Disk) -> None:
        self._path, self._boot, self._spool, self._disk = folder / SNAPSHOT_NAME, boot, spool, disk
        self._held: list[Window] = []
        self._kept = True
        self._on_disk = self._path.exists()
        self.recovered = self.lost = 0

    @property
    def rows(self) -> int:
        """Rows held, answered or refused."""
        return sum(window.body.answered + sum(window.body.rejected.values()) for window in self._held)

    @property
    def rows_not_kept(self) -> int:
        """Rows held that no file has, because the disk refused them."""
        return 0 if self._kept else self.rows

    def add(self, windows: Sequence[Window]) -> None:
        """Merge pieces into what is held."""
        for window in windows:
            self._kept = False
            for i, held in enumerate(self._held):
                with contextlib.suppress(EdgefleetError):  # another model, or bins of another reference
                    self._held[i] = merge_windows(held, window)
                    break
            else:
                self._held.append(window)
        while len(self._held) > MAX_WINDOWS:
            self._held.pop(0)
            self.lost += 1

    def keep(self) -> None:
        """Write what is held to the disk, durably; cheap when nothing came.

        Raises:
            StorageError: The disk refused; what was kept before stays.
        """
        if self._kept or not self._held:
            return
        pieces = [_Piece(w.start_at, w.end_at, w.model_digest, encode(w.body)) for w in self._held]
        snapshot = _Snapshot(SNAPSHOT_VERSION, self._boot, self._spool.last_seq, pieces)
        self._on_disk = True  # even if it fails: a part may stand there
        self._disk.replace(self._path, frame(msgspec.msgpack.encode(snapshot)))
        self._kept = True

    def close(self, put: Callable[[Window], None]) -> None:
        """Hand what is held to `put`, and forget the file once the spool is on the disk.

        Args:
            put: Puts one window into the spool. Raises StorageError when the disk refuses: the window then stays open, and nothing is lost.

        Raises:
            StorageError: As above.
        """
        count = len(self._held)
        while self._held:
            try:
                put(self._held[0])
            except StorageError:
                if len(self._held) < count:
                    # The others are gone from here, and may be acknowledged before this one is: the file must not bring them again.
                    self._forget()
                raise
            self._held.pop(0)
            self._kept = False
        self._forget()

    def recover(self, put: Callable[[Window], None]) -> None:
        """Put the windows of an earlier start into the spool; to be called before anything else of this start is put there or sent.

        Raises:
            StorageError: The disk refuses; what it did not take is held as if it were of this start.
        """
        snapshot = self._read() or _Snapshot(SNAPSHOT_VERSION, self._boot, 0, [])
        for piece in snapshot.pieces:
            if self._spool.holds(partial(_is_closed, snapshot, piece)):
                continue
            try:
                body = decode(WindowBody, piece.body)
            except EdgefleetError:
                self.lost += 1
                continue
            self._held.append(Window(start_at=piece.start_at, end_at=piece.end_at, model_digest=piece.model_digest, body=body))
            self.recovered += 1
        self.close(put)

    def _forget(self) -> None:
        """Remove the file. The spool first: a power cut must find the window in one of the two, and an acknowledged one in neither."""
        if not self._on_disk:
            return
        self._spool.sync()
        self._disk.unlink(self._path)
        self._disk.fsync_dir(self._path.parent)
        self._on_disk = False

    def _read(self) -> _Snapshot | None:
        """The file of an earlier start, None when there is none or it is damaged."""
        try:
            with self._path.open("rb") as stream:
                frames, _ = read_frames(stream.read(MAX_SNAPSHOT_BYTES + 1), MAX_SNAPSHOT_BYTES)
        except OSError:
            return None
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for _, payload in frames[:1]:
                snapshot = msgspec.msgpack.decode(payload, type=_Snapshot)
                return snapshot if snapshot.version == SNAPSHOT_VERSION else None
        return None


def _is_closed(snapshot: _Snapshot, piece: _Piece, stored: Stored) -> bool:
    """Whether a record of the spool holds the rows of a piece: closed later in that start, or recovered by a start that was killed too."""
    if (stored.kind, stored.model_digest) != ("window", piece.model_digest):
        return False
    return (stored.boot == snapshot.boot and stored.seq > snapshot.after_seq) or stored.body == piece.body
