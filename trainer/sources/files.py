"""CSV and Parquet files, read by columns. A million rows of twenty numbers need about 0.5 GB at most."""

import csv
import gzip
import re
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from edgefleet.errors import ConfigError, InputError, MissingPartError
from trainer.sources.columns import Columns

if TYPE_CHECKING:
    import pandas

PARQUET: Final = (".parquet", ".pq")
ROWS_AT_A_TIME: Final = 100_000
MAX_COLUMNS: Final = 100_000
_UTF8_REMEDY: Final = "save it as UTF-8, for example with: iconv -f latin1 -t utf-8"


def read_file(path: Path, columns: Columns | None = None, missing_values: list[str] | None = None) -> "pandas.DataFrame":
    """A CSV file (comma, semicolon or tab; may be gzipped) or a Parquet file.

    Numbers are float64 or integers, where every cell of a block of rows is one; texts otherwise. Columns that the file lacks are left out.

    Args:
        path: The file; its ending tells the format.
        columns: What to read; None: everything, by its look.
        missing_values: CSV only: texts that stand for a missing value, beside the empty one.

    Raises:
        ConfigError: It cannot be opened or is not of the format.
        InputError: No header, a header twice, a ragged row, or text that is no UTF-8; names the line.
        MissingPartError: Parquet without pyarrow.
    """
    columns = columns or Columns(text=frozenset())
    try:
        if path.name.endswith(PARQUET):
            return _read_parquet(path, columns)
        return _read_csv(path, columns, missing_values or [])
    except OSError as err:
        raise ConfigError(f"data.source: {path} cannot be read: {err.strerror or err}; name a CSV or Parquet file") from err


def _read_parquet(path: Path, columns: Columns) -> "pandas.DataFrame":
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as err:
        raise MissingPartError(f"data.source: {path} needs pyarrow, which is not installed: pip install 'edgefleet[parquet]'") from err
    try:
        names = pyarrow.parquet.read_schema(path).names
        _check_header(path, names)
        wanted = names if columns.wanted is None else [name for name in columns.wanted if name in names]
        read = pyarrow.parquet.read_table(path, columns=wanted)
        # One column at a time is freed while it is converted, so that the table is not held twice.
        table: pandas.DataFrame = read.to_pandas(split_blocks=True, self_destruct=True, date_as_object=False, ignore_metadata=True)
    except pyarrow.ArrowException as err:
        raise ConfigError(f"data.source: {path} is no readable Parquet file: {str(err)[:200]}") from err
    return table


def _read_csv(path: Path, columns: Columns, missing_values: list[str]) -> "pandas.DataFrame":
    import pandas

    try:
        header, delimiter = _read_header(path)
        wanted = header if columns.wanted is None else [name for name in columns.wanted if name in header]
        text = dict.fromkeys(header if columns.text is None else [name for name in header if name in columns.text], str)
        blocks = []
        even = False  # the first suspicion reads the whole file: once is enough
        with pandas.read_csv(
            path,
            sep=delimiter,
            dtype=text,
            keep_default_na=False,
            na_values=["", *missing_values],
            skipinitialspace=True,
            low_memory=False,
            chunksize=ROWS_AT_A_TIME,
            encoding="utf-8",
        ) as reader:
            for block in reader:
                if not even and _may_be_ragged(block, header):
                    _check_widths(path, delimiter, len(header))
                    even = True
                blocks.append(block[wanted])
    except UnicodeDecodeError as err:
        raise InputError(f"data.source: {path}, {_undecodable_line(path)}; {_UTF8_REMEDY}") from err
    except pandas.errors.ParserError as err:
        raise InputError(f"data.source: {_ragged_line(path, delimiter, len(header)) or f'{path}: {str(err).strip()}'}") from err
    except (gzip.BadGzipFile, EOFError, zlib.error, csv.Error, ValueError) as err:
        raise ConfigError(f"data.source: {path} cannot be read as CSV: {str(err)[:200]}") from err
    return _join(blocks) if blocks else pandas.DataFrame(columns=wanted)


def _join(blocks: "list[pandas.DataFrame]") -> "pandas.DataFrame":
    """One table; a column that is text in any block is text in all, as a whole file of it would be."""
    import pandas

    if len(blocks) == 1:
        return blocks[0]
    joined: dict[str, Any] = {}
    for name in blocks[0].columns:
        # Taken out of its block, so that a column is held twice but never the table.
        parts = [block.pop(name) for block in blocks]
        kinds = {part.dtype.kind in "iuf" for part in parts}
        if len(kinds) == 2:
            parts = [part.astype(object) for part in parts]
        joined[name] = pandas.concat(parts, ignore_index=True)
    return pandas.DataFrame(joined)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path) -> tuple[list[str], str]:
    with _open(path) as stream:
        first = stream.readline(1_000_000)
        if not first.strip():
            raise InputError(f"data.source: {path} is empty; its first line must name the columns")
        line = first.decode("utf-8-sig")
    outside = re.sub(r'"[^"]*"', "", line)  # a quoted name may hold any of them
    delimiter = max((",", ";", "\t"), key=outside.count)  # the first of equals
    header = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    _check_header(path, header)
    return header, delimiter


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise InputError(f"data.source: {path} has {len(header)} columns, the limit is {MAX_COLUMNS}")
    seen: set[str] = set()
    for at, name in enumerate(header):
        if name in seen:
            raise InputError(f"data.source: {path} names column {name!r} twice (again at place {at + 1} of its header); rename one")
        if not name.strip():
            raise InputError(f"data.source: {path}: place {at + 1} of its header is empty; name the column")
        seen.add(name)


def _may_be_ragged(block: "pandas.DataFrame", header: list[str]) -> bool:
    """Pandas takes a first field too many for an index, and fills missing fields at a line's end without a word."""
    import pandas

    return list(block.columns) != header or not isinstance(block.index, pandas.RangeIndex) or bool(block.iloc[:, -1].isna().any())


def _check_widths(path: Path, delimiter: str, width: int) -> None:
    if (ragged := _ragged_line(path, delimiter, width)) is not None:
        raise InputError(f"data.source: {ragged}")


def _ragged_line(path: Path, delimiter: str, width: int) -> str | None:
    """The first line whose number of fields is not the header's, in words, or None."""
    import io

    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True)
        for fields in reader:
            if fields and len(fields) != width:
                return f"{path}, line {reader.line_num}: {len(fields)} fields, the header has {width}; quote texts that hold {delimiter!r}"
    return None


def _undecodable_line(path: Path) -> str:
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as err:
                return f"line {number}: byte 0x{line[err.start]:02x} at place {err.start + 1} is no UTF-8"
    return "a line is no UTF-8"
