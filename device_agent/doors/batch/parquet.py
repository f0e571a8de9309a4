"""Parquet as a source, where pyarrow is installed. Only the columns that the model needs are read, batch by batch."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_agent.doors.batch.columns import Columns, seconds_of
from device_agent.doors.batch.rows import Chunk, Position
from device_agent.doors.batch.text import Reading
from edgefleet.digests import sha256_file
from edgefleet.errors import InputError, MissingPartError, RowRejected

if TYPE_CHECKING:
    import pyarrow


def pyarrow_modules() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet).

    Raises:
        MissingPartError: Not installed.
    """
    # The system's allocator gives back what is free: 20 MB less than Arrow's own. Arrow asks for it once, when it is loaded.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as err:
        raise MissingPartError(
            "Parquet needs pyarrow, which is not installed: pip install 'edgefleet[parquet]'; CSV and NDJSON do not"
        ) from err
    return pyarrow, pyarrow.parquet


class ParquetSource:
    """Rows of a Parquet file.

    Args:
        path: The file.
        reading: How it is read; names only, the types are the file's.
        rows_per_chunk: Rows of a chunk.
        start: Where to begin.

    Attributes:
        size: Rows of the file.
        columns: Which columns are which inputs.

    Raises:
        InputError: No Parquet file, a column is missing, or the file has fewer rows than the start says.
        MissingPartError: pyarrow is not installed.
    """

    def __init__(self, path: Path, reading: Reading, rows_per_chunk: int, start: Position) -> None:
        self._arrow, parquet = pyarrow_modules()
        self._path, self._reading, self._per_chunk, self._start = path, reading, rows_per_chunk, start
        try:
            self._file = parquet.ParquetFile(path, pre_buffer=False)
        except (OSError, self._arrow.ArrowException) as err:
            raise InputError(f"{path}: is no Parquet file that can be read: {str(err)[:200]}") from err
        self.columns = Columns(self._file.schema_arrow.names, reading.inputs, reading.group, reading.time)
        self._check_types()
        self.size: int | None = self._file.metadata.num_rows
        if start.rows > self._file.metadata.num_rows:
            raise InputError(f"{path}: has {self.size} rows, {start.rows} were scored already; it was changed")
        self._sha256 = ""

    def chunks(self) -> Iterator[Chunk]:
        """Its rows, in chunks."""
        done, waiting = self._start.rows, list[Any]()
        count = 0
        for batch in self._batches():
            at = 0
            while at < len(batch):
                piece = batch[at : at + self._per_chunk - count]
                waiting.append(piece)
                count, at = count + len(piece), at + len(piece)
                if count == self._per_chunk:
                    yield self._chunk(waiting, done)
                    done, count, waiting = done + count, 0, []
        if count:
            yield self._chunk(waiting, done)

    def fingerprint(self) -> str | None:
        """Sha256 of the whole file."""
        if not self._sha256:
            self._sha256 = sha256_file(self._path)
        return self._sha256

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_types(self) -> None:
        types, schema = self._arrow.types, self._file.schema_arrow
        for column in self._reading.inputs:
            kind = schema.field(column.name).type
            plain = kind.value_type if types.is_dictionary(kind) else kind
            number = types.is_integer(plain) or types.is_floating(plain) or types.is_boolean(plain) or types.is_decimal(plain)
            text = types.is_string(plain) or types.is_large_string(plain)
            if not (number or types.is_null(plain) or (text and column.kind == "category")):
                raise InputError(f"{self._path}: column {column.name!r} is {kind}; expected {column.kind}s")

    def _batches(self) -> Iterator["pyarrow.RecordBatch"]:
        """Record batches from the start on, reading no row group that is before it."""
        groups, before = self._file.metadata, 0
        first = 0
        while first < groups.num_row_groups and before + groups.row_group(first).num_rows <= self._start.rows:
            before += groups.row_group(first).num_rows
            first += 1
        skip = self._start.rows - before
        wanted = list(range(first, groups.num_row_groups))
        try:
            for batch in self._file.iter_batches(batch_size=self._per_chunk, row_groups=wanted, columns=self.columns.used):
                if skip:
                    left = batch[skip:]
                    skip -= len(batch) - len(left)
                    yield left
                else:
                    yield batch
        except (OSError, self._arrow.ArrowException) as err:
            raise InputError(f"{self._path}: is damaged: {str(err)[:200]}") from err

    def _chunk(self, pieces: list[Any], done: int) -> Chunk:
        table = self._arrow.Table.from_batches(pieces)
        chunk = Chunk(done + 1, self._rows(table), Position(offset=done + len(table), rows=done + len(table)))
        reading = self._reading
        if reading.group is not None:
            chunk.groups = [str(value)[:120] for value in table.column(reading.group).to_pylist()]
        if reading.time is not None:
            chunk.rows = list(chunk.rows)
            chunk.times = [0.0] * len(table)
            for i, value in enumerate(table.column(reading.time).to_pylist()):
                try:
                    chunk.times[i] = seconds_of(value, reading.time)
                except RowRejected as err:
                    chunk.rows[i] = err
        return chunk

    def _rows(self, table: Any) -> list[Any] | NDArray[Any]:
        types, columns = self._arrow.types, []
        for column in self._reading.inputs:
            values = table.column(column.name)
            kind = values.type.value_type if types.is_dictionary(values.type) else values.type
            if types.is_string(kind) or types.is_large_string(kind):
                columns.append(values.to_pylist())
            else:
                cast = values.cast(kind).cast(self._arrow.float64()) if not types.is_boolean(kind) else values.cast(self._arrow.int8())
                columns.append(cast.to_numpy().astype(np.float64))
        if all(isinstance(values, np.ndarray) for values in columns):
            return np.stack(columns, axis=1)
        return [list(row) for row in zip(*(list(values) for values in columns), strict=True)]
