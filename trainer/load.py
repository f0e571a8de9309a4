"""From the source to the rows that a model is trained and judged on: read, check, label, split, and cut into windows."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from trainer.dataset import DataSet
from trainer.labels import check_classes_trained, check_target_varies, is_labelled, read_labels
from trainer.project import Project
from trainer.settings import Window
from trainer.sources import read_table
from trainer.splits import DROPPED, assign_splits, check_not_empty, earlier_twins
from trainer.table_checks import MISSING_TEXT, CheckedTable, check_table, numbers_of, texts_of

if TYPE_CHECKING:
    import pandas

MAX_NAMED_BREACHES: Final = 5


def load_rows(project: Project, table: "pandas.DataFrame | None" = None) -> DataSet:
    """Read the source, check it against the schema, make the rows.

    Args:
        project: The settings.
        table: The source when it was read already.

    Raises:
        ConfigError: The source cannot be found or called (see `trainer.sources`).
        InputError: The rows are not what the settings say; names column, value and remedy.
    """
    return rows_of(project, check_table(project, read_table(project) if table is None else table))


def rows_of(project: Project, checked: CheckedTable) -> DataSet:
    """The rows of a judged table; see `load_rows`."""
    from trainer.gates.leakage import row_hashes  # what G3 calls equal

    refused = checked.refused
    keep = np.flatnonzero(~refused)
    named = [str(breach) for breach in checked.breaches(MAX_NAMED_BREACHES)]
    if len(keep) == 0:
        raise InputError(f"none of {len(refused)} rows obeys the schema. {named[0]}; mend the source or [schema]")
    labels = read_labels(project, checked, keep)
    texts = _texts(project, checked.table, keep)
    time = None if checked.time is None else checked.time[keep]
    x = checked.x[keep] if len(keep) < len(refused) else checked.x
    checked.checks.clip(x)
    split = assign_splits(
        project.data.splits,
        len(keep),
        column=texts.pop("split", None),
        stratum=labels.values if labels.classes else None,
        content=row_hashes(x) if project.data.splits.method == "random" else None,
        group=texts.get("group"),
        time=time,
    )
    rows = DataSet(
        x=x,
        label=labels.values,
        split=split,
        slices={name.removeprefix("slice:"): array for name, array in texts.items() if name.startswith("slice:")},
        row_id=_row_ids(texts.get("id"), project.data.id, keep),
        group=texts.get("group"),
        time=time,
        weight=_weights(project, checked.table, keep),
        classes=labels.classes,
        breaches=int(refused.sum()),
        named_breaches=named,
    )
    if project.cleaning.window is not None:
        rows = _windows(rows, project.cleaning.window)
    rows = _usable(rows)
    if project.data.splits.equal_rows == "purge":
        rows = rows.take(np.flatnonzero(~earlier_twins(row_hashes(rows.x), rows.split)))
    _check_trainable(project, rows)
    return rows.with_digest()


def _texts(project: Project, table: "pandas.DataFrame", keep: NDArray[np.int64]) -> dict[str, NDArray[np.str_]]:
    data = project.data
    texts = {key: texts_of(table[name], keep) for key, name in {"id": data.id, "group": data.group}.items() if name is not None}
    if data.splits.method == "column":
        texts["split"] = texts_of(table[data.split], keep)
    # Columns of gate G10 are slices too: their groups are looked at like any other.
    for name in dict.fromkeys([*([data.slice] if data.slice else []), *data.slices, *project.gates.fairness]):
        texts[f"slice:{name}"] = texts_of(table[name], keep, missing=None if name == data.slice else MISSING_TEXT)
    return texts


def _row_ids(named: NDArray[np.str_] | None, column: str | None, keep: NDArray[np.int64]) -> NDArray[np.str_]:
    if named is None:
        return keep.astype(f"U{len(str(keep[-1]))}")
    found, count = np.unique(named, return_counts=True)
    if len(found) < len(named):
        at = int(np.argmax(count > 1))
        rows = keep[named == found[at]]
        twice = len(named) - len(found)
        raise InputError(
            f"column {column}: {str(found[at])[:40]!r} stands in rows {rows[0]} and {rows[1]} ({twice} repeated ids in all); "
            "ids must be unique, or leave data.id out"
        )
    return named


def _weights(project: Project, table: "pandas.DataFrame", keep: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Declared weights; `data.class_weight` is the training's own business."""
    if project.data.weight is None:
        return None
    weight = numbers_of(table[project.data.weight], keep, "weight")
    if (weight < 0).any() or not weight.any():
        row = keep[int(weight.argmin())]
        raise InputError(f"row {row}, column {project.data.weight}: a weight is at least 0, and one must be above 0")
    return weight


def _usable(rows: DataSet) -> DataSet:
    """Without rows inside a gap of the splits, and without unlabelled ones."""
    kept = np.flatnonzero((rows.split != DROPPED) & is_labelled(rows.label))
    return rows if len(kept) == len(rows) else rows.take(kept)


def _windows(rows: DataSet, window: Window) -> DataSet:
    """One row per window, at the place of its last row. No window reaches over the border of a group or of a split."""
    from trainer.windows import make_windows

    # Rows of one group stand together from here on; within it the table's order is the order of time.
    group = np.zeros(len(rows), np.int64) if rows.group is None else np.unique(rows.group, return_inverse=True)[1]
    order = np.argsort(group, kind="stable")
    ordered = rows.take(order)
    border = np.ones(len(rows), np.bool_)
    border[1:] = (np.diff(group[order]) != 0) | (ordered.split[1:] != ordered.split[:-1])
    run = np.cumsum(border)
    inside = np.flatnonzero(ordered.split != DROPPED)
    time = None if ordered.time is None else ordered.time[inside]
    windows, last = make_windows(ordered.x[inside], run[inside], time, window)
    if len(windows) == 0:
        longest = int(np.bincount(run[inside]).max())
        raise InputError(f"no group has {window.rows} rows in one split, the longest {longest}; set cleaning.window.rows lower")
    return replace(ordered.take(inside[last]), x=windows)


def _check_trainable(project: Project, rows: DataSet) -> None:
    check_not_empty(rows.split, "after windows, gaps and purged rows")
    if project.goal.task == "classification":
        check_classes_trained(rows.label, rows.split, rows.classes)
    elif project.goal.task != "anomaly":
        check_target_varies(rows.label, rows.split)
    train = rows.x[rows.split == "train"]
    flat = train.reshape(-1, train.shape[-1])
    for at, column in enumerate(project.inputs):
        if np.isnan(flat[:, at]).all():
            raise InputError(f"input {column.name!r} is missing in every training row; leave it out of [schema] or mend the source")
