"""Lines of a binary stream, bounded in length, with their places and a running hash of what was taken."""

import hashlib
from collections import deque
from typing import BinaryIO, Final

from device_agent.doors.stream import MAX_LINE_BYTES
from edgefleet.errors import InputError, RowRejected

_SKIP_BYTES: Final = 262_144


class Line:
    """One line with its end, or the refusal of one that is too long."""

    __slots__ = ("content", "number", "size_bytes")

    def __init__(self, content: bytes | RowRejected, size_bytes: int, number: int) -> None:
        self.content, self.size_bytes, self.number = content, size_bytes, number


class BoundedLines:
    """Reads lines; what was read but not used can be put back.

    Args:
        stream: Where they come from; a pipe is read no further than its next line's end.

    Attributes:
        offset: Bytes that were taken and not put back.
        lines: Lines likewise.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._waiting = stream, deque[Line]()
        self._hash = hashlib.sha256()
        self.offset = self.lines = 0

    def take(self) -> Line | None:
        """The next line, None at the end."""
        line = self._waiting.popleft() if self._waiting else self._read()
        if line is not None:
            self.offset += line.size_bytes
            self.lines += 1
        return line

    def put_back(self, lines: list[Line]) -> None:
        """Give back the last lines that were taken, oldest first."""
        self._waiting.extendleft(reversed(lines))
        self.offset -= sum(line.size_bytes for line in lines)
        self.lines -= len(lines)

    def skip_to(self, offset: int, lines: int) -> None:
        """Go to a place that an earlier run wrote down, reading (and hashing) all that is before it.

        Raises:
            InputError: The input is shorter.
        """
        left = offset - self.offset
        while left > 0:
            content = self._stream.read(min(left, _SKIP_BYTES))
            if not content:
                raise InputError(f"the input ends {left} bytes before byte {offset}, up to which it was scored; it was changed")
            self._hash.update(content)
            left -= len(content)
        self.offset, self.lines = offset, lines

    def sha256(self) -> str | None:
        """Of all bytes up to `offset`; None while lines wait that were put back, for they are hashed already."""
        return None if self._waiting else self._hash.hexdigest()

    def _read(self) -> Line | None:
        content = self._stream.readline(MAX_LINE_BYTES + 2)
        if not content:
            return None
        self._hash.update(content)
        number = self.lines + 1
        if len(content) <= MAX_LINE_BYTES + 1 and (content.endswith(b"\n") or len(content) <= MAX_LINE_BYTES):
            return Line(content, len(content), number)
        size = len(content)
        while not content.endswith(b"\n") and (content := self._stream.readline(_SKIP_BYTES)):
            self._hash.update(content)
            size += len(content)
        refusal = RowRejected(None, f"a line of {size} bytes", f"at most {MAX_LINE_BYTES} bytes", "count")
        return Line(refusal, size, number)
