"""Labelled rows that nothing was trained on: what an imported model or a finished package is judged with. All are validation rows."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from trainer.dataset import DataSet
from trainer.labels import ANOMALY_CLASSES, read_labels
from trainer.project import Project
from trainer.table_checks import MISSING_TEXT, check_table, texts_of

if TYPE_CHECKING:
    import pandas

    from trainer.table_checks import CheckedTable

MAX_NAMED: Final = 5


def new_rows(project: Project, table: "pandas.DataFrame", classes: list[str]) -> DataSet:
    """The rows of a table, labelled by a model's own class order.

    Args:
        project: The settings: schema, what the columns mean, window.
        table: The source, read.
        classes: The model's classes in its own order; not read for other tasks than classification.

    Raises:
        InputError: A column is missing, no row obeys the schema, or a label is none of `classes`.
    """
    project = for_any_rows(project)
    checked = check_table(project, table)
    keep = np.flatnonzero(~checked.refused)
    named = [str(breach) for breach in checked.breaches(MAX_NAMED)]
    if len(keep) == 0:
        raise InputError(f"none of {len(checked.refused)} rows obeys the schema. {named[0]}; mend the data")
    x = checked.x[keep]
    checked.checks.clip(x)
    data = project.data
    labels, own_classes = _labels(project, checked, keep, classes)
    slices = dict.fromkeys([*([data.slice] if data.slice else []), *data.slices, *project.gates.fairness])
    rows = DataSet(
        x=x,
        label=labels,
        split=np.full(len(keep), "validation"),
        slices={name: texts_of(table[name], keep, missing=MISSING_TEXT) for name in slices},
        row_id=keep.astype(str) if data.id is None else texts_of(table[data.id], keep),
        group=None if data.group is None else texts_of(table[data.group], keep),
        time=None if checked.time is None else checked.time[keep],
        weight=None,
        classes=own_classes,
        breaches=int(checked.refused.sum()),
        named_breaches=named,
    )
    return (rows if project.cleaning.window is None else _windows(rows, project)).with_digest()


def for_any_rows(project: Project, **changes: Any) -> Project:
    """The settings without what only training needs, a split column and weights; `changes` are further ones of [data]."""
    splits = msgspec.structs.replace(project.data.splits, method="random")
    data = msgspec.structs.replace(project.data, splits=splits, weight=None, class_weight="none", **changes)
    changed: Project = msgspec.structs.replace(project, data=data)
    return changed


def _labels(project: Project, checked: "CheckedTable", keep: NDArray[np.int64], classes: list[str]) -> tuple[NDArray[Any], list[str]]:
    goal, column = project.goal, project.data.label
    if goal.task == "anomaly":
        texts = texts_of(checked.table[column], keep)
        positive = goal.positive or str(np.unique(texts)[-1])
        return (texts == positive).astype(np.int64), list(ANOMALY_CLASSES)
    if goal.task != "classification":
        labels = read_labels(project, checked, keep)
        return labels.values, []
    texts = texts_of(checked.table[column], keep)
    place = {name: at for at, name in enumerate(classes)}
    if unknown := sorted(set(np.unique(texts).tolist()) - set(place)):
        raise InputError(
            f"column {column!r} holds {unknown[0]!r}, which the model cannot answer; its classes are {', '.join(classes[:12])}"
        )
    return np.array([place[text] for text in texts.tolist()], np.int64), classes


def _windows(rows: DataSet, project: Project) -> DataSet:
    from trainer.windows import make_windows

    window = project.cleaning.window
    assert window is not None  # noqa: S101  # the caller looked
    group = np.full(len(rows), "") if rows.group is None else rows.group
    order = np.argsort(np.unique(group, return_inverse=True)[1], kind="stable")
    ordered = rows.take(order)
    windows, last = make_windows(ordered.x, group[order], ordered.time, window)
    if len(windows) == 0:
        raise InputError(f"no group of the {len(rows)} rows has {window.rows} rows, which one answer needs; give longer series")
    return replace(ordered.take(last), x=windows)
