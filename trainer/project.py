"""project.toml: the one typed file of a user's project. Unknown keys are errors that say what was probably meant.

Its tables are in `settings.py`, what their values must obey in `limits.py` and `limits_inputs.py`.
"""

import difflib
import itertools
import math
import re
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ConfigError, InputError
from edgefleet.identifiers import check_id
from edgefleet.manifest import MAX_INPUTS, Input, Task
from trainer.limits import check_limits
from trainer.limits_inputs import check_columns_apart, check_inputs, check_size
from trainer.settings import LATER_TABLES, Pattern, Schema, Tables

PROJECT_NAME: Final = "project.toml"
MAX_PROJECT_BYTES: Final = 1_048_576  # a schema of thousands of inputs, spelled out


class Project(Tables, frozen=True, kw_only=True):
    """A loaded project.

    Attributes:
        folder: The project folder.
        name: Its identifier.
        inputs: The schema spelled out, in column order.
        shape: Shape of one row's tensor.
        digest: Sha256 of the settings with defaults and command-line changes applied; comments and order do not count.
    """

    folder: Path
    name: str
    inputs: list[Input]
    shape: list[int]
    digest: str

    @property
    def task(self) -> Task:
        """Kind of prediction as models know it: remaining useful life is a regression."""
        return "regression" if self.goal.task == "rul" else self.goal.task

    def tables(self) -> dict[str, Any]:
        """The settings as plain values, defaults included."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in Tables.__struct_fields__}


def load_project(folder: Path | str, changes: Sequence[str] = ()) -> Project:
    """Read and check PROJECT_DIR/project.toml.

    Args:
        folder: The project folder.
        changes: `table.key=value` with a TOML value; they win over the file.

    Raises:
        ConfigError: Missing, unreadable, an unknown or mistyped key, or a value out of its limits.
    """
    folder = Path(folder)
    document = _read(folder / PROJECT_NAME)
    for change in changes:
        _apply(document, change)
    return project_from(document, folder)


def project_from(document: dict[str, Any], folder: Path) -> Project:
    """A project from the tables of a project.toml, for example those that a run recorded.

    Raises:
        ConfigError: An unknown or mistyped key, or a value out of its limits.
    """
    for table in LATER_TABLES:
        if table in document:
            raise ConfigError(f"{PROJECT_NAME}: table [{table}] is not supported by this version; remove it")
    _check_keys(document, Tables, "")
    try:
        tables = msgspec.convert(document, Tables)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{PROJECT_NAME}: {err}{_allowed(str(err))}") from err
    check_limits(tables)
    inputs, shape = _inputs(tables.schema)
    check_columns_apart(tables.data, inputs)
    check_size(len(inputs), tables.cleaning.window)
    if tables.cleaning.window is not None and len(shape) > 1:
        raise ConfigError(f"{PROJECT_NAME}: schema.shape = {shape} and cleaning.window exclude each other; a window is made of flat rows")
    try:
        name = check_id(tables.goal.name or folder.resolve().name, "goal.name")
    except InputError as err:
        raise ConfigError(f"{PROJECT_NAME}: {err}") from err
    values = {key: getattr(tables, key) for key in Tables.__struct_fields__}
    digest = sha256_hex(canonical_json(msgspec.to_builtins(tables)))
    return Project(**values, folder=folder.resolve(), name=name, inputs=inputs, shape=shape, digest=digest)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_PROJECT_BYTES + 1)
        if len(content) > MAX_PROJECT_BYTES:
            raise ConfigError(f"{path}: larger than the limit of {MAX_PROJECT_BYTES} bytes; is this a project file?")
        return tomllib.loads(content.decode())
    except OSError as err:
        raise ConfigError(f"{path}: cannot be read: {err.strerror}; name a folder that holds a {PROJECT_NAME}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path}: no valid TOML: {err}") from err


def _apply(document: dict[str, Any], change: str) -> None:
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) < 2:
        raise ConfigError(f"--set {change!r}: expected table.key=value, for example data.block_rows=50")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as err:
        raise ConfigError(f"--set {change!r}: {text.strip()!r} is no TOML value; text needs quotes: {path}='\"text\"'") from err
    table = document
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change!r}: {key!r} is a value, not a table")
    table[keys[-1]] = value


def _check_keys(table: Any, struct: Any, path: str) -> None:
    if not isinstance(table, dict):
        return  # a wrong type: the conversion names it
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            meant = f"did you mean {path}{near[0]}?" if near else f"known here: {', '.join(fields)}"
            raise ConfigError(f"{PROJECT_NAME}: key {path}{key} is unknown; {meant}")
        if (nested := _struct_of(fields[key])) is not None:
            for item in value if isinstance(value, list) else [value]:
                _check_keys(item, nested, f"{path}{key}.")


def _struct_of(annotation: Any) -> Any:
    """The struct in `Struct`, `Struct | None` or `list[Struct]`, else None."""
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)), None)


def _allowed(problem: str) -> str:
    """The values that a setting may have, where the problem is that it has none of them; msgspec only says where."""
    found = re.fullmatch(r"Invalid enum value .* - at `\$\.([a-z_.]+)`", problem, re.DOTALL)
    annotation: Any = Tables
    for key in found[1].split(".") if found else []:
        struct = _struct_of(annotation)
        annotation = typing.get_type_hints(struct).get(key) if struct else None
    if found is None or typing.get_origin(annotation) is not typing.Literal:
        return ""
    return f"; one of {', '.join(str(value) for value in typing.get_args(annotation) if value != '')}"


def _inputs(schema: Schema) -> tuple[list[Input], list[int]]:
    if (schema.pattern is None) == (not schema.inputs and not schema.numbers):
        raise ConfigError(f"{PROJECT_NAME}: [schema] needs either schema.pattern with schema.shape, or schema.inputs and schema.numbers")
    if schema.pattern is not None and not schema.shape:
        raise ConfigError(f"{PROJECT_NAME}: schema.pattern needs schema.shape, for example [8, 8]")
    listed = [*schema.inputs, *(Input(name=name) for name in schema.numbers)]
    shape = schema.shape or [len(listed)]
    if min(shape) < 1 or math.prod(shape) > MAX_INPUTS:
        raise ConfigError(f"{PROJECT_NAME}: schema.shape = {shape} is not a list of positive numbers with a product up to {MAX_INPUTS}")
    inputs = listed if schema.pattern is None else _spell(schema.pattern, shape)
    if len(inputs) != math.prod(shape):
        raise ConfigError(f"{PROJECT_NAME}: schema.inputs lists {len(inputs)} inputs, schema.shape = {shape} needs {math.prod(shape)}")
    check_inputs(inputs)
    return inputs, shape


def _spell(pattern: Pattern, shape: list[int]) -> list[Input]:
    common: dict[str, Any] = {f: getattr(pattern, f) for f in pattern.__struct_fields__ if f != "name"}
    try:
        return [Input(name=pattern.name.format(*at), **common) for at in itertools.product(*map(range, shape))]
    except (IndexError, KeyError, ValueError, AttributeError) as err:
        raise ConfigError(f"{PROJECT_NAME}: schema.pattern.name = {pattern.name!r} does not fit shape {shape}: {err}") from err
