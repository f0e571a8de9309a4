"""Rows as the trainer sees them: raw inputs as one float32 array in column order, labels, and what gates need to know about each row."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.package import Rows, npz_bytes, read_npz

SPLITS: Final = ("train", "validation", "test")
ALL_ROWS: Final = "all"  # the name of the one slice of rows without a declared one


@dataclass(frozen=True)
class DataSet:
    """All rows that obey the schema, in the source's order; with windows, one row per window, at its last row's place.

    Attributes:
        x: [n, F] float32, or windows [n, T, F], oldest row first; NaN = missing, categories as index, unseen -1. Raw: no step has run.
        label: [n] int64 class index (classification), int64 0 normal or 1 strange (anomaly), float64 target (regression, rul).
        split: [n] text, one of SPLITS.
        slices: Declared slice columns, [n] text each; the first is `data.slice`. Empty: none declared.
        row_id: [n] text.
        group: [n] text of what rows share, or None.
        time: [n] float64 seconds, or None.
        weight: [n] float64 weights of training rows, or None: all 1.
        classes: Class names, the index is the label; empty for regression; ["normal", "strange"] for anomaly.
        breaches: Rows that break the schema and are left out.
        named_breaches: The first of them, with row, column, value and limit.
        digest: Sha256 of everything above.
    """

    x: NDArray[np.float32]
    label: NDArray[Any]
    split: NDArray[np.str_]
    slices: dict[str, NDArray[np.str_]]
    row_id: NDArray[np.str_]
    group: NDArray[np.str_] | None
    time: NDArray[np.float64] | None
    weight: NDArray[np.float64] | None
    classes: list[str]
    breaches: int
    named_breaches: list[str]
    digest: str = ""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def slice(self) -> NDArray[np.str_]:
        """[n] text of the first declared slice column; "all" where none is declared."""
        return next(iter(self.slices.values()), np.full(len(self), ALL_ROWS))

    def of(self, split: str) -> "DataSet":
        """The rows of one split, in order."""
        return self.take(np.flatnonzero(self.split == split))

    def take(self, index: NDArray[Any]) -> "DataSet":
        """Some rows, in the order of `index`."""

        def some(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: array[index] for name, array in value.items()}
            return value[index] if isinstance(value, np.ndarray) else value

        return replace(self, **{field.name: some(getattr(self, field.name)) for field in fields(self)})

    def rows(self, index: NDArray[Any]) -> Rows:
        """Some rows as a model package keeps them."""
        return Rows(x=self.x[index], label=self.label[index], slice=self.slice[index], row_id=self.row_id[index])

    def with_digest(self) -> "DataSet":
        """The same with `digest` computed."""
        return replace(self, digest=_digest(self._arrays(), self._notes()))

    def to_bytes(self) -> bytes:
        """A deterministic .npz without pickles; `from_bytes` reads it."""
        notes = msgspec.json.encode({**self._notes(), "digest": self.digest})
        return npz_bytes({**self._arrays(), "notes": np.frombuffer(notes, np.uint8)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "DataSet":
        """What `to_bytes` wrote.

        Raises:
            ArtifactError: Damaged.
        """
        arrays = read_npz(content, (), "data set")
        notes = msgspec.json.decode(arrays.pop("notes").tobytes())
        slices = {name: arrays.pop(f"slice:{name}") for name in notes.pop("slices")}
        return cls(**{"group": None, "time": None, "weight": None, **arrays, **notes, "slices": slices})

    def _arrays(self) -> dict[str, NDArray[Any]]:
        named = {name: getattr(self, name) for name in ("x", "label", "split", "row_id", "group", "time", "weight")}
        return {name: array for name, array in named.items() if array is not None} | {f"slice:{k}": v for k, v in self.slices.items()}

    def _notes(self) -> dict[str, Any]:
        return {"slices": list(self.slices), "classes": self.classes, "breaches": self.breaches, "named_breaches": self.named_breaches}


def _digest(arrays: dict[str, NDArray[Any]], notes: dict[str, Any]) -> str:
    digest = hashlib.sha256(msgspec.json.encode(notes))
    for name, array in arrays.items():
        # Text is hashed as UTF-8, because numpy pads it to the longest one.
        content = "\0".join(array.tolist()).encode() if array.dtype.kind == "U" else np.ascontiguousarray(array).tobytes()
        digest.update(f"{name}:{array.dtype.kind}{array.shape}{len(content)}:".encode() + content)
    return digest.hexdigest()
