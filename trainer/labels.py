"""The answer column as numbers, by task."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from trainer.project import Project
from trainer.settings import Goal
from trainer.table_checks import CheckedTable, numbers_of, texts_of

MAX_CLASSES: Final = 1000
ANOMALY_CLASSES: Final = ["normal", "strange"]


@dataclass(frozen=True)
class Labels:
    """The answers of some rows.

    Attributes:
        values: [n] int64 class index, or float64 target; -1 or NaN where there is none.
        classes: Class names in the order of their index; empty for numbers.
    """

    values: NDArray[Any]
    classes: list[str]


def read_labels(project: Project, checked: CheckedTable, keep: NDArray[np.int64]) -> Labels:
    """The answers of the rows `keep`, where `data.unlabelled` allows it with gaps.

    Raises:
        InputError: An empty answer, one class only, too many classes, a constant target, an unknown `goal.positive`.
    """
    if project.data.unlabelled == "refuse" or not project.data.label:
        return _read(project, checked, keep)
    present = checked.table[project.data.label].notna().to_numpy(np.bool_)[keep]
    some = _read(project, checked, keep[present])
    values = np.full(len(keep), -1 if some.classes else np.nan, some.values.dtype)
    values[present] = some.values
    return Labels(values, some.classes)


def is_labelled(label: NDArray[Any]) -> NDArray[np.bool_]:
    """[n] whether the row has an answer."""
    return label >= 0 if label.dtype.kind == "i" else ~np.isnan(label)


def _read(project: Project, checked: CheckedTable, keep: NDArray[np.int64]) -> Labels:
    goal, table = project.goal, checked.table
    if goal.task == "rul" and not project.data.label:
        values = _remaining(project, checked)[keep]
    elif goal.task in ("classification", "anomaly"):
        return _classes(project, texts_of(table[project.data.label], keep))
    else:
        values = numbers_of(table[project.data.label], keep, "label")
    if goal.cap is not None:
        values = np.minimum(values, goal.cap)
    if len(values) and values.min() == values.max():
        raise InputError(f"the target {project.data.label or 'time to the end'!r} is {values[0]:g} in every row; there is nothing to learn")
    return Labels(values, [])


def _classes(project: Project, texts: NDArray[np.str_]) -> Labels:
    column, goal = project.data.label, project.goal
    found, index = np.unique(texts, return_inverse=True)
    classes = [str(name) for name in found]
    if len(classes) < 2:
        raise InputError(f"column {column!r} has {len(classes)} classes; at least 2 are needed")
    if goal.positive and goal.positive not in classes:
        named = ", ".join(classes[:5])
        raise InputError(f"goal.positive = {goal.positive!r} is no value of column {column!r}, which has {named}")
    if goal.task == "anomaly":
        _check_costs(goal, ANOMALY_CLASSES, "goal.task = 'anomaly'")
        positive = goal.positive or classes[-1]
        return Labels((texts == positive).astype(np.int64), list(ANOMALY_CLASSES))
    if len(classes) > MAX_CLASSES:
        raise InputError(f"column {column!r} has {len(classes)} classes, the limit is {MAX_CLASSES}; is goal.task = 'regression' meant?")
    _check_costs(goal, classes, f"column {column!r}")
    return Labels(index.astype(np.int64), classes)


def _check_costs(goal: Goal, classes: list[str], where: str) -> None:
    for true, row in goal.costs.items():
        for name in (true, *row):
            if name not in classes:
                raise InputError(f"goal.costs names class {name!r}, which {where} does not have ({', '.join(classes[:5])})")


def _remaining(project: Project, checked: CheckedTable) -> NDArray[np.float64]:
    """Time (or rows, without a time column) to the end of each row's group, over the whole table: a refused last row is still the end."""
    import pandas

    assert project.data.group is not None  # noqa: S101  # the project's limits say so
    group = checked.table[project.data.group]
    time = pandas.Series(np.arange(len(group), dtype=np.float64) if checked.time is None else checked.time)
    by = group.to_numpy()
    if checked.time is None:
        time = time.groupby(by, sort=False).cumcount().astype(np.float64)
    return (time.groupby(by, sort=False).transform("max") - time).to_numpy(np.float64)


def check_classes_trained(label: NDArray[Any], split: NDArray[np.str_], classes: list[str]) -> None:
    """Refuse a class that validation or test asks for and training never shows.

    Raises:
        InputError: Names the class.
    """
    trained = set(np.unique(label[split == "train"]).tolist())
    for index, name in enumerate(classes):
        if index not in trained:
            raise InputError(f"class {name!r} has no training rows; change the splits or leave the class out of the source")


def check_target_varies(label: NDArray[Any], split: NDArray[np.str_]) -> None:
    """Refuse a target that is constant in training.

    Raises:
        InputError: Names the value.
    """
    train = label[split == "train"]
    if len(train) and train.min() == train.max():
        raise InputError(f"the target is {train[0]:g} in every training row; there is nothing to learn, change the splits")
