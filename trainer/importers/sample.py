"""The settings of an imported model: what its data sample says, what the user says, and the project's goal and gates where there is one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from edgefleet.manifest import Input, Task
from trainer.importers.found import Found
from trainer.importers.signature import Description
from trainer.importers.tensors import column_of, row_sides
from trainer.project import Project, load_project
from trainer.settings import Cleaning, Goal, GoalTask, Schema, Search, Source, Splits, Tables
from trainer.table_checks import plain_texts

if TYPE_CHECKING:
    import pandas

MAX_CATEGORIES: Final = 1000
_DEFAULT_METRICS: Final[dict[str, Any]] = {"classification": "accuracy", "regression": "rmse", "rul": "rmse", "anomaly": "auc"}


@dataclass(frozen=True)
class Wish:
    """What the user says beside the model and the data.

    Attributes:
        label: Column of the answer.
        task: Kind of prediction; None takes the project's, or classification.
        name: Project name; "" takes the project's, or the source's file name.
        classes: The model's classes in its own order, where its file does not know them.
        metric: For a goal without a project; "" takes the task's usual one.
        minimum: The same.
        maximum: The same.
    """

    label: str
    task: GoalTask | None = None
    name: str = ""
    classes: Sequence[str] = ()
    metric: str = ""
    minimum: float | None = None
    maximum: float | None = None


def project_for(
    found: Found, description: Description, table: "pandas.DataFrame", data: Path, wish: Wish, project_dir: Path | None
) -> Project:
    """The settings of the package: the project's where there is one, with the data sample as its source.

    Raises:
        ConfigError: The project is wrong.
        InputError: Model and data sample do not fit each other.
    """
    given = None if project_dir is None else load_project(project_dir)
    label = wish.label or ("" if given is None else given.data.label)
    if label not in table.columns:
        raise InputError(f"{data} has no column {label!r}; --label names the column of the answer, one of {', '.join(table.columns[:12])}")
    if given is None:
        task: GoalTask = wish.task or "classification"
        metric = wish.metric or _DEFAULT_METRICS[task]
        asked = {"task": task, "metric": metric, "minimum": wish.minimum, "maximum": wish.maximum}
        goal = msgspec.convert({"question": f"What {found.path.name} answers", **asked}, Goal)
        tables = Tables(
            goal=goal,
            data=Source(source=data.name, label=label, splits=Splits(method="random")),
            schema=Schema(),
            search=Search(candidates=["imported"]),
        )
        meaning: set[str] = set()
    else:
        said = {"task": wish.task, "metric": wish.metric or None, "minimum": wish.minimum, "maximum": wish.maximum}
        goal = msgspec.structs.replace(given.goal, **{key: value for key, value in said.items() if value is not None})
        source = msgspec.structs.replace(given.data, source=data.name, label=label, query="", arguments={})
        window = given.cleaning.window
        # Its cleaning is inside the model, if anywhere; only the window says how many rows an answer needs.
        cleaning = Cleaning(window=None if window is None else msgspec.structs.replace(window, features=[], lags=[]))
        values = {name: getattr(given, name) for name in Tables.__struct_fields__}
        tables = Tables(**{**values, "goal": goal, "data": source, "cleaning": cleaning})
        data_names = (source.split, source.slice, source.id, source.group, source.time, source.weight, *source.slices)
        meaning = {name for name in data_names if name}
    inputs = _inputs(description, table, meaning | {label})
    same = given is not None and [column.name for column in given.inputs] == [column.name for column in inputs]
    if given is not None and same:
        inputs = given.inputs
    else:
        tables = msgspec.structs.replace(tables, schema=Schema(inputs=inputs))
    name = wish.name or ("" if given is None else given.name) or "-".join(found.path.stem.lower().replace("_", "-").split())
    values = {key: getattr(tables, key) for key in Tables.__struct_fields__}
    return Project(
        **values,
        folder=data.resolve().parent,
        name=check_id(name, "--name"),
        inputs=inputs,
        shape=_shape(description, inputs, tables, given.shape if given is not None and same else None),
        digest=sha256_hex(canonical_json(msgspec.to_builtins(tables))),
    )


def task_of(project: Project) -> Task:
    """The kind of prediction that a package declares."""
    return "regression" if project.goal.task == "rul" else project.goal.task


def _inputs(description: Description, table: "pandas.DataFrame", taken: set[str]) -> list[Input]:
    """The schema: the columns that the model names, else every column that means nothing else, in order."""
    names = [str(name) for name in table.columns if name not in taken]
    if description.columns is not None:
        if absent := [name for name in description.columns if name not in names]:
            raise InputError(f"the data lack {len(absent)} columns that the model was trained on: {', '.join(absent[:5])}")
        names = description.columns
    elif len(description.inputs) > 1:
        names = [column_of(tensor.name, names) for tensor in description.inputs]
    text_wanted = description.columns is not None or len(description.inputs) > 1
    return [_input(table[name], name, text_wanted) for name in names]


def _input(column: Any, name: str, text_wanted: bool) -> Input:
    missing = bool(column.isna().any())
    if column.dtype.kind in "iufb":
        return Input(name=name, missing=missing)
    if not text_wanted:
        raise InputError(f"column {name!r} holds text, the model takes numbers; encode it as it was in training, or leave the column out")
    found = sorted({text for text in plain_texts(column).tolist() if text is not None})
    if len(found) > MAX_CATEGORIES:
        raise InputError(f"column {name!r} has {len(found)} different texts, the limit is {MAX_CATEGORIES}; group them as in training")
    return Input(name=name, kind="category", categories=found, missing=missing)


def _shape(description: Description, inputs: list[Input], tables: Tables, given: list[int] | None) -> list[int]:
    """Shape of one row's tensor as the graph sees it, without sides of 1 at its ends."""
    if given is not None:
        return given
    if len(description.inputs) != 1 or tables.cleaning.window is not None:
        return [len(inputs)]
    sides = row_sides(description.inputs[0], len(inputs))
    inner = [side for side in sides if side > 1]
    return inner if len(inner) > 1 else [len(inputs)]
