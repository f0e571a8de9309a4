"""Tensors of the Open Inference Protocol: JSON (flat or nested) and binary, in and out, each bounded before it is read.

Null and NaN are missing values; infinities and numbers beyond float64 are read as infinity, which the scorer refuses by the input's name.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

# Data type of the protocol -> numpy's; BYTES is a list of texts.
DTYPES: Final = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    "BYTES": "O",
}
MAX_RANK: Final = 4
MAX_PARAMETERS_BYTES: Final = 65_536
_parameters = msgspec.json.Decoder(dict[str, Any] | None)
Values = NDArray[Any]


class TensorRefused(Exception):
    """Tensors that are no rows of the model.

    Attributes:
        reason: Under which their rows are counted: `tensor`, `shape`, `elements` (more values than the limit) or `malformed`.
    """

    def __init__(self, text: str, reason: str = "tensor") -> None:
        self.reason = reason
        super().__init__(text)


class Tensor(msgspec.Struct):
    """One input of a request; `data` is read when its shape is known to be within the limits, `parameters` by `read_parameters`."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()


def read_parameters(raw: msgspec.Raw) -> dict[str, Any]:
    """Parameters of a request, a tensor or an output, bounded before they are parsed; {} where there are none.

    Raises:
        TensorRefused: No object, or a long one.
    """
    text = bytes(raw)
    if not text:
        return {}
    if len(text) > MAX_PARAMETERS_BYTES:
        raise TensorRefused(f"parameters of {len(text)} bytes exceed the limit of {MAX_PARAMETERS_BYTES}", "elements")
    try:
        return _parameters.decode(text) or {}
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise TensorRefused(f"parameters {text[:40]!r} cannot be read: {str(err)[:160]}", "malformed") from err


class ReadTensor(Tensor):
    """One input of a request whose JSON was read as a whole before; `values` are its data, None where it has none."""

    values: Any = None


def read_tensors(inputs: Sequence[Tensor], tail: memoryview, elements: int) -> dict[str, Values]:
    """All inputs by name.

    Args:
        inputs: As they came.
        tail: Bytes of binary tensors, one after the other.
        elements: Values that they may have together.

    Raises:
        TensorRefused: One of them is bad, a name comes twice, together they are beyond `elements`, or bytes are left over.
    """
    found: dict[str, Values] = {}
    for tensor in inputs:
        if tensor.name in found:
            raise bad(tensor.name, "it comes twice")
        count = check_shape(tensor, elements)
        elements -= count
        found[tensor.name], taken = decode(tensor, count, tail)
        tail = tail[taken:]
    if len(tail):
        raise TensorRefused(f"{len(tail)} bytes are left after the last tensor", "malformed")
    return found


def check_shape(tensor: Tensor, elements: int) -> int:
    """Number of values.

    Raises:
        TensorRefused: Unknown data type, or a shape that is no shape or beyond `elements`.
    """
    if tensor.datatype not in DTYPES:
        raise bad(tensor.name, f"its datatype {tensor.datatype[:40]!r} is not one of {', '.join(DTYPES)}")
    shape = tensor.shape
    if not 1 <= len(shape) <= MAX_RANK:
        raise bad(tensor.name, f"its shape has {len(shape)} dimensions, expected 1 to {MAX_RANK}")
    if min(shape) < 0:
        raise bad(tensor.name, f"its shape {shape} has a negative dimension")
    # An empty tensor has a size too: its other dimensions would be allocated.
    if (size := math.prod(max(side, 1) for side in shape)) > elements:
        raise bad(tensor.name, f"{size} values exceed the limit of {elements}; send fewer rows at once", "elements")
    return math.prod(shape)


def decode(tensor: Tensor, count: int, tail: memoryview) -> tuple[Values, int]:
    """Values in the tensor's shape, and the bytes taken from the front of the binary tail.

    Raises:
        TensorRefused: Data that do not fit data type and shape.
    """
    size = read_parameters(tensor.parameters).get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(tail):
            raise bad(tensor.name, f"binary_data_size {str(size)[:40]} is not within the {len(tail)} bytes that are left of the body")
        return _from_binary(tensor, count, tail[:size]).reshape(tensor.shape), size
    if isinstance(tensor, ReadTensor):
        if not isinstance(tensor.values, list):
            raise bad(tensor.name, "it has no list 'data'")
        values = tensor.values
        return _from_json(tensor, count, bool(values) and isinstance(values[0], list), partial(_convert, values)), 0
    raw = bytes(tensor.data)
    if not raw:
        raise bad(tensor.name, "it has neither data nor parameters.binary_data_size")
    # Before they are parsed, because a parsed value takes up to 16 times the bytes of its text.
    if tensor.datatype != "BYTES" and (told := raw.count(b",") + 1) > max(count, 1):
        raise bad(tensor.name, f"data hold {told} values or more, its shape {tensor.shape} says {count}")
    return _from_json(tensor, count, raw[1:].lstrip()[:1] == b"[", partial(_json_values, raw)), 0


def numbers(raw: bytes) -> list[float | None]:
    """A flat JSON list of numbers and nulls.

    Raises:
        ValueError: It is another thing.
        msgspec.DecodeError: The same.
        RecursionError: The same, nested deeply.
    """
    return _json_values(raw, "f", 1)  # type: ignore[no-any-return]


def encode_binary(values: list[Any] | Values, datatype: str) -> bytes:
    """A tensor's bytes, little-endian; of texts each with its length in front."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(part for text in texts for part in (len(text).to_bytes(4, "little"), text))
    return np.asarray(values, DTYPES[datatype]).tobytes()


def bad(name: str, text: str, reason: str = "tensor") -> TensorRefused:
    """A refusal that names the input."""
    return TensorRefused(f"input {name[:80]!r}: {text}", reason)


def _from_binary(tensor: Tensor, count: int, raw: memoryview) -> Values:
    if tensor.datatype == "BYTES":
        return np.array([*_texts(tensor.name, raw, count), None], object)[:-1]  # the None keeps numpy from looking into texts
    dtype = np.dtype(DTYPES[tensor.datatype])
    if len(raw) != count * dtype.itemsize:
        raise bad(tensor.name, f"{len(raw)} bytes are not the {count * dtype.itemsize} of {tensor.datatype} {tensor.shape}")
    if tensor.datatype == "BOOL":
        return np.asarray(np.frombuffer(raw, np.uint8) != 0)
    return np.frombuffer(raw, dtype)


def _texts(name: str, raw: memoryview, count: int) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw) or len(found) == count:
            raise bad(name, f"its {len(raw)} bytes hold more or less than {count} texts, each with its length in front")
        try:
            found.append(str(raw[at + 4 : end], "utf-8"))
        except UnicodeDecodeError as err:
            raise bad(name, f"text {len(found)} is not UTF-8: {err.reason}") from err
        at = end
    if len(found) != count:
        raise bad(name, f"{len(found)} texts are not the {count} that its shape holds")
    return found


def _from_json(tensor: Tensor, count: int, nested: bool, read: Callable[[str, int], Any]) -> Values:
    """Values by `read`, which is given the kind of a value and the depth of the lists."""
    kind = np.dtype(DTYPES[tensor.datatype]).kind
    try:
        values = read(kind, len(tensor.shape) if nested else 1)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which the scorer refuses by name
            array = np.array(values, bool if kind == "b" else DTYPES[tensor.datatype])
    except RecursionError as err:
        raise bad(tensor.name, f"data are nested deeper than its shape {tensor.shape}") from err
    except (ValueError, TypeError, OverflowError, msgspec.DecodeError, msgspec.ValidationError) as err:
        raise bad(tensor.name, f"data do not fit {tensor.datatype} {tensor.shape}: {str(err)[:160]}") from err
    if array.size != count or (nested and array.shape != tuple(tensor.shape)):
        raise bad(tensor.name, f"data hold {array.size} values in shape {list(array.shape)}, its shape {tensor.shape} says {count}")
    return array.reshape(tensor.shape)


def _json_values(raw: bytes, kind: str, depth: int) -> Any:
    try:
        return _decoder(kind, depth).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        if kind != "f" or "out of range" not in str(err):
            raise
        values = json.loads(raw)  # which reads 1e999 as infinity
        if not _only_numbers(values, depth):
            raise
        return values


def _only_numbers(value: Any, depth: int) -> bool:
    if depth == 0:
        return value is None or type(value) in (int, float)
    return type(value) is list and all(_only_numbers(one, depth - 1) for one in value)


def _convert(values: list[Any], kind: str, depth: int) -> Any:
    return msgspec.convert(values, _lists(kind, depth))


@cache
def _decoder(kind: str, depth: int) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(_lists(kind, depth))


@cache
def _lists(kind: str, depth: int) -> Any:
    element: Any = {"f": float | None, "b": bool, "O": str | None}.get(kind, int)
    for _ in range(depth):
        element = list[element]
    return element
