"""project.toml: the one typed file of a user's project. Unknown keys are errors that say what was probably meant."""

import difflib
import itertools
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ConfigError, InputError
from edgefleet.identifiers import check_id
from edgefleet.manifest import MAX_INPUTS, Input, RangePolicy

PROJECT_NAME: Final = "project.toml"
MAX_PROJECT_BYTES: Final = 262_144
# Tables of the design that this version does not read yet: silence about them would be a promise.
LATER_TABLES: Final = ("cleaning", "rollout", "retrain", "tracking")


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The success criteria, printed first in every report.

    Attributes:
        question: What the model answers, in one sentence.
        minimum: Gate G4, the metric that the model must reach, in [0, 1].
        name: Project name, an identifier; the folder's name when empty.
        metric: What is measured.
        noninferior_margin: Gate G7, how much worse than the champion is still acceptable, in (0, 1).
    """

    question: str
    minimum: float
    name: str = ""
    metric: Literal["accuracy"] = "accuracy"
    noninferior_margin: float = 0.01


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rows come from and what its columns mean.

    Attributes:
        source: `module:function` that returns a pandas table, or the path of a CSV file, relative to the project folder.
        arguments: Passed to the function by name.
        label: Column of the answer.
        split: Column that says train, validation or test.
        slice: Column of the slice, or None: one slice.
        id: Column of the row's unique name, or None: the row number.
        group: Column that names what rows share (a patient, a machine, a scan), or None: rows are independent.
        block_rows: Length of the reference's consecutive windows, in rows.
    """

    source: str
    arguments: dict[str, Any] = {}
    label: str = "label"
    split: str = "split"
    slice: str | None = None
    id: str | None = None
    group: str | None = None
    block_rows: int = 50


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs generated from `schema.shape`: one per element, in row-major order; `{0}`, `{1}` in the name are the element's indices."""

    name: str
    low: float | None = None
    high: float | None = None
    range_policy: RangePolicy = "count"
    unit: str = ""
    missing: bool = False


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The inputs: listed one by one, or by pattern; never both. `shape` is one row's tensor, [inputs] when left out."""

    shape: list[int] = []
    pattern: Pattern | None = None
    inputs: list[Input] = []


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Candidates to train, and the seed of everything random in them."""

    candidates: list[str]
    seed: int = 0


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the gates that are not the goal's.

    Attributes:
        slice_minimum: Gate G5, least metric of every slice; without it the gate is skipped and says so.
        max_missing_fraction: Gate G2, largest share of missing values in a column.
        allow_inconclusive: Gates that may be inconclusive.
    """

    slice_minimum: float | None = None
    max_missing_fraction: float = 0.5
    allow_inconclusive: list[str] = []


class Convert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Conversion targets; empty means the converter's own choice."""

    targets: list[str] = []


class Explain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are explained; `auto` takes the exact method where there is one."""

    method: Literal["auto", "treeshap", "sampled", "none"] = "auto"


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Budgets of the device; None is no limit."""

    latency_p95_ms: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None


class _Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    goal: Goal
    data: Source
    schema: Schema
    search: Search
    gates: Gates = Gates()
    convert: Convert = Convert()
    explain: Explain = Explain()
    device: Device = Device()


class Project(_Tables, frozen=True, kw_only=True):
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

    def tables(self) -> dict[str, Any]:
        """The settings as plain values, defaults included."""
        return {name: msgspec.to_builtins(getattr(self, name)) for name in _Tables.__struct_fields__}


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
    for table in LATER_TABLES:
        if table in document:
            raise ConfigError(f"{PROJECT_NAME}: table [{table}] is not supported by this version; remove it")
    _check_keys(document, _Tables, "")
    try:
        tables = msgspec.convert(document, _Tables)
    except msgspec.ValidationError as err:
        raise ConfigError(f"{PROJECT_NAME}: {err}") from err
    _check_limits(tables)
    inputs, shape = _inputs(tables.schema)
    try:
        name = check_id(tables.goal.name or folder.resolve().name, "goal.name")
    except InputError as err:
        raise ConfigError(f"{PROJECT_NAME}: {err}") from err
    values = {key: getattr(tables, key) for key in _Tables.__struct_fields__}
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


def _check_limits(tables: _Tables) -> None:
    goal, gates = tables.goal, tables.gates
    fractions = {"goal.minimum": goal.minimum, "goal.noninferior_margin": goal.noninferior_margin}
    fractions |= {"gates.max_missing_fraction": gates.max_missing_fraction}
    if gates.slice_minimum is not None:
        fractions["gates.slice_minimum"] = gates.slice_minimum
    for key, value in fractions.items():
        if not 0 <= value <= 1:  # NaN is refused too
            raise ConfigError(f"{PROJECT_NAME}: {key} = {value} is not between 0 and 1")
    if goal.noninferior_margin == 0:
        raise ConfigError(f"{PROJECT_NAME}: goal.noninferior_margin = 0 could never be passed; 0.01 is one percentage point")
    if not 10 <= tables.data.block_rows <= 100_000:
        raise ConfigError(f"{PROJECT_NAME}: data.block_rows = {tables.data.block_rows} is not between 10 and 100000")
    if not 0 <= tables.search.seed < 2**32:
        raise ConfigError(f"{PROJECT_NAME}: search.seed = {tables.search.seed} is not between 0 and {2**32 - 1}")


def _inputs(schema: Schema) -> tuple[list[Input], list[int]]:
    if (schema.pattern is None) == (not schema.inputs):
        raise ConfigError(f"{PROJECT_NAME}: [schema] needs either schema.pattern with schema.shape, or schema.inputs")
    if schema.pattern is not None and not schema.shape:
        raise ConfigError(f"{PROJECT_NAME}: schema.pattern needs schema.shape, for example [8, 8]")
    shape = schema.shape or [len(schema.inputs)]
    size = 1
    for side in shape:
        size *= side
        if side < 1 or size > MAX_INPUTS:
            raise ConfigError(f"{PROJECT_NAME}: schema.shape = {shape} is not a list of positive numbers with a product up to {MAX_INPUTS}")
    inputs = schema.inputs if schema.pattern is None else _spell(schema.pattern, shape)
    if len(inputs) != size:
        raise ConfigError(f"{PROJECT_NAME}: schema.inputs lists {len(inputs)} inputs, schema.shape = {shape} needs {size}")
    if len({column.name for column in inputs}) != len(inputs):
        raise ConfigError(
            f"{PROJECT_NAME}: two inputs have the same name; a pattern over shape {shape} needs {{0}} to {{{len(shape) - 1}}}"
        )
    return inputs, shape


def _spell(pattern: Pattern, shape: list[int]) -> list[Input]:
    common: dict[str, Any] = {f: getattr(pattern, f) for f in pattern.__struct_fields__ if f != "name"}
    try:
        return [Input(name=pattern.name.format(*at), **common) for at in itertools.product(*map(range, shape))]
    except (IndexError, KeyError, ValueError, AttributeError) as err:
        raise ConfigError(f"{PROJECT_NAME}: schema.pattern.name = {pattern.name!r} does not fit shape {shape}: {err}") from err
