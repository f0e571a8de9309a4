"""Parquet in and out, where pyarrow is installed. Only the columns that the model needs are read, batch by batch.

A Parquet file is one only when its end is written. Answers are therefore kept as parts of 65,536 rows, which a killed run finds again, and
put together at the end, each as one row group: the disk holds them twice for that moment.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.doors.batch.answers import Answers
from device_agent.doors.batch.columns import Columns, seconds_of
from device_agent.doors.batch.render import Columns as OutputColumns
from device_agent.doors.batch.rows import CHUNK_ROWS, Chunk, Position
from device_agent.doors.batch.sinks import partial_of, writing
from device_agent.doors.batch.text import Reading
from edgefleet.digests import sha256_file
from edgefleet.errors import InputError, MissingPartError, RowRejected
from edgefleet.files import sync_folder

if TYPE_CHECKING:
    import pyarrow

PART_ROWS: Final = 64 * CHUNK_ROWS


def pyarrow_modules() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet).

    Raises:
        MissingPartError: Not installed.
    """
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


class ParquetSink:
    """Answers as Parquet.

    Args:
        path: Name of the whole file; until then parts are kept in the folder `path` + ".partial".
        columns: Which columns it has.
        whole: Parts of an earlier run to go on from; others are removed. 0 = start anew.

    Raises:
        InputError: A part of the journal is not there.
        StorageError: The disk refuses.
        MissingPartError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: OutputColumns, whole: int = 0) -> None:
        self._arrow, self._parquet = pyarrow_modules()
        self._path, self._columns, self._folder, self._parts = path, columns, partial_of(path), whole
        self._waiting: list[Any] = []
        self._count = 0
        text, number = self._arrow.string(), self._arrow.float32()
        kinds = {"row": self._arrow.int64(), "at": self._arrow.float64(), "outlier": self._arrow.bool_()}
        kinds |= dict.fromkeys(["score", "margin", *(f"p_{name}" for name in columns.classes)], number)
        self._schema = self._arrow.schema([(name, kinds.get(name, text)) for name in columns.names])
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            _whole_of(path).unlink(missing_ok=True)
            keep = {self._part(k).name for k in range(whole)}
            for found in self._folder.iterdir():
                if found.name not in keep:
                    found.unlink()
        if lost := [name for name in sorted(keep) if not (self._folder / name).exists()]:
            raise InputError(f"{self._folder}: part {lost[0]} is not there, the journal says {whole} parts; start anew without --resume")

    def write(self, answered: Answers) -> None:
        """Add a chunk; a part is written when it is full."""
        self._waiting.append(self._table(answered))
        self._count += len(answered)
        if self._count >= PART_ROWS:
            self._write_part()

    def keep(self) -> int | None:
        """Whole parts, None while rows wait for the next one."""
        return None if self._waiting else self._parts

    def complete(self) -> int | None:
        """Write the last part; all parts."""
        if self._waiting or not self._parts:
            self._write_part()
        return self._parts

    def close(self) -> None:
        """Nothing is open between two parts."""

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.parquet"

    def _write_part(self) -> None:
        table = self._arrow.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        draft = self._folder / "draft"
        with writing(self._folder):
            self._parquet.write_table(table, draft)
            _sync(draft)
            draft.replace(self._part(self._parts))
            sync_folder(self._folder)
        self._waiting, self._count, self._parts = [], 0, self._parts + 1

    def _table(self, answers: Answers) -> Any:
        n, refused = len(answers), answers.refused
        ok = [status == "ok" for status in answers.status]
        values: dict[str, Any] = {
            "row": np.arange(answers.first, answers.first + n),
            "status": answers.status,
            "at": [answers.at.get(i) for i in range(n)],
            "label": answers.label,
            "score": self._arrow.array(answers.score, from_pandas=True),
            "margin": self._arrow.array(answers.margin, from_pandas=True),
            "outlier": answers.outlier,
            "digest": [answers.digest if good else None for good in ok],
            "error": [str(refused[i]) if i in refused else answers.waiting.get(i) for i in range(n)],
            "reason": [refused[i].reason if i in refused else None for i in range(n)],
        }
        for k, name in enumerate(self._columns.classes):
            values[f"p_{name}"] = self._arrow.array(answers.probabilities[:, k], from_pandas=True)
        if self._columns.explained:
            values["explanation"] = [answers.told[i].text if i in answers.told else None for i in range(n)]
        arrays = [self._arrow.array(values[field.name], type=field.type) for field in self._schema]
        return self._arrow.Table.from_arrays(arrays, schema=self._schema)


def place_parquet(path: Path) -> None:
    """Put the parts together under the final name, durably; nothing is left to do when that was done.

    Raises:
        StorageError: The disk refuses.
        InputError: There is neither a part nor the whole.
    """
    folder, whole = partial_of(path), _whole_of(path)
    with writing(path):
        if not whole.exists() and folder.exists():
            _put_together(sorted(folder.glob("*.parquet")), folder / "draft")
            (folder / "draft").replace(whole)
            sync_folder(path.parent)
        # From here on the parts are not needed: whichever of them are left, the whole is there.
        if folder.exists():
            shutil.rmtree(folder)
        if whole.exists():
            whole.replace(path)
            sync_folder(path.parent)
    if not path.exists():
        raise InputError(f"{path}: the answers were removed, only their journal is left; start anew without --resume")


def _put_together(parts: list[Path], draft: Path) -> None:
    _, parquet = pyarrow_modules()
    with parquet.ParquetWriter(draft, parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part), row_group_size=2 * PART_ROWS)
    _sync(draft)


def _whole_of(path: Path) -> Path:
    return path.with_name(path.name + ".whole")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
