"""The primitives: what each takes, which shape it gives, and what is refused.

Shapes leave out the batch axis. Constants have none, so their rank may be smaller than that of what they meet, never larger.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError

Kind = Literal[
    "input", "const", "add", "sub", "mul", "eq", "lt", "isnan", "where", "f32", "take", "concat", "rows", "stack", "reshape",
    "count_le", "lookup",
]  # fmt: skip

# How many operands; None is one or more.
ARITY: Final[dict[str, int | None]] = {
    "input": 0, "const": 0, "add": 2, "sub": 2, "mul": 2, "eq": 2, "lt": 2, "isnan": 1, "where": 3, "f32": 1, "take": 1, "concat": None,
    "rows": 1, "stack": None, "reshape": 1, "count_le": 1, "lookup": 1,
}  # fmt: skip
TRUTHS: Final = frozenset({"eq", "lt", "isnan"})  # they answer yes or no; only `where` and `f32` take such an answer
MAX_OPS: Final = 20_000
MAX_ELEMENTS: Final = 1 << 22  # of one row's value or of a constant: 16 MiB of float32
MAX_RANK: Final = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Op:
    """One primitive.

    Attributes:
        kind: Which one.
        args: Places of its operands in the list, all before its own.
        numbers: Integers that belong to it: columns of `take`, [first, last + 1] of `rows`, the shape of `reshape`; else empty.
        values: float32: the constant, the rising edges of `count_le` (how many are <= x) or the table of `lookup`; else None.
        shape: Of its result.
    """

    kind: Kind
    args: tuple[int, ...]
    numbers: tuple[int, ...]
    values: NDArray[np.float32] | None
    shape: Shape

    @property
    def truth(self) -> bool:
        """Whether the result is yes or no instead of float32."""
        return self.kind in TRUTHS


def make_op(ops: Sequence[Op], kind: str, args: Sequence[int], numbers: Sequence[int], values: NDArray[Any] | None) -> Op:
    """The next operation of a list, checked.

    Args:
        ops: The list so far.
        kind: Of the new operation.
        args: Places of its operands.
        numbers: See `Op`.
        values: See `Op`; rounded to float32.

    Raises:
        ArtifactError: It breaks a rule of its kind; the message says which operation and which rule.
    """
    where = f"operation {len(ops)} ({str(kind)[:20]})"
    if kind not in ARITY:
        raise ArtifactError(f"{where}: unknown kind; this program knows {', '.join(ARITY)}")
    if any(not 0 <= i < len(ops) for i in args) or len(args) != (ARITY[kind] if ARITY[kind] is not None else max(1, len(args))):
        raise ArtifactError(f"{where}: operands {list(args)[:8]} do not stand before it or are not {ARITY[kind]}")
    made = None if values is None else np.array(values, np.float32, order="C")
    if made is not None:
        made.flags.writeable = False
    operands = [ops[i] for i in args]
    _check_truths(where, kind, operands)
    shape = _shape(where, kind, operands, tuple(numbers), made)
    if len(shape) > MAX_RANK or not 0 < math.prod(shape) <= MAX_ELEMENTS:
        raise ArtifactError(f"{where}: shape {list(shape)[:8]} is empty or exceeds {MAX_ELEMENTS} values or {MAX_RANK} axes")
    return Op(kind, tuple(args), tuple(numbers), made, shape)  # type: ignore[arg-type]  # looked up in ARITY above


def _check_truths(where: str, kind: str, operands: Sequence[Op]) -> None:
    wanted = [kind == "f32" or (kind == "where" and i == 0) for i in range(len(operands))]
    if [op.truth for op in operands] != wanted:
        raise ArtifactError(f"{where}: only the condition of `where` and the operand of `f32` are answers of eq, lt or isnan")


def _shape(where: str, kind: str, operands: Sequence[Op], numbers: Shape, values: NDArray[np.float32] | None) -> Shape:
    if (values is not None) != (kind in ("const", "count_le", "lookup")):
        raise ArtifactError(f"{where}: values are missing, or not part of this kind")
    if bool(numbers) != (kind in ("input", "take", "rows", "reshape")):
        raise ArtifactError(f"{where}: numbers are missing, or not part of this kind")
    if kind == "input":
        return numbers
    if kind == "const":
        assert values is not None  # noqa: S101  # checked above
        return tuple(values.shape)
    if kind in ("add", "sub", "mul", "eq", "lt", "where"):
        return _broadcast(where, operands)
    if any(op.kind == "const" for op in operands):
        raise ArtifactError(f"{where}: a constant has no rows to work on")
    shapes = [op.shape for op in operands]
    if kind in ("concat", "stack"):
        return _joined(where, shapes, axis=len(shapes[0]) - 1 if kind == "concat" else 0)
    return _of_one(where, kind, operands[0], numbers, values)


def _broadcast(where: str, operands: Sequence[Op]) -> Shape:
    ranks = {len(op.shape) for op in operands if op.kind != "const"}
    if len(ranks) != 1 or any(len(op.shape) > max(ranks) for op in operands):
        raise ArtifactError(f"{where}: operands of shapes {[list(op.shape) for op in operands]} need one rank, constants at most that")
    try:
        return np.broadcast_shapes(*(op.shape for op in operands))
    except ValueError as err:
        raise ArtifactError(f"{where}: shapes {[list(op.shape) for op in operands]} do not fit each other") from err


def _joined(where: str, shapes: Sequence[Shape], axis: int) -> Shape:
    first = shapes[0]
    if any(len(s) != len(first) or s[:axis] + s[axis + 1 :] != first[:axis] + first[axis + 1 :] for s in shapes):
        raise ArtifactError(f"{where}: shapes {[list(s) for s in shapes][:8]} cannot be joined")
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])


def _of_one(where: str, kind: str, operand: Op, numbers: Shape, values: NDArray[np.float32] | None) -> Shape:
    shape = operand.shape
    if kind == "take" and all(0 <= i < shape[-1] for i in numbers):
        return (*shape[:-1], len(numbers))
    if kind == "rows" and len(numbers) == 2 and 0 <= numbers[0] < numbers[1] <= shape[0]:
        return (numbers[1] - numbers[0], *shape[1:])
    if kind == "reshape" and all(n > 0 for n in numbers) and math.prod(numbers) == math.prod(shape):
        return numbers
    # Edges must rise, or counting them and searching them would differ; NaN fails the comparison, too.
    if kind == "count_le" and values is not None and values.ndim == 1 and len(values) and bool(np.all(values[1:] > values[:-1])):
        return shape
    # A table is read at a count of edges only, so no row can read beside it.
    counted = operand.values if operand.kind == "count_le" else None
    if kind == "lookup" and values is not None and counted is not None and values.shape == (len(counted) + 1,):
        return shape
    if kind in ("isnan", "f32"):
        return shape
    raise ArtifactError(f"{where}: its numbers {list(numbers)[:8]} or table do not fit the shape {list(shape)} of what it reads")
