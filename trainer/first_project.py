"""The first project.toml of a project, written from a survey of its data; a person fills in the goal."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgefleet.errors import ConfigError
from edgefleet.files import write_durably
from edgefleet.manifest import Input
from trainer.cleaning.plan import MAX_ONE_HOT
from trainer.project import PROJECT_NAME
from trainer.schema import Survey, survey
from trainer.sources import Columns, read_file
from trainer.table_checks import numbers

if TYPE_CHECKING:
    import pandas

# Words that stand for nothing wherever they are met, and words that do where everything else in the column is a number.
_SURELY_MISSING: Final = ("?", "NaN", "nan", "null", "NULL", "N/A", "n/a", "#N/A")
_MAYBE_MISSING: Final = ("NA", "na", "None", "none", "-", "--", ".")


def write_first_project(data: Path, folder: Path, label: str = "") -> tuple[Path, Survey]:
    """Write FOLDER/project.toml for a CSV or Parquet file.

    Raises:
        ConfigError: The file cannot be read, or there is a project.toml already.
        InputError: The file has no rows, no such label, or no column that can be an input.
    """
    path = folder / PROJECT_NAME
    if path.exists():
        raise ConfigError(f"{path} is there already and is not overwritten; name another folder with --dir, or remove it")
    table: pandas.DataFrame = read_file(data, Columns(text=frozenset()))
    if missing := _missing_words(table):
        table = read_file(data, Columns(text=frozenset()), missing)
    found = survey(_codes_kept(table, data, missing), label)
    source = os.path.relpath(data.resolve(), folder.resolve())
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(path, project_text(found, Path(source).as_posix(), _name(folder), missing).encode())
    return path, found


def project_text(found: Survey, source: str, name: str, missing: list[str]) -> str:
    """The text of project.toml; it loads as it is, and blesses nothing before a limit is set."""
    classification = found.task == "classification"
    metric, limit = ("accuracy", "minimum = 0.9") if classification else ("rmse", "maximum = 1.0")
    candidates = ["logistic", "hist_boosting"] if classification else ["ridge", "hist_boosting"]
    lines = [
        "# Written by `edgefleet init` from a look at the data. Review every line: guesses are marked.",
        "",
        "[goal]",
        f"name = {_quoted(name)}",
        'question = "What shall the model answer?"   # your business question, in one sentence',
        f"task = {_quoted(found.task)}   # guessed from column {_quoted(found.label)}; or regression, classification, anomaly, rul",
        f"metric = {_quoted(metric)}",
        f"# {limit}   # fill in: the value that makes the model useful; without it nothing is blessed",
        "",
        "[data]",
        f"source = {_quoted(source)}",
        *([f"missing_values = {json.dumps(missing)}   # guessed"] if missing else []),
        f"label = {_quoted(found.label)}",
        *(['unlabelled = "drop"   # some rows have no label'] if found.unlabelled else []),
        *_rows_lines(found),
        "",
        "[schema]",
        "inputs = [",
        *(f"  {_input_line(column)},   # {_comment(found.notes[column.name])}" for column in found.inputs),
        "]",
        *(["# Left out:"] if found.left_out else []),
        *(f"#   {_comment(name)}: {_comment(reason)}" for name, reason in found.left_out.items()),
        "",
        *_cleaning_lines(found.inputs),
        "[search]",
        f"candidates = {json.dumps(candidates)}   # `edgefleet train --list-candidates` prints all",
        "seed = 1",
        "",
    ]
    return "\n".join(lines)


def _missing_words(table: "pandas.DataFrame") -> list[str]:
    """Texts of the table that stand for a missing value."""
    words: set[str] = set()
    for name in table.columns:
        if table[name].dtype.kind in "iufbmM":
            continue
        cells = table[name].dropna()
        met = set(cells.unique())
        words |= met.intersection(_SURELY_MISSING)
        maybe = met.intersection(_MAYBE_MISSING)
        others = cells[~cells.isin([*_SURELY_MISSING, *_MAYBE_MISSING])]
        if maybe and len(others) and not numbers(others)[1].any():
            words |= maybe
    return sorted(words)


def _codes_kept(table: "pandas.DataFrame", data: Path, missing: list[str]) -> "pandas.DataFrame":
    """The table with columns of whole numbers read again as text where a cell starts with 0: 007 is a name, not seven.

    A column with gaps is one of fractions to pandas, whole as its numbers may be.
    """
    if data.name.endswith((".parquet", ".pq")):
        return table
    suspects = [str(name) for name in table.columns if table[name].dtype.kind in "iuf" and _all_whole(table[name])]
    if not suspects:
        return table
    texts = read_file(data, Columns(wanted=tuple(suspects), text=frozenset(suspects)), missing)
    for name in suspects:
        if texts[name].str.match(r"-?0\d", na=False).any():
            table[name] = texts[name]
    return table


def _all_whole(column: "pandas.Series[Any]") -> bool:
    present = column.dropna()
    return bool((present % 1 == 0).all())


def _rows_lines(found: Survey) -> list[str]:
    lines = []
    if found.id is not None:
        lines.append(f"id = {_quoted(found.id)}   # guessed: a different value in every row")
    if found.group is not None:
        lines.append(f"group = {_quoted(found.group)}   # guessed: what rows share; no group may stand in two splits")
    if found.time is not None:
        lines.append(f"time = {_quoted(found.time)}   # guessed: rows must be in its order within a group")
    if not found.has_split:
        method = "group" if found.group is not None else "time" if found.time is not None else "random"
        lines.append(f'splits = {{ method = "{method}", validation = 0.2, test = 0.2 }}   # or column, random, group, time')
    return lines


def _input_line(column: Input) -> str:
    parts = [f"name = {_quoted(column.name)}"]
    if column.kind == "category":
        parts.append(f'kind = "category", categories = [{", ".join(map(_quoted, column.categories))}]')
    if column.missing:
        parts.append("missing = true")
    return "{ " + ", ".join(parts) + " }"


def _cleaning_lines(inputs: list[Input]) -> list[str]:
    absent = [column.name for column in inputs if column.missing and column.kind == "number"]
    few = [column.name for column in inputs if column.kind == "category" and len(column.categories) <= MAX_ONE_HOT]
    many = [column.name for column in inputs if column.kind == "category" and len(column.categories) > MAX_ONE_HOT]
    steps = [
        (absent, 'step = "impute", value = "median"'),
        (few, 'step = "one_hot"'),
        (many, 'step = "ordinal"'),
    ]
    written = [f"  {{ {step}, columns = [{', '.join(map(_quoted, columns))}] }}," for columns, step in steps if columns]
    return ["[cleaning]", "steps = [", *written, "]", ""] if written else []


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's too, except that TOML wants DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


def _name(folder: Path) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", folder.resolve().name.lower()).strip("-")[:64] or "project"
