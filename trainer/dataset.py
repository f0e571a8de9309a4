"""Rows as the models see them: one float32 matrix in column order, class indices, and what the gates need to know about each row.

Rows that break the schema are not repaired: they are named (row and column), kept out of the matrix, and gate G1 decides about the rest.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.manifest import Input
from edgefleet.package import Rows
from trainer.project import Project, Source
from trainer.sources import read_table

if TYPE_CHECKING:
    import pandas

SPLITS: Final = ("train", "validation", "test")
MAX_NAMED_BREACHES: Final = 5


@dataclass(frozen=True)
class DataSet:
    """All rows that obey the schema, in the source's order.

    Attributes:
        x: [n, F] float32, NaN = missing.
        label: [n] int64 class index.
        split: [n] text, one of SPLITS.
        slice: [n] text.
        row_id: [n] text.
        group: [n] text of what rows share, or None.
        classes: Class names, sorted; the index is the label.
        breaches: Rows that break the schema and are left out.
        named_breaches: The first of them, with row, column, value and limit.
        digest: Sha256 of everything above.
    """

    x: NDArray[np.float32]
    label: NDArray[np.int64]
    split: NDArray[np.str_]
    slice: NDArray[np.str_]
    row_id: NDArray[np.str_]
    group: NDArray[np.str_] | None
    classes: list[str]
    breaches: int
    named_breaches: list[str]
    digest: str

    def of(self, split: str) -> "DataSet":
        """The rows of one split, in order."""
        return self.take(np.flatnonzero(self.split == split))

    def take(self, index: NDArray[np.int64]) -> "DataSet":
        """Some rows, in the order of `index`."""
        return DataSet(
            x=self.x[index],
            label=self.label[index],
            split=self.split[index],
            slice=self.slice[index],
            row_id=self.row_id[index],
            group=None if self.group is None else self.group[index],
            classes=self.classes,
            breaches=self.breaches,
            named_breaches=self.named_breaches,
            digest=self.digest,
        )

    def rows(self, index: NDArray[np.int64]) -> Rows:
        """Some rows as a model package keeps them."""
        return Rows(x=self.x[index], label=self.label[index], slice=self.slice[index], row_id=self.row_id[index])


def load_rows(project: Project) -> DataSet:
    """Read the source, check it against the schema, make the matrix.

    Raises:
        ConfigError: The source cannot be found or called (see `trainer.sources`).
        InputError: A column is missing, a split is unknown or empty, or there are fewer than two classes.
    """
    table = read_table(project)
    _check_columns(table, project)
    x, broken, named = check_schema(table, project.inputs)
    keep = np.flatnonzero(~broken)
    texts = {key: _text(table, column)[keep] for key, column in _text_columns(project.data).items()}
    everything = np.full(len(keep), "all")
    split, label_text = texts["split"], texts["label"]
    _check_splits(split)
    classes = sorted(set(label_text.tolist()))
    if len(classes) < 2:
        raise InputError(f"column {project.data.label!r} has {len(classes)} classes; a classifier needs at least 2")
    index = {name: i for i, name in enumerate(classes)}
    label = np.array([index[text] for text in label_text], np.int64)
    clipped = _clip(x[keep], project.inputs)
    row_id = texts.get("id", np.array([str(i) for i in keep]))
    slices, group = texts.get("slice", everything), texts.get("group")
    parts: list[NDArray[Any]] = [clipped, label, np.array(classes), split, slices, row_id, everything[:0] if group is None else group]
    return DataSet(
        x=clipped,
        label=label,
        split=split,
        slice=slices,
        row_id=row_id,
        group=group,
        classes=classes,
        breaches=int(broken.sum()),
        named_breaches=named,
        digest=_digest(parts),
    )


def check_schema(table: "pandas.DataFrame", inputs: list[Input]) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """Matrix [n, F] of the input columns, which rows break the schema [n], and the first breaches in words."""
    import pandas

    x = np.empty((len(table), len(inputs)), np.float32)
    broken = np.zeros(len(table), np.bool_)
    named: list[str] = []
    for at, column in enumerate(inputs):
        raw = table[column.name]
        if column.kind == "category":
            index = {text: i for i, text in enumerate(column.categories)}
            values = np.array([np.nan if pandas.isna(cell) else index.get(str(cell), -1) for cell in raw], np.float64)
            wrong = np.zeros(len(table), np.bool_)  # an unseen category is counted by statistics, it is no breach
        else:
            values = pandas.to_numeric(raw, errors="coerce").to_numpy(np.float64, na_value=np.nan)
            wrong = np.isnan(values) & ~raw.isna().to_numpy(np.bool_)
        with np.errstate(over="ignore"):
            x[:, at] = values
        wrong |= np.isinf(x[:, at])
        if not column.missing:
            wrong |= np.isnan(values)
        if column.range_policy == "reject":
            wrong |= _outside(x[:, at], column)
        for row in np.flatnonzero(wrong)[: MAX_NAMED_BREACHES - len(named)]:
            named.append(f"row {row}, column {column.name}: {str(raw.iloc[row])[:40]!r}, expected {_limit(column)}")
        broken |= wrong
    return x, broken, named


def _outside(values: NDArray[np.float32], column: Input) -> NDArray[np.bool_]:
    low = -np.inf if column.low is None else column.low
    high = np.inf if column.high is None else column.high
    return (values < np.float32(low)) | (values > np.float32(high))


def _limit(column: Input) -> str:
    low = "" if column.low is None else f" from {column.low:g}"
    high = "" if column.high is None else f" to {column.high:g}"
    bounds = f"{low}{high}" if column.range_policy == "reject" else ""
    return f"a finite number{bounds}" + (" or nothing" if column.missing else "")


def _clip(x: NDArray[np.float32], inputs: list[Input]) -> NDArray[np.float32]:
    for at, column in enumerate(inputs):
        if column.range_policy == "clip" and (column.low is not None or column.high is not None):
            x[:, at] = np.clip(x[:, at], column.low, column.high)
    return x


def _text_columns(source: Source) -> dict[str, str]:
    columns = {"label": source.label, "split": source.split, "slice": source.slice, "id": source.id, "group": source.group}
    return {key: name for key, name in columns.items() if name is not None}


def _text(table: "pandas.DataFrame", column: str) -> NDArray[np.str_]:
    if table[column].isna().any():
        row = int(np.flatnonzero(table[column].isna())[0])
        raise InputError(f"row {row}, column {column}: empty; every row needs its {column}")
    return table[column].astype(str).to_numpy(np.str_)


def _check_columns(table: "pandas.DataFrame", project: Project) -> None:
    wanted = [column.name for column in project.inputs] + list(_text_columns(project.data).values())
    if absent := [name for name in wanted if name not in table.columns]:
        raise InputError(f"data.source lacks {len(absent)} of {len(wanted)} columns: {', '.join(absent[:5])}; mend the source or [schema]")


def _check_splits(split: NDArray[np.str_]) -> None:
    found = set(split.tolist())
    if unknown := sorted(found - set(SPLITS)):
        raise InputError(f"split {unknown[0]!r} is unknown: every row is one of {', '.join(SPLITS)}")
    if empty := [name for name in SPLITS if name not in found]:
        raise InputError(f"split {empty[0]!r} has no rows; all of {', '.join(SPLITS)} are needed")


def _digest(parts: list[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        # Text is hashed as UTF-8, because numpy pads it to the longest one.
        content = "\0".join(part.tolist()).encode() if part.dtype.kind == "U" else np.ascontiguousarray(part).tobytes()
        digest.update(f"{part.dtype.kind}{part.shape}{len(content)}:".encode() + content)
    return digest.hexdigest()
