"""Where rows come from: a CSV or Parquet file, a database, or a Python function of the user's. All become a pandas table.

Nothing is judged here except that the source can be read at all: a cell that is no number comes out as the text that stood there. Columns
whose meaning is text (categories, classes, names) stay text as written: "01" is not 1. Read `files.py`, `database.py`, `functions.py`.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgefleet.digests import canonical_json, sha256_file, sha256_hex
from edgefleet.errors import InputError
from trainer.project import Project
from trainer.sources.columns import Columns, columns_of
from trainer.sources.database import is_database, read_database
from trainer.sources.files import read_file
from trainer.sources.functions import call_function, function_fingerprint

if TYPE_CHECKING:
    import pandas

__all__ = ["Columns", "columns_of", "content_digest", "read_file", "read_table", "source_fingerprint"]


def read_table(project: Project, extra: Sequence[str] = ()) -> "pandas.DataFrame":
    """The source as a pandas table with at least one row.

    Files give the columns that the project names, functions and queries whatever they return.

    Args:
        project: The settings.
        extra: Further columns wanted of a file.

    Raises:
        ConfigError: The source cannot be found, read or called with its arguments.
        InputError: Its content is damaged, or it has no rows.
        MissingPartError: Reading it needs a library that is not installed.
    """
    source = project.data.source
    columns = columns_of(project, extra)
    if is_database(source):
        table = read_database(project)
    elif ":" in source:
        table = call_function(project)
    else:
        table = read_file(project.folder / source, columns, project.data.missing_values)
    if len(table) == 0:
        raise InputError(f"data.source {source!r} has no rows; name a source with rows")
    return table


def content_digest(table: "pandas.DataFrame") -> str:
    """Sha256 of the names, kinds and cells of a table, in order; equal for equal content, however the table was made."""
    digest = hashlib.sha256(canonical_json([str(name) for name in table.columns]) + str(len(table)).encode())
    for at in range(table.shape[1]):
        column = table.iloc[:, at]
        # Extension types (boolean with gaps) say a number's kind and give objects, whose bytes are addresses.
        if column.dtype.kind in "iufb" and (values := column.to_numpy()).dtype.kind in "iufb":
            digest.update(values.dtype.str.encode() + values.tobytes())
            continue
        missing = column.isna().to_numpy(bool)
        content = "\0".join(column.astype(object).where(~missing, "").astype(str)).encode()
        digest.update(f"text{len(content)}".encode() + missing.tobytes() + content)
    return digest.hexdigest()


def source_fingerprint(project: Project) -> str | None:
    """A cheap name of what the source would give, for the step cache; None: it cannot be known without reading.

    A file is its bytes. A function is the code of its module's folder, its arguments, the bytes of files that its arguments name, and the
    names, sizes and times of change of files in folders that they name; a function that reads anything else must be told so by an
    argument. A database is always read.
    """
    data, source = project.data, project.data.source
    if is_database(source):
        return None
    columns = columns_of(project)
    texts = None if columns.text is None else sorted(columns.text)
    settings = canonical_json([source, data.arguments, data.missing_values, columns.wanted, texts])
    if ":" in source:
        code = function_fingerprint(project)
        return None if code is None else sha256_hex(settings + code.encode())
    path = project.folder / source
    return sha256_hex(settings + sha256_file(path).encode()) if path.is_file() else None
