"""CSV and NDJSON as sources. One bad line is one refused row, and the next line is read as if nothing had happened."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from device_agent.doors.batch.columns import Columns, check_header, seconds_of
from device_agent.doors.batch.lines import BoundedLines, Line
from device_agent.doors.batch.rows import MAX_CHUNK_TEXT_BYTES, Chunk, Position
from device_agent.doors.stream import ParsedRow, parse_line
from edgefleet.errors import InputError, RowRejected
from edgefleet.manifest import Input

_BOM: Final = b"\xef\xbb\xbf"
# A record may go over several lines, where a field in quotes has line breaks.
MAX_RECORD_BYTES: Final = 65_536
_UTF8: Final = "UTF-8 text"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How an input is read.

    Attributes:
        inputs: The manifest's inputs.
        group: Name of the column that says what a row belongs to.
        time: Name of the column that says when it was measured.
        missing: Texts that stand for a missing value in CSV, beside the empty one.
        delimiter: Of CSV.
        header: Whether the first line of a CSV names the columns; else they are the inputs, in the manifest's order.
    """

    inputs: list[Input]
    group: str | None = None
    time: str | None = None
    missing: tuple[str, ...] = ()
    delimiter: str = ","
    header: bool = True


class TextSource:
    """What CSV and NDJSON share: from lines to chunks. A chunk of one row is given out as soon as its line is there.

    Args:
        stream: The input, at its beginning.
        reading: How it is read.
        rows_per_chunk: Rows of a chunk.
        size: Bytes of a file, None for a pipe.
        start: Where to begin; everything before is read over.

    Raises:
        InputError: The input is shorter than the start, or has no usable header.
    """

    def __init__(self, stream: BinaryIO, reading: Reading, rows_per_chunk: int, size: int | None, start: Position) -> None:
        self.size, self._reading, self._per_chunk, self._start = size, reading, rows_per_chunk, start
        self._stream, self._lines = stream, BoundedLines(stream)
        self._begin()
        if start.rows:
            self._lines.skip_to(start.offset, start.lines)
        self._fingerprint = self._lines.sha256()

    def chunks(self) -> Iterator[Chunk]:
        """Its rows, in chunks."""
        done, chunk = self._start.rows, self._empty(self._start.rows)
        begun_at = self._lines.offset
        while (line := self._lines.take()) is not None:
            if isinstance(line.content, bytes) and not line.content.strip():
                continue
            self._add(line, chunk)
            if len(chunk.rows) == self._per_chunk or self._lines.offset - begun_at >= MAX_CHUNK_TEXT_BYTES:
                done += len(chunk.rows)
                yield self._ended(chunk, done)
                chunk, begun_at = self._empty(done), self._lines.offset
        if len(chunk.rows):
            yield self._ended(chunk, done + len(chunk.rows))

    def fingerprint(self) -> str | None:
        """Sha256 of the bytes before the last chunk's end."""
        return self._fingerprint

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _begin(self) -> None:
        """Read what comes before the first row."""

    def _ended(self, chunk: Chunk, done: int) -> Chunk:
        chunk.end = Position(offset=self._lines.offset, rows=done, lines=self._lines.lines)
        self._fingerprint = self._lines.sha256()
        return chunk

    def _empty(self, done: int) -> Chunk:
        return Chunk(done + 1, [], Position())

    def _add(self, line: Line, chunk: Chunk) -> None:
        row, group, time = self._parse(line)
        chunk.rows.append(row)  # type: ignore[union-attr]  # ours are lists
        chunk.lines.append(line.number)
        if self._reading.group is not None:
            chunk.groups.append(group)
        if self._reading.time is not None:
            chunk.times.append(time)

    def _parse(self, line: Line) -> tuple[Any, str, float]:
        """Row, group and time of a line (and of those after it that belong to it); of a line that is no row its refusal.

        The group of a refused row is told where the line tells it, because the windows of that group end there.
        """
        raise NotImplementedError


class NdjsonSource(TextSource):
    """One JSON array or object a line, without header."""

    def _parse(self, line: Line) -> tuple[Any, str, float]:
        group, time = "", 0.0
        try:
            row = self._row(line)
            if self._reading.group is not None:
                group = str(_taken(row, self._reading.group))[:120]
            if self._reading.time is not None:
                time = seconds_of(_taken(row, self._reading.time), self._reading.time)
        except RowRejected as err:
            return err.kept(), group, time
        return row, group, time

    def _row(self, line: Line) -> ParsedRow:
        if isinstance(line.content, RowRejected):
            raise line.content
        content = line.content.removeprefix(_BOM) if line.number == 1 else line.content
        try:
            content.decode()
        except UnicodeDecodeError as err:
            raise _no_text(err) from err
        return parse_line(content.rstrip(b"\r\n"))


class CsvSource(TextSource):
    """Lines of cells under a header.

    Attributes:
        columns: Which columns are which inputs.
    """

    columns: Columns

    def _begin(self) -> None:
        reading = self._reading
        names = [column.name for column in reading.inputs]
        if reading.header:
            first = self._lines.take()
            while first is not None and isinstance(first.content, bytes) and not first.content.removeprefix(_BOM).strip():
                first = self._lines.take()
            if first is None:
                raise InputError("the input is empty; expected a line with the names of the inputs, then rows")
            try:
                names = [name.strip() for name in self._cells(first)]
            except RowRejected as err:
                raise InputError(f"the header (line {first.number}) cannot be read: {err}") from err
            check_header(names, reading.inputs)
        else:
            names += [name for name in (reading.group, reading.time) if name is not None]
        self.columns = Columns(names, reading.inputs, reading.group, reading.time, reading.missing)

    def _parse(self, line: Line) -> tuple[Any, str, float]:
        group = ""
        try:
            cells = self._cells(line)
            self.columns.check_count(cells)
            group = self.columns.group(cells)
            return self.columns.row(cells), group, self.columns.time(cells)
        except RowRejected as err:
            return err.kept(), group, 0.0

    def _cells(self, line: Line) -> list[str]:
        text = self._text(line)
        if '"' not in text:
            return text.rstrip("\r\n").split(self._reading.delimiter)
        taken = [line]
        try:
            while (cells := self._quoted(text)) is None:
                text += self._until_quote(taken, len(text))
            if len(taken) > 1 and hasattr(self, "columns"):
                self.columns.row(cells)
        except RowRejected as err:
            # The first line alone is refused: what a stray quote swallowed are rows of their own.
            self._lines.put_back(taken[1:])
            raise RowRejected(err.feature, err.value, f"{err.limit} (line {line.number})", err.reason) from err
        return cells

    def _quoted(self, text: str) -> list[str] | None:
        """Cells of a record with quotes, None while one is open."""
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=self._reading.delimiter, strict=True))
        except csv.Error as err:
            if "unexpected end" in str(err):
                return None
            raise RowRejected(None, str(err), "fields whose quotes are closed, with quotes inside doubled", "type") from err

    def _until_quote(self, taken: list[Line], characters: int) -> str:
        """Text of the lines up to the next one with a quote; before that none can be closed."""
        parts: list[str] = []
        while not parts or '"' not in parts[-1]:
            more = self._lines.take()
            if more is not None:
                taken.append(more)
                parts.append(self._text(more))
                characters += len(parts[-1])
            if more is None or characters > MAX_RECORD_BYTES:
                raise RowRejected(None, "a quote that is not closed", f"a closing quote within {MAX_RECORD_BYTES} characters", "type")
        return "".join(parts)

    def _text(self, line: Line) -> str:
        if isinstance(line.content, RowRejected):
            raise line.content
        content = line.content.removeprefix(_BOM) if line.number == 1 else line.content
        try:
            return content.decode()
        except UnicodeDecodeError as err:
            raise _no_text(err) from err


def _taken(row: ParsedRow, name: str) -> object:
    """The value of a name, which is no input, out of a row."""
    if not isinstance(row, dict) or name not in row:
        raise RowRejected(name, "nothing", f"a JSON object that has {name!r}", "missing")
    return row.pop(name)


def _no_text(err: UnicodeDecodeError) -> RowRejected:
    return RowRejected(None, f"byte 0x{err.object[err.start]:02x} at place {err.start + 1} of the line", _UTF8, "type")
