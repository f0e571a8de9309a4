"""The list of operations as a value: run by numpy, kept as JSON."""

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.errors import ArtifactError, InputError
from edgefleet.steps.ops import MAX_ELEMENTS, MAX_OPS, Op, Shape, make_op

FORMAT_VERSION: Final = 1
MAX_STEPS_BYTES: Final = 16 * 1024 * 1024
# Values of the widest operation that are worked on at once: they stay in the processor's cache.
_CHUNK_VALUES: Final = 1 << 17
_MAX_ROW_VALUES: Final = 1 << 26  # 256 MiB of float32

_NUMPY: Final[dict[str, Callable[..., Any]]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "eq": np.equal, "lt": np.less, "isnan": np.isnan, "where": np.where,
}  # fmt: skip


class _StoredOp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: str
    args: list[int] = []
    numbers: list[int] = []
    values: str | None = None  # little-endian float32 in base64: exact, and NaN and infinity are no JSON numbers
    values_shape: list[int] = []


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format_version: int
    names: list[str]
    column_sources: list[int]
    ops: list[_StoredOp]


@dataclass(frozen=True, eq=False)
class Steps:
    """Cleaning of one model: raw rows in, what the model was fitted on out.

    Attributes:
        ops: The operations; the first is the raw row or window, the last the result. At least one.
        names: Columns of the result (its last axis).
        column_sources: For each of them the raw input (column of the schema) that it derives from.
    """

    ops: tuple[Op, ...]
    names: tuple[str, ...]
    column_sources: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a list that cannot be run or named."""
        if not self.ops or self.ops[0].kind != "input" or any(op.kind == "input" for op in self.ops[1:]):
            raise ArtifactError("steps: the first operation, and no other, must be the input")
        if (values := sum(math.prod(op.shape) for op in self.ops)) > _MAX_ROW_VALUES:
            raise ArtifactError(f"steps: one row takes {values} intermediate values, the limit is {_MAX_ROW_VALUES}; shorten the window")
        last = self.ops[-1]
        if last.truth or last.kind == "const":
            raise ArtifactError(f"steps: the last operation is {last.kind}, which is no float32 column")
        if len(self.names) != last.shape[-1] or len(self.column_sources) != last.shape[-1]:
            raise ArtifactError(f"steps: {len(self.names)} names, {len(self.column_sources)} sources for {last.shape[-1]} columns")
        if any(not 0 <= source < self.input_shape[-1] for source in self.column_sources):
            raise ArtifactError(f"steps: a source is not one of the {self.input_shape[-1]} inputs")

    @classmethod
    def identity(cls, shape: Sequence[int], names: Sequence[str] = ()) -> "Steps":
        """Steps that change nothing.

        Args:
            shape: Of one row, without the batch axis.
            names: Of its columns; x0, x1 .. when left out.
        """
        width = int(shape[-1])
        return cls((make_op((), "input", (), shape, None),), tuple(names) or tuple(f"x{i}" for i in range(width)), tuple(range(width)))

    @property
    def is_identity(self) -> bool:
        """Whether the result is the raw row itself."""
        return len(self.ops) == 1

    @property
    def input_shape(self) -> Shape:
        """Of one raw row, [F] or [T, F]."""
        return self.ops[0].shape

    @property
    def output_shape(self) -> Shape:
        """Of one cleaned row."""
        return self.ops[-1].shape

    @property
    def sources(self) -> list[int]:
        """For each value of a cleaned row, in row-major order, the raw input that it derives from: attributions are summed by it."""
        return list(self.column_sources) * math.prod(self.output_shape[:-1])

    def run(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Clean rows; the answer of a row does not depend on the others.

        Args:
            x: [n, *input_shape], rounded to float32 first.

        Returns:
            [n, *output_shape] float32.

        Raises:
            InputError: Another shape.
        """
        raw = np.asarray(x, np.float32)
        if raw.shape[1:] != self.input_shape or raw.ndim == 0:
            raise InputError(f"rows of shape {list(raw.shape[1:])} do not fit these cleaning steps; expected {list(self.input_shape)}")
        if self.is_identity:
            return raw
        at_once = max(1, _CHUNK_VALUES // max(math.prod(op.shape) for op in self.ops if op.kind != "const"))
        result = np.empty((len(raw), *self.output_shape), np.float32)
        for i in range(0, len(raw), at_once):
            result[i : i + at_once] = evaluate(self.ops, {0: raw[i : i + at_once]}, len(self.ops) - 1)
        return result

    def to_json(self) -> bytes:
        """Canonical JSON: equal steps give equal bytes."""
        ops = [_stored(op) for op in self.ops]
        whole = _Stored(format_version=FORMAT_VERSION, names=list(self.names), column_sources=list(self.column_sources), ops=ops)
        return canonical_json(msgspec.to_builtins(whole))

    @classmethod
    def from_json(cls, content: bytes) -> "Steps":
        """What `to_json` wrote, from bytes of any origin.

        Raises:
            ArtifactError: Too large, no JSON, of an unknown version, or an operation breaks its rules.
        """
        if len(content) > MAX_STEPS_BYTES:
            raise ArtifactError(f"steps: {len(content)} bytes exceed the limit of {MAX_STEPS_BYTES}")
        try:
            stored = msgspec.json.decode(content, type=_Stored)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise ArtifactError(f"steps: {len(content)} bytes are no valid list of steps: {str(err)[:200]}") from err
        if stored.format_version != FORMAT_VERSION:
            raise ArtifactError(
                f"steps: format version {stored.format_version} is unknown, this program reads {FORMAT_VERSION}; upgrade it"
            )
        if len(stored.ops) > MAX_OPS:
            raise ArtifactError(f"steps: {len(stored.ops)} operations exceed the limit of {MAX_OPS}")
        ops: list[Op] = []
        for place, op in enumerate(stored.ops):
            ops.append(make_op(ops, op.kind, op.args, op.numbers, _values(op, place)))
        return cls(tuple(ops), tuple(stored.names), tuple(stored.column_sources))


def evaluate(ops: Sequence[Op], known: dict[int, NDArray[Any]], wanted: int) -> NDArray[np.float32]:
    """One operation's result for a batch.

    Args:
        ops: The list.
        known: Results by place; every operation between the last of them and `wanted` reads only these, constants, and each other.
        wanted: Place of the result.
    """
    results = dict(known)
    with np.errstate(all="ignore"):  # NaN and overflow have a decided fate; numpy need not warn of them
        for i in range(max(known) + 1, wanted + 1):
            results[i] = _one(ops[i], [ops[j].values if ops[j].kind == "const" else results[j] for j in ops[i].args])
    return np.asarray(results[wanted], np.float32)


def _one(op: Op, a: list[Any]) -> Any:
    if op.kind in _NUMPY:
        return _NUMPY[op.kind](*a)
    if op.kind in ("take", "f32", "rows", "reshape", "concat", "stack"):
        return _moved(op, a)
    if op.kind == "count_le":
        # Searching counts as comparing with every edge does, except that numpy sorts NaN last.
        return np.where(np.isnan(a[0]), 0, np.searchsorted(_table(op), a[0], side="right")).astype(np.float32)
    return _table(op)[a[0].astype(np.int32)] if op.kind == "lookup" else op.values


def _moved(op: Op, a: list[Any]) -> Any:
    if op.kind == "take":
        return a[0][..., list(op.numbers)]
    if op.kind == "f32":
        return a[0].astype(np.float32)
    if op.kind == "rows":
        return a[0][:, op.numbers[0] : op.numbers[1]]
    if op.kind == "reshape":
        return a[0].reshape(-1, *op.numbers)
    return np.concatenate(a, axis=1 if op.kind == "stack" else -1)


def _table(op: Op) -> NDArray[np.float32]:
    if op.values is None:
        raise ArtifactError(f"steps: {op.kind} has no table")
    return op.values


def _stored(op: Op) -> _StoredOp:
    numbers = list(op.numbers)
    if op.values is None:
        return _StoredOp(kind=op.kind, args=list(op.args), numbers=numbers)
    text = base64.b64encode(op.values.astype("<f4").tobytes()).decode()
    return _StoredOp(kind=op.kind, args=list(op.args), numbers=numbers, values=text, values_shape=list(op.values.shape))


def _values(op: _StoredOp, place: int) -> NDArray[np.float32] | None:
    if op.values is None:
        return None
    try:
        flat = np.frombuffer(base64.b64decode(op.values, validate=True), "<f4")
        if any(n < 1 for n in op.values_shape) or math.prod(op.values_shape) != len(flat) or len(flat) > MAX_ELEMENTS:
            raise ValueError(f"{len(flat)} numbers for the shape {op.values_shape[:8]}")
        return flat.reshape(op.values_shape).astype(np.float32)
    except (binascii.Error, ValueError) as err:
        raise ArtifactError(f"steps: the values of operation {place} are damaged: {str(err)[:100]}") from err
