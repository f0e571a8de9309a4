"""The bodies that MLflow's `/invocations` takes, as rows in the order of a model's inputs: four JSON forms and CSV."""

import contextlib
import csv
import io
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from device_agent.doors.http.exchange import Refused
from device_agent.doors.http.foreign_json import with_json_literals
from device_agent.doors.http.refusing import check_rows
from device_agent.doors.unique_names import NamedTwice, check_names
from edgefleet.manifest import Input, Manifest

FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")
# Commas and brackets of the form itself, names of a frame's columns included.
_AROUND: Final = 70_000
# What pandas reads as a missing value, as far as people write it.
_MISSING: Final = frozenset({"", "na", "nan", "n/a", "null", "none"})


def rows_of_json(body: bytes, manifest: Manifest, elements: int) -> list[Any]:
    """Rows of a JSON body: lists in the order of the inputs, or mappings by name.

    Raises:
        Refused: Not one of the four forms, or beyond `elements` values.
    """
    _check_marks(body, manifest, elements)
    document = _parsed(body)
    if not isinstance(document, dict):
        raise _bad(f"the body is a JSON {type(document).__name__}, expected an object with one of {', '.join(FORMS)}")
    found = [form for form in FORMS if form in document]
    if len(found) != 1:
        raise _bad(f"the body has {' and '.join(found) or 'none'} of {', '.join(FORMS)}, exactly one is expected")
    value = document[found[0]]
    if found[0] == "dataframe_split":
        return _of_split(value, manifest, elements)
    _check_names(body, document, value)
    if found[0] == "inputs" and isinstance(value, dict):
        return _of_columns(value, manifest, elements)
    windows = manifest.window_rows != 1
    kind = "arrays [T, F]" if windows else "objects by column name"
    if not isinstance(value, list) or not all(isinstance(row, list if windows else dict) for row in value):
        hint = "" if windows else "; rows without names go into dataframe_split, with or without columns"
        raise _bad(f"{found[0]} is not a list of {kind}{hint}")
    values = manifest.window_rows * len(manifest.inputs) if windows else len(manifest.inputs)
    check_rows(len(value), values, elements)
    return value


def rows_of_csv(body: bytes, manifest: Manifest, elements: int) -> list[Any]:
    """Rows of a CSV body with a header line; empty cells and NaN are missing.

    Raises:
        Refused: Not UTF-8, ragged, with unknown or repeated columns, of a model of windows, or beyond `elements` values.
    """
    if manifest.window_rows != 1:
        raise _bad(f"CSV has no form for windows of {manifest.window_rows} rows; send JSON with instances")
    _check_marks(body, manifest, elements)
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        lines = [line for line in reader if line]
    except UnicodeDecodeError as err:
        raise _bad(f"the body is not UTF-8: {err.reason} at byte {err.start}") from err
    except csv.Error as err:
        raise _bad(f"the body is no CSV: {err}") from err
    if not lines:
        raise _bad("the body is empty, expected CSV with a header line")
    order = _order(lines[0], manifest)
    check_rows(len(lines) - 1, len(manifest.inputs), elements)
    rows = []
    for number, line in enumerate(lines[1:]):
        if len(line) != len(lines[0]):
            raise _bad(f"row {number} has {len(line)} cells, the header has {len(lines[0])}")
        rows.append([None if at < 0 else _cell(line[at], column) for at, column in zip(order, manifest.inputs, strict=True)])
    return rows


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except RecursionError as err:
        raise _bad("the body is nested too deeply") from err
    except (msgspec.DecodeError, ValueError) as err:
        mended = with_json_literals(body)
        if mended is not None or "out of range" in str(err):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(body if mended is None else mended)  # which reads 1e999 as infinity
        raise _bad(f"the body is no JSON: {str(err)[:200]}") from err


def _check_names(body: bytes, document: dict[str, Any], value: Any) -> None:
    rows = value if isinstance(value, list) else [value]
    names = len(document) + sum(len(row) for row in rows if isinstance(row, dict))
    try:
        check_names(body, names)
    except NamedTwice as err:
        raise _bad(f"input {err}: send one value for each name") from err
    except (ValueError, RecursionError):
        return  # the reader before took it, and what it took is looked at


def _of_split(value: Any, manifest: Manifest, elements: int) -> list[Any]:
    content = value.get("data") if isinstance(value, dict) else None
    if not isinstance(content, list) or not all(isinstance(row, list) for row in content):
        raise _bad("dataframe_split needs data: a list of rows, each a list of values")
    check_rows(len(content), len(manifest.inputs), elements)
    index = value.get("index", content)
    if not isinstance(index, list) or len(index) != len(content):
        raise _bad(f"dataframe_split.index is not a list of {len(content)} values, one a row")
    columns = value.get("columns")
    if manifest.window_rows != 1:
        raise _bad(f"dataframe_split has no form for windows of {manifest.window_rows} rows; send instances")
    if columns is None:
        return content
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _bad("dataframe_split.columns is not a list of names")
    order = _order(columns, manifest)
    for number, row in enumerate(content):
        if len(row) != len(columns):
            raise _bad(f"row {number} has {len(row)} values, columns has {len(columns)}")
    if order == list(range(len(columns))):
        return content
    return [[None if at < 0 else row[at] for at in order] for row in content]


def _of_columns(value: Mapping[str, Any], manifest: Manifest, elements: int) -> list[Any]:
    if manifest.window_rows != 1:
        raise _bad("inputs by column has no form for windows; send a list of arrays [T, F]")
    columns = {name: one if isinstance(one, list) else [one] for name, one in value.items()}
    if not columns:
        raise _bad("inputs has no columns")
    order = _order(list(columns), manifest)
    first, n = next((name, len(one)) for name, one in columns.items())
    for name, one in columns.items():
        if len(one) != n:
            raise _bad(f"column {name[:80]!r} has {len(one)} values, {first[:80]!r} has {n}")
    check_rows(n, len(manifest.inputs), elements)
    filled = list(columns.values())
    missing = [None] * n
    return [list(row) for row in zip(*(missing if at < 0 else filled[at] for at in order), strict=True)]


def _order(columns: list[str], manifest: Manifest) -> list[int]:
    """For each input of the model where it stands among the columns, -1 where it is missing."""
    at = {name: i for i, name in enumerate(columns)}
    if len(at) != len(columns):
        twice = next(name for i, name in enumerate(columns) if at[name] != i)
        raise _bad(f"column {twice[:80]!r} comes twice")
    known = {column.name for column in manifest.inputs}
    if unknown := [name for name in columns if name not in known]:
        some = ", ".join(sorted(known)[:8]) + (", ..." if len(known) > 8 else "")
        raise _bad(f"the model has no input {unknown[0][:80]!r}; it has {some}")
    return [at.get(column.name, -1) for column in manifest.inputs]


def _cell(text: str, column: Input) -> Any:
    text = text.strip()
    if text.lower() in _MISSING and text not in column.categories:
        return None
    if column.kind == "category" or "_" in text:  # Python would read 1_000 as a number
        return text
    try:
        return float(text)
    except ValueError:
        return text  # the scorer refuses it by the input's name


def _check_marks(body: bytes, manifest: Manifest, elements: int) -> None:
    """Bound a body before it is parsed: of rows within the limit it cannot have so many commas or brackets."""
    rows = elements if manifest.window_rows == 1 else 2 * elements
    if body.count(b",") > 2 * elements + _AROUND or body.count(b"[") + body.count(b"{") > rows + _AROUND:
        raise Refused(413, f"the body holds more than the limit of {elements} values; send fewer rows at once", "elements")


def _bad(text: str) -> Refused:
    return Refused(400, text, "malformed")
