"""The sensor door: follows a file to which somebody else appends one JSON row per line.

Starts at the end unless told otherwise; a file that was truncated or replaced is read from its start; a line waits for its newline.
Bounds: 64 KiB per look, 1 MB per line. When idle a look costs one `stat`.
"""

import os
from pathlib import Path
from typing import Any, BinaryIO, Final

from device_agent.doors.unique_names import NamedTwice, read_json
from edgefleet.errors import RowRejected

READ_BYTES: Final = 65_536
MAX_LINE_BYTES: Final = 1_000_000
POLL_S: Final = 0.03

ParsedRow = list[Any] | dict[str, Any]


def parse_line(line: bytes) -> ParsedRow:
    """One row of NDJSON: an array of values or an object by input name.

    Raises:
        RowRejected: Too long, not JSON, another kind of value, or an input that is named twice.
    """
    if len(line) > MAX_LINE_BYTES:
        raise RowRejected(None, f"a line of {len(line)} bytes", f"at most {MAX_LINE_BYTES} bytes", "count")
    try:
        value = read_json(line)
    except NamedTwice as err:
        raise RowRejected(err.name, "two values", "one value for each name", "count") from err
    except (ValueError, RecursionError) as err:
        raise RowRejected(None, line[:60].decode(errors="replace"), "a JSON array or object per line", "type") from err
    if not isinstance(value, list | dict):
        raise RowRejected(None, value, "a JSON array or object per line", "type")
    return value


class SensorFile:
    """A followed file.

    Args:
        path: The file; it may come into being later, and is then read from its start.
        from_start: Also read what is in it already.

    Attributes:
        rejected_lines: Lines that were no row.
        restarts: How often the file was found truncated or replaced.
    """

    def __init__(self, path: Path, from_start: bool = False) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._inode, self._offset, self._rest, self._skipping = 0, 0, b"", False
        self.rejected_lines = self.restarts = 0
        if not from_start and self._open():
            self._offset = self._path.stat().st_size

    def poll(self) -> list[ParsedRow]:
        """Rows that are complete since the last look; empty when nothing new is there."""
        try:
            now = self._path.stat()
        except OSError:
            return self._drain()  # rotated away: the rest of the old file still counts
        if self._stream is None:
            self._open()
        elif now.st_ino != self._inode:
            rows = self._drain()
            if rows:
                return rows
            self.restarts += 1
            self._open()
        elif now.st_size < self._offset:
            self.restarts += 1
            self._open()
        elif now.st_size == self._offset:
            return []
        return self._drain()

    def close(self) -> None:
        """Stop following."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self) -> bool:
        self.close()
        self._offset, self._rest, self._skipping = 0, b"", False
        try:
            self._stream = self._path.open("rb", buffering=0)
        except OSError:
            return False
        self._inode = os.fstat(self._stream.fileno()).st_ino
        return True

    def _drain(self) -> list[ParsedRow]:
        if self._stream is None:
            return []
        self._stream.seek(self._offset)
        content = self._stream.read(READ_BYTES)
        self._offset += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        rows: list[ParsedRow] = []
        for line in lines:
            if self._skipping:
                self._skipping = False  # the end of a line that was given up
                continue
            if line.strip():
                self._take(line, rows)
        if len(self._rest) > MAX_LINE_BYTES:
            self.rejected_lines += not self._skipping
            self._rest, self._skipping = b"", True
        return rows

    def _take(self, line: bytes, rows: list[ParsedRow]) -> None:
        try:
            rows.append(parse_line(line))
        except RowRejected:
            self.rejected_lines += 1
