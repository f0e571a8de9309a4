"""`edgefleet validate`: a finished package's gates again, on rows that it was not trained on.

A data file is judged whole, with the goal, gates and schema that stand in the package. A project folder brings its own goal and gates;
its training rows are left out. Overrides of the package do not count here: what is told is what the rows say.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgefleet.errors import InputError
from edgefleet.package import ModelPackage
from trainer.dataset import DataSet
from trainer.gates import Gate, judge_candidate, overrule
from trainer.gates.data import judge_quality, judge_schema
from trainer.gates.leakage import judge_leakage
from trainer.new_rows import for_any_rows, new_rows
from trainer.opened import open_predict, other_inputs, project_of, speaking_of
from trainer.project import PROJECT_NAME, Project, load_project


@dataclass(frozen=True)
class Validation:
    """What new rows say about a package.

    Attributes:
        package: Digest of the package.
        rows: Number of rows judged.
        metric: The goal's metric, {value, low, high, n}.
        evaluation: Everything measured, plain values.
        gates: All gates.
        blocking: Those that would forbid the package today: failed, or inconclusive where that is not allowed.
    """

    package: str
    rows: int
    metric: dict[str, Any]
    evaluation: dict[str, Any]
    gates: list[Gate]
    blocking: list[Gate]


def validate(package: ModelPackage, data: Path) -> Validation:
    """Judge a package on new rows.

    Args:
        package: The package; its files were checked when it was opened.
        data: CSV or Parquet file with the inputs and the label, or a project folder.

    Raises:
        InputError: The rows do not fit the package.
        ArtifactError: The package cannot be run.
    """
    from trainer.evaluate import evaluate

    if data.is_dir() or data.name == PROJECT_NAME:
        project, rows = _of_project(package, data if data.is_dir() else data.parent)
    else:
        project, rows = _of_file(package, data)
    predict = open_predict(package)
    answers = speaking_of(predict(rows.x), rows.classes, project.goal.positive)
    gates = [*_row_gates(package, project, rows), *judge_candidate(project, rows, answers, predict, None)]
    evaluation = evaluate(project, rows, answers)
    blocking = overrule(gates, [], project.gates.allow_inconclusive)[2]
    return Validation(package.digest, len(rows), evaluation["metrics"][project.goal.metric], evaluation, gates, blocking)


def _of_file(package: ModelPackage, path: Path) -> tuple[Project, DataSet]:
    from trainer.sources import columns_of, read_file

    project = for_any_rows(project_of(package))
    table = read_file(path, columns_of(project), project.data.missing_values)
    if len(table) == 0:
        raise InputError(f"{path} has no rows; name a file with rows")
    if project.data.id is not None and project.data.id not in table.columns:
        project = for_any_rows(project, id=None)
    return project, new_rows(project, table, package.index.classes)


def _of_project(package: ModelPackage, folder: Path) -> tuple[Project, DataSet]:
    """The rows of a project that its splits keep from training, in the package's own class order."""
    from trainer.load import load_rows

    project = load_project(folder)
    if difference := other_inputs(project.inputs, package.inputs()):
        raise InputError(
            f"{folder} has other inputs than package {package.digest[:12]} ({difference}); give the project that it was trained from"
        )
    rows = load_rows(project)
    rows = rows.take(np.flatnonzero(rows.split != "train"))
    if package.index.task == "classification" and rows.classes != package.index.classes:
        if unknown := sorted(set(rows.classes) - set(package.index.classes)):
            raise InputError(f"{folder}: class {unknown[0]!r} is none of the package's: {', '.join(package.index.classes[:12])}")
        place = np.array([package.index.classes.index(name) for name in rows.classes])
        rows = replace(rows, label=place[rows.label], classes=package.index.classes)
    return project, replace(rows, split=np.full(len(rows), "validation"))


def _row_gates(package: ModelPackage, project: Project, rows: DataSet) -> list[Gate]:
    """G1 and G2 of the new rows; G3 against the training rows that the package keeps."""
    kept = package.rows("calibration")
    known = len(kept.label)
    names = rows.row_id if project.data.id is not None else np.array([f"new {name}" for name in rows.row_id.tolist()])
    training = np.array([f"training {name}" for name in kept.row_id.tolist()])
    both = replace(
        rows,
        x=np.concatenate([kept.x, rows.x]),
        label=np.concatenate([kept.label, rows.label]),
        split=np.concatenate([np.full(known, "train"), rows.split]),
        slices={},
        row_id=np.concatenate([kept.row_id, names]),
        # Of which group the kept rows were is not known any more.
        group=None if rows.group is None else np.concatenate([training, rows.group]),
        time=None,
        weight=None,
    )
    as_training = replace(rows, split=np.full(len(rows), "train"))
    return [judge_schema(rows), judge_quality(project, as_training), judge_leakage(for_any_rows(project), both)]
