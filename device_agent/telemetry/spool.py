"""Store and forward: every record stays on the disk until the server says that it has stored it.

Segments are append-only files of framed records; a torn tail is ignored. What the server acknowledges per (boot, seq) is freed;
when the limit is reached the oldest segment goes, and its records are counted as dropped. A record survives the end of this process
as soon as `put` returns, and a power cut once `sync` was called. Memory: about 200 bytes per record.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from device_agent.telemetry import drops
from device_agent.update.disk import Disk
from device_agent.update.journal import frame, read_frames
from edgefleet.errors import ArtifactError, StorageError
from edgefleet.messages import MAX_MESSAGE_BYTES, Acked, Telemetry, TelemetryKind, encode

WINDOW_RECORDS: Final = 20
HEADROOM_BYTES: Final = 1024
MAX_BODY_BYTES: Final = MAX_MESSAGE_BYTES - HEADROOM_BYTES
SEGMENTS_PER_LIMIT: Final = 16
MAX_SEGMENT_BYTES: Final = 1_048_576
SPOOL_VERSION: Final = 1


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """A record as it stands on the disk."""

    version: int
    boot: int
    seq: int
    kind: TelemetryKind
    project: str
    model_digest: str
    start_at: int
    end_at: int
    body: bytes


@dataclass(frozen=True)
class _Entry:
    segment: int
    offset: int
    size_bytes: int


class Spool:
    """Telemetry records on disk, in the order they were made.

    Args:
        folder: Folder for the segments; made when missing.
        boot: Random number of this start of the agent.
        limit_bytes: Bytes on disk at most.
        disk: Where all writing goes through.

    Attributes:
        dropped: Records that were lost because the spool or the disk was full, or because they were damaged on disk; those of earlier
            starts that made room are in it.
    """

    def __init__(self, folder: Path, boot: int, limit_bytes: int, disk: Disk) -> None:
        self._folder, self._boot, self._limit, self._disk = folder, boot, limit_bytes, disk
        self._segment_limit = min(MAX_SEGMENT_BYTES, max(limit_bytes // SEGMENTS_PER_LIMIT, 1))
        self._lock = threading.RLock()
        self._entries: dict[tuple[int, int], _Entry] = {}
        self._sizes: dict[int, int] = {}
        self._live: dict[int, int] = {}
        self._sent: set[tuple[int, int]] = set()
        self._seq, self._dirty, self._torn = 0, False, False
        self.dropped = 0
        self._disk.make_folder(self._folder)
        self.dropped, going = drops.noted(self._folder)
        with contextlib.suppress(StorageError):
            self._disk.unlink(self._path(going))  # killed between the note and the removal
        self._load()
        # Another start never continues a segment: its tail may be torn.
        self._current = max(*self._sizes, going, 0) + 1

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest record of this start, 0 before the first."""
        with self._lock:
            return self._seq

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments on disk."""
        with self._lock:
            return sum(self._sizes.values())

    def put(self, kind: TelemetryKind, project: str, model_digest: str, start_at: int, end_at: int, body: bytes) -> int:
        """Store one record, as `offer`; one that the disk refuses is lost, and counted as dropped."""
        try:
            return self.offer(kind, project, model_digest, start_at, end_at, body)
        except StorageError:
            with self._lock:
                self.dropped += 1
            raise

    def offer(self, kind: TelemetryKind, project: str, model_digest: str, start_at: int, end_at: int, body: bytes) -> int:
        """Store one record, or leave it to the caller to try again.

        Args:
            kind: Which body it is.
            project: Project it speaks of.
            model_digest: Model it speaks of, "" for none.
            start_at: First time it covers, microseconds UTC.
            end_at: Last time it covers.
            body: Encoded body.

        Returns:
            Its sequence number.

        Raises:
            ArtifactError: The message would be larger than a broker accepts; it would block everything behind it.
            StorageError: The disk refused; nothing was stored.
        """
        if len(body) > MAX_BODY_BYTES:
            with self._lock:
                self.dropped += 1
            raise ArtifactError(f"{kind} record: {len(body)} bytes exceed the limit of {MAX_BODY_BYTES}; it was dropped and counted")
        with self._lock:
            seq = self._seq + 1
            stored = Stored(SPOOL_VERSION, self._boot, seq, kind, project, model_digest, start_at, end_at, body)
            content = frame(msgspec.msgpack.encode(stored))
            self._append((self._boot, seq), content)
            self._seq = seq
            return seq

    def holds(self, wanted: Callable[[Stored], bool]) -> bool:
        """Whether a record is there that `wanted` says yes to; reads all of them from the disk, so it is for the start only."""
        with self._lock:
            return any(stored is not None and wanted(stored) for stored in map(self._read, self._entries.values()))

    def sync(self) -> None:
        """Make everything survive a power cut; cheap when nothing is new."""
        with self._lock:
            if self._dirty and self._path(self._current).exists():
                self._disk.fsync(self._path(self._current))
                self._disk.fsync_dir(self._folder)
            self._dirty = False

    def to_send(self) -> list[tuple[tuple[int, int], bytes]]:
        """Oldest records that are not under way, so many that at most 20 are outstanding: (boot, seq) and the encoded message."""
        with self._lock:
            room = WINDOW_RECORDS - len(self._sent)
            wanted: list[tuple[int, int]] = []
            for key in self._entries:
                if len(wanted) >= room:
                    break
                if key not in self._sent:
                    wanted.append(key)
            return [(key, message) for key in wanted if (message := self._message(key)) is not None]

    def mark_sent(self, key: tuple[int, int]) -> None:
        """A record was given to the network; it counts as outstanding until it is acknowledged or `resend` is called."""
        with self._lock:
            if key in self._entries:
                self._sent.add(key)

    def resend(self) -> None:
        """Forget what was sent: after a reconnect, or when no acknowledgement came for long. The server removes doubles."""
        with self._lock:
            self._sent.clear()

    def acknowledge(self, acked: Acked) -> int:
        """Free what the server has stored; returns how many records went."""
        stored = dict(acked.stored)
        with self._lock:
            gone = [key for key in self._entries if key[1] <= stored.get(key[0], 0)]
            for key in gone:
                self._forget(key)
            self._remove_empty()
            return len(gone)

    @property
    def outstanding(self) -> int:
        """Records that were sent and are not acknowledged."""
        with self._lock:
            return len(self._sent)

    def _append(self, key: tuple[int, int], content: bytes) -> None:
        if self._torn or (self._sizes.get(self._current, 0) + len(content) > self._segment_limit and self._sizes.get(self._current, 0)):
            self.sync()
            self._current += 1
            self._torn = False
        self._make_room(len(content))
        offset = self._sizes.get(self._current, 0)
        try:
            self._disk.append(self._path(self._current), content, durable=False)
        except StorageError:
            # A part of the record may stand at the end; the next record begins a new segment.
            self._torn = True
            raise
        self._sizes[self._current] = offset + len(content)
        self._live[self._current] = self._live.get(self._current, 0) + 1
        self._entries[key] = _Entry(self._current, offset, len(content))
        self._dirty = True

    def _make_room(self, size_bytes: int) -> None:
        while self._sizes and sum(self._sizes.values()) + size_bytes > self._limit:
            oldest = min(self._sizes)
            lost = [key for key, entry in self._entries.items() if entry.segment == oldest]
            for key in lost:
                self._forget(key)
            self.dropped += len(lost)
            drops.note(self._disk, self._folder, self.dropped, oldest)
            self._remove_segment(oldest)
            if oldest == self._current:
                self._current += 1

    def _forget(self, key: tuple[int, int]) -> None:
        entry = self._entries.pop(key)
        self._sent.discard(key)
        self._live[entry.segment] -= 1

    def _remove_empty(self) -> None:
        for segment in [s for s, live in self._live.items() if live == 0]:
            self._remove_segment(segment)
            if segment == self._current:
                self._current += 1

    def _remove_segment(self, segment: int) -> None:
        with contextlib.suppress(StorageError):  # a file that cannot be removed is found again at the next start
            self._disk.unlink(self._path(segment))
        self._sizes.pop(segment, None)
        self._live.pop(segment, None)

    def _message(self, key: tuple[int, int]) -> bytes | None:
        stored = self._read(self._entries[key])
        if stored is None:
            self._forget(key)
            self.dropped += 1
            return None
        oldest = next(seq for boot, seq in self._entries if boot == key[0])  # records of one boot stand in order
        return encode(
            Telemetry(
                boot=stored.boot,
                seq=stored.seq,
                oldest_seq=oldest,
                kind=stored.kind,
                project=stored.project,
                model_digest=stored.model_digest,
                start_at=stored.start_at,
                end_at=stored.end_at,
                body=stored.body,
            )
        )

    def _read(self, entry: _Entry) -> Stored | None:
        try:
            with self._path(entry.segment).open("rb") as stream:
                stream.seek(entry.offset)
                frames, _ = read_frames(stream.read(entry.size_bytes), MAX_MESSAGE_BYTES)
        except OSError:
            return None
        return _decode(frames[0][1]) if frames else None

    def _load(self) -> None:
        for segment, path in _segments(self._folder):
            with path.open("rb") as stream:
                content = stream.read(MAX_SEGMENT_BYTES + MAX_MESSAGE_BYTES)
            frames, good = read_frames(content, MAX_MESSAGE_BYTES)
            self._sizes[segment], self._live[segment] = good, 0
            for start, payload in frames:
                stored = _decode(payload)
                if stored is None:
                    self.dropped += 1
                    continue
                self._entries[(stored.boot, stored.seq)] = _Entry(segment, start - 8, len(payload) + 8)
                self._live[segment] += 1
        self._current = 0
        self._remove_empty()

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:012d}.seg"


def _segments(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in sorted(folder.glob("*.seg")):
        if path.stem.isdigit():
            yield int(path.stem), path


def _decode(payload: bytes) -> Stored | None:
    try:
        stored = msgspec.msgpack.decode(payload, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return stored if stored.version == SPOOL_VERSION else None
