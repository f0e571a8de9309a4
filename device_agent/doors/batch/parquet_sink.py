"""Answers as Parquet, where pyarrow is installed.

A Parquet file is one only when its end is written. Answers are therefore kept as parts of 65,536 rows, which a killed run finds again, and
put together at the end, each as one row group: the disk holds them twice for that moment.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np

from device_agent.doors.batch.answers import Answers
from device_agent.doors.batch.parquet import pyarrow_modules
from device_agent.doors.batch.render import Columns
from device_agent.doors.batch.rows import CHUNK_ROWS
from device_agent.doors.batch.sinks import held, partial_of, writing
from edgefleet.errors import InputError
from edgefleet.files import sync_folder

PART_ROWS: Final = 64 * CHUNK_ROWS


class ParquetSink:
    """Answers as Parquet.

    Args:
        path: Name of the whole file; until then parts are kept in the folder `path` + ".partial".
        columns: Which columns it has.
        whole: Parts of an earlier run to go on from; others are removed. 0 = start anew.
        receipt: As of `TextSink`.

    Raises:
        OutputBusy: Another process writes it; nothing was changed.
        InputError: A part of the journal is not there.
        StorageError: The disk refuses.
        MissingPartError: pyarrow is not installed.
    """

    def __init__(self, path: Path, columns: Columns, whole: int = 0, *, receipt: Path | None = None) -> None:
        self._arrow, self._parquet = pyarrow_modules()
        self._path, self._columns, self._folder, self._parts = path, columns, partial_of(path), whole
        self._waiting: list[Any] = []
        self._count = 0
        self._schema = self._arrow.schema(
            [
                ("row", self._arrow.int64()),
                *((name, self._arrow.string()) for name in ("status", "label")),
                *((name, self._arrow.float32()) for name in ("score", "margin", *(f"p_{name}" for name in columns.classes))),
                ("outlier", self._arrow.bool_()),
                *((name, self._arrow.string()) for name in columns.names[columns.names.index("outlier") + 1 :]),
            ]
        )
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = held(self._folder, os.O_RDONLY)
        try:
            self._open(whole, receipt)
        except BaseException:
            os.close(self._handle)
            raise

    def _open(self, whole: int, receipt: Path | None) -> None:
        with writing(self._folder):
            if whole == 0 and receipt is not None:
                receipt.unlink(missing_ok=True)
            _whole_of(self._path).unlink(missing_ok=True)
            keep = {self._part(k).name for k in range(whole)}
            for found in self._folder.iterdir():
                if found.name not in keep:
                    found.unlink()
        if lost := [name for name in sorted(keep) if not (self._folder / name).exists()]:
            raise InputError(f"{self._folder}: part {lost[0]} is not there, the journal says {whole} parts; start anew without --resume")

    def write(self, answered: Answers) -> None:
        """Add a chunk; a part is written when it is full."""
        self._waiting.append(self._table(answered))
        self._count += len(answered)
        if self._count >= PART_ROWS:
            self._write_part()

    def keep(self) -> int | None:
        """Whole parts, None while rows wait for the next one."""
        return None if self._waiting else self._parts

    def complete(self) -> int | None:
        """Write the last part; all parts."""
        if self._waiting or not self._parts:
            self._write_part()
        return self._parts

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._handle)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.parquet"

    def _write_part(self) -> None:
        table = self._arrow.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        draft = self._folder / "draft"
        with writing(self._folder):
            self._parquet.write_table(table, draft)
            _sync(draft)
            draft.replace(self._part(self._parts))
            sync_folder(self._folder)
        self._waiting, self._count, self._parts = [], 0, self._parts + 1

    def _table(self, answers: Answers) -> Any:
        n, refused = len(answers), answers.refused
        ok = [status == "ok" for status in answers.status]
        values: dict[str, Any] = {
            "row": np.arange(answers.first, answers.first + n),
            "status": answers.status,
            "label": answers.label,
            "score": self._arrow.array(answers.score, from_pandas=True),
            "margin": self._arrow.array(answers.margin, from_pandas=True),
            "outlier": answers.outlier,
            "digest": [answers.digest if good else None for good in ok],
            "error": [str(refused[i]) if i in refused else answers.waiting.get(i) for i in range(n)],
            "reason": [refused[i].reason if i in refused else None for i in range(n)],
        }
        for k, name in enumerate(self._columns.classes):
            values[f"p_{name}"] = self._arrow.array(answers.probabilities[:, k], from_pandas=True)
        if self._columns.explained:
            values["explanation"] = [answers.told[i].text if i in answers.told else None for i in range(n)]
        arrays = [self._arrow.array(values[field.name], type=field.type) for field in self._schema]
        return self._arrow.Table.from_arrays(arrays, schema=self._schema)


def place_parquet(path: Path) -> None:
    """Put the parts together under the final name, durably; nothing is left to do when that was done.

    Raises:
        StorageError: The disk refuses.
        InputError: There is neither a part nor the whole.
    """
    folder, whole = partial_of(path), _whole_of(path)
    with writing(path):
        if not whole.exists() and folder.exists():
            _put_together(sorted(folder.glob("*.parquet")), folder / "draft")
            (folder / "draft").replace(whole)
            sync_folder(path.parent)
        # From here on the parts are not needed: whichever of them are left, the whole is there.
        if folder.exists():
            shutil.rmtree(folder)
        if whole.exists():
            whole.replace(path)
            sync_folder(path.parent)
    if not path.exists():
        raise InputError(f"{path}: the answers were removed, only their journal is left; start anew without --resume")


def _put_together(parts: list[Path], draft: Path) -> None:
    _, parquet = pyarrow_modules()
    with parquet.ParquetWriter(draft, parquet.read_schema(parts[0])) as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part), row_group_size=2 * PART_ROWS)
    _sync(draft)


def _whole_of(path: Path) -> Path:
    return path.with_name(path.name + ".whole")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
