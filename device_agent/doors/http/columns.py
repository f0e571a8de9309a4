"""From named tensors to the rows that a model takes, in the order of its inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from device_agent.doors.http.exchange import Refused
from device_agent.doors.http.rows import Rows
from device_agent.doors.http.tensors import Values, bad
from device_agent.scorer import Scorer
from edgefleet.manifest import Manifest

MATRIX = "inputs"  # the tensor of all columns


def row_shape(manifest: Manifest) -> tuple[int, ...]:
    """Shape of what one answer needs: (F,), or (T, F) for windows."""
    features = len(manifest.inputs)
    return (features,) if manifest.window_rows == 1 else (manifest.window_rows, features)


def takes_matrix(manifest: Manifest) -> bool:
    """Whether the columns can come as one tensor of numbers; with an input of that name, each column is a tensor of its own."""
    return all(column.name != MATRIX for column in manifest.inputs)


def check_size(rows: int, values: int, elements: int) -> None:
    """Refuse rows of so many values each that are more than `elements` values together."""
    if rows * values > elements:
        raise Refused(413, f"{rows} rows of {values} values exceed the limit of {elements} values; send fewer rows at once", "elements")


def rows_of(scorer: Scorer, tensors: Mapping[str, Values], elements: int) -> Rows:
    """Rows for `Scorer.score_batch`.

    Args:
        scorer: The model they are for.
        tensors: Either `inputs` [n, F] (windows: [n, T, F]; images also in their own shape), or per column one [n] or [n, 1] ([n, T]).
        elements: Values of all rows at most, those of columns included that were not sent.

    Raises:
        Refused: Other names or shapes, or too many values.
    """
    manifest = scorer.bundle.manifest
    if takes_matrix(manifest) and MATRIX in tensors:
        if len(tensors) > 1:
            raise Refused(400, f"send either one tensor {MATRIX!r} or one tensor per column, not {len(tensors)} tensors", "shape")
        return _matrix(manifest, tensors[MATRIX])
    return _columns(manifest, tensors, elements)


def _matrix(manifest: Manifest, values: Values) -> Values:
    shape = row_shape(manifest)
    if values.dtype == object:
        raise bad(MATRIX, "texts go in one BYTES tensor per column; this tensor takes numbers, of categories their index", "shape")
    if manifest.window_rows == 1 and values.shape[1:] == tuple(manifest.shape):
        values = values.reshape(len(values), *shape)
    if values.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise bad(MATRIX, f"shape {list(values.shape)} is not the [n, {expected}] that the model takes", "shape")
    return values


def _columns(manifest: Manifest, tensors: Mapping[str, Values], elements: int) -> Rows:
    names = [column.name for column in manifest.inputs]
    if unknown := [name for name in tensors if name not in set(names)]:
        some = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
        raise bad(unknown[0], f"the model has no such input; it takes {MATRIX!r} (all columns) or one tensor for each of {some}", "shape")
    n = len(next(iter(tensors.values())))
    check_size(n, manifest.window_rows * len(names), elements)
    shape = (n,) if manifest.window_rows == 1 else (n, manifest.window_rows)
    found = {name: _column(name, values, shape) for name, values in tensors.items()}
    if all(values.dtype != object for values in found.values()):
        matrix = np.full((*shape, len(names)), np.nan, np.float32)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the scorer refuses by name
            for i, name in enumerate(names):
                if name in found:
                    matrix[..., i] = found[name]
        return matrix
    missing = np.full(shape, None, object)
    stacked: list[Any] = np.stack([found.get(name, missing).astype(object) for name in names], axis=-1).tolist()
    return stacked


def _column(name: str, values: Values, shape: tuple[int, ...]) -> Values:
    if values.shape not in (shape, (*shape, 1)):
        raise bad(name, f"shape {list(values.shape)} is not the {list(shape)} of a column; the first tensor has {shape[0]} rows", "shape")
    return values.reshape(shape)
