"""Raw rows into a graph's input tensors, its outputs back into arrays of one entry a row."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.signature import Signature, Tensor

Outputs = dict[str, NDArray[Any]]
ROWS_AT_A_TIME: Final = 1024


def in_pieces(
    x: NDArray[np.float32], signature: Signature, inputs: list[Tensor], call: Callable[[dict[str, NDArray[Any]]], Outputs]
) -> Outputs:
    """Run as many rows at a time as the graph takes; the last piece is filled up with its last row where the batch is fixed."""
    batch = inputs[0].shape[0] if inputs[0].shape else None
    size = batch or ROWS_AT_A_TIME
    parts: list[Outputs] = []
    for begin in range(0, len(x), size):
        piece = x[begin : begin + size]
        full = piece if batch is None or len(piece) == batch else np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), axis=0)])
        outputs = call(_feed(full, signature, inputs))
        parts.append({name: _array(value, len(full))[: len(piece)] for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _array(value: Any, rows: int) -> NDArray[np.float64]:
    if isinstance(value, list):  # one dictionary a row: class to probability
        value = [[entry[key] for key in sorted(entry)] for entry in value]
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return np.full(rows, np.nan)
    if array.ndim == 0 or len(array) != rows:
        raise InputError(f"the model answers an array of shape {array.shape} to {rows} rows; its first side must be the rows")
    return array.astype(np.float64)


def _feed(x: NDArray[np.float32], signature: Signature, inputs: list[Tensor]) -> dict[str, NDArray[Any]]:
    if len(inputs) == 1:
        only = inputs[0]
        return {only.name: _stored(x.reshape(len(x), *row_sides(only, x[0].size)), only)}
    places = {name: at for at, name in enumerate(signature.columns)}
    feed: dict[str, NDArray[Any]] = {}
    for tensor in inputs:
        at = places[column_of(tensor.name, signature.columns)]
        column = x[:, at]
        if tensor.dtype == "text":
            values = texts(column, signature.categories[at])
            feed[tensor.name] = np.where(values == None, "", values).astype(object).reshape(-1, 1)  # noqa: E711  # elementwise
        else:
            feed[tensor.name] = _stored(column.reshape(-1, 1), tensor)
    return feed


def column_of(tensor: str, columns: list[str]) -> str:
    """The column that an input of a graph is named after; converters replace what is no letter or digit.

    Raises:
        InputError: None.
    """
    for name in columns:
        if name == tensor or "".join(c if c.isalnum() else "_" for c in name) == tensor:
            return name
    raise InputError(f"the model's input {tensor!r} is no column of the data; rename the column")


def row_sides(tensor: Tensor, values: int) -> list[int]:
    """Sides of one row inside the tensor, so that they hold `values` numbers.

    Raises:
        InputError: They cannot.
    """
    sides = tensor.shape[1:] if tensor.shape else [None]
    known = int(np.prod([side for side in sides if side is not None], dtype=np.int64))
    unknown = sides.count(None)
    if (unknown == 0 and known != values) or unknown > 1 or (unknown == 1 and values % max(known, 1)):
        takes = "x".join("?" if side is None else str(side) for side in sides)
        raise InputError(f"the model takes {takes} numbers a row, the data have {values}; give the columns it was trained on")
    return [values // known if side is None else side for side in sides]


def open_sides(shape: list[Any]) -> list[int | None]:
    """A shape with None for every side that is no number."""
    return [side if isinstance(side, int) and side > 0 else None for side in shape]


def _stored(values: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    """Real values as the tensor stores them."""
    kind = np.dtype(tensor.dtype)
    if kind.kind == "f":
        return values.astype(kind)
    info = np.iinfo(kind)
    real = np.nan_to_num(values.astype(np.float64), nan=0.0)
    stored = real / tensor.scale + tensor.zero_point if tensor.scale else real
    return np.clip(np.round(stored), info.min, info.max).astype(kind)


def real_values(stored: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """What a quantized tensor stands for."""
    return (stored.astype(np.float64) - tensor.zero_point) * tensor.scale if tensor.scale else stored


def texts(column: NDArray[np.float32], categories: list[str]) -> NDArray[Any]:
    """Category indices as the texts they stand for; unseen and missing become None."""
    known = np.array([*categories, None], object)
    return np.asarray(known[np.where(np.isfinite(column) & (column >= 0), column, len(categories)).astype(np.int64)])
