"""The journal: what the agent decided, written and synced before it acts.

Record: `u32 length | u32 crc32 | payload`, little endian, payload JSON. Reading stops at the first bad length or checksum; the tail
behind it is cut away and counted. At 256 KiB the records are replaced by one that the caller makes of the present state.
An append costs one fdatasync.
"""

import contextlib
import json
import logging
import struct
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import msgspec

from device_agent.update.disk import Disk
from device_agent.update.plan import Progress
from edgefleet.errors import StorageError

LOG = logging.getLogger(__name__)

COMPACT_BYTES: Final = 262_144
MAX_RECORD_BYTES: Final = 65_536
MAX_JOURNAL_BYTES: Final = 16 * 1024 * 1024
HEAD: Final = struct.Struct("<II")


def frame(payload: bytes) -> bytes:
    """Length, checksum and payload as one record."""
    return HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read_frames(content: bytes, limit_bytes: int = MAX_RECORD_BYTES) -> tuple[list[tuple[int, bytes]], int]:
    """Records from the start of a log up to the first bad one.

    Args:
        content: Bytes of the log.
        limit_bytes: Longest record that can be real; zeros and noise beyond it end the log.

    Returns:
        (offset of the payload, payload) of each good record, and the length of the good part.
    """
    found: list[tuple[int, bytes]] = []
    position = 0
    while position + HEAD.size <= len(content):
        length, checksum = HEAD.unpack_from(content, position)
        start, end = position + HEAD.size, position + HEAD.size + length
        if not 0 < length <= limit_bytes or end > len(content) or zlib.crc32(content[start:end]) != checksum:
            break
        found.append((start, content[start:end]))
        position = end
    return found, position


class Journal:
    """An append-only log of JSON records.

    Attributes:
        records: What was in the file when it was opened.
        torn_tails: How many damaged tails were cut away (0 or 1).
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk
        self.records: list[dict[str, Any]] = []
        self.torn_tails = 0
        self._torn_at: int | None = None
        content = self._content()
        frames, good = read_frames(content)
        self.size_bytes = good
        for _, payload in frames:
            self.records.append(json.loads(payload))
        if good < len(content):
            self.torn_tails, self._torn_at = 1, good
            # A read-only disk must not keep the agent from scoring; the cut is made up for before the next append.
            with contextlib.suppress(StorageError):
                self._cut()

    def note(self, event: str, progress: Progress) -> None:
        """Keep what has happened and where the update stands now; the counterpart of `last_progress`.

        Raises:
            StorageError: As `append`.
        """
        record = {"event": event, "at": time.time_ns() // 1000, "progress": asdict(progress)}
        if not self.compact(record):
            self.append(record)

    def append(self, record: dict[str, Any]) -> None:
        """Write and sync one record; when this returns it survives a power cut.

        Raises:
            StorageError: Nothing of it counts as written; the caller must not act.
        """
        self._cut()
        content = frame(json.dumps(record, separators=(",", ":")).encode())
        if len(content) > MAX_RECORD_BYTES:
            raise StorageError(f"{self._path}: a record of {len(content)} bytes exceeds the limit of {MAX_RECORD_BYTES}")
        try:
            self._disk.append(self._path, content, durable=True)
            if self.size_bytes == 0:
                self._disk.fsync_dir(self._path.parent)
        except StorageError:
            # A part of the record may stand in the file; it must be gone before the next one is appended behind it.
            self._torn_at = self.size_bytes
            raise
        self.size_bytes += len(content)

    def compact(self, snapshot: dict[str, Any]) -> bool:
        """Replace the log by one record when it has grown; returns whether it did."""
        if self.size_bytes < COMPACT_BYTES:
            return False
        content = frame(json.dumps(snapshot, separators=(",", ":")).encode())
        self._disk.replace(self._path, content)
        self.size_bytes, self._torn_at = len(content), None
        return True

    def _cut(self) -> None:
        if self._torn_at is not None and self._path.exists():
            self._disk.truncate(self._path, self._torn_at)
        self._torn_at = None

    def _content(self) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as stream:
            return stream.read(MAX_JOURNAL_BYTES)


def last_progress(records: list[dict[str, Any]]) -> Progress:
    """Where the update stands by the newest record that can be read."""
    for record in reversed(records):
        try:
            return msgspec.convert(record.get("progress"), Progress)
        except msgspec.ValidationError as err:
            LOG.warning("a journal record of another version is skipped: %s", str(err)[:120])
    return Progress()
