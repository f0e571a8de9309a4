"""Writes a list of operations, one call per primitive; equal operations are written once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgefleet.errors import ArtifactError
from edgefleet.steps.ops import MAX_OPS, Op, Shape, make_op

# An operand: the place of an operation, or a number or array that becomes a constant.
Operand = int | np.floating[Any] | NDArray[Any]


class Trace:
    """A growing list. Number 0 is the raw row [F] or window [T, F]; every method returns the place of what it wrote.

    A plain int is a place; constants are given as numpy numbers or arrays.

    Args:
        shape: Of the raw row, without the batch axis.

    Raises:
        ArtifactError: From every method, when the operation is not allowed on its operands.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.ops: list[Op] = []
        self._known: dict[tuple[Any, ...], int] = {}
        self.put("input", (), numbers=shape)

    def put(self, kind: str, args: Sequence[int], *, numbers: Sequence[int] = (), values: ArrayLike | None = None) -> int:
        """Write one operation, unless the same stands already."""
        table = None if values is None else np.asarray(values, np.float32)
        key = (kind, tuple(args), tuple(numbers), None if table is None else (table.shape, table.tobytes()))
        if key not in self._known:
            if len(self.ops) >= MAX_OPS:
                raise ArtifactError(f"the steps have more than {MAX_OPS} operations; declare fewer steps or a shorter window")
            self.ops.append(make_op(self.ops, kind, args, numbers, table))
            self._known[key] = len(self.ops) - 1
        return self._known[key]

    def shape(self, i: int) -> Shape:
        """Shape of a result, without the batch axis."""
        return self.ops[i].shape

    def _wide(self, kind: str, *operands: Operand) -> int:
        return self.put(kind, [o if isinstance(o, int) else self.put("const", (), values=o) for o in operands])

    def add(self, a: Operand, b: Operand) -> int:
        """A + b."""
        return self._wide("add", a, b)

    def sub(self, a: Operand, b: Operand) -> int:
        """A - b."""
        return self._wide("sub", a, b)

    def mul(self, a: Operand, b: Operand) -> int:
        """A * b."""
        return self._wide("mul", a, b)

    def eq(self, a: Operand, b: Operand) -> int:
        """Whether a == b; NaN equals nothing."""
        return self._wide("eq", a, b)

    def lt(self, a: Operand, b: Operand) -> int:
        """Whether a < b; never with NaN."""
        return self._wide("lt", a, b)

    def isnan(self, a: int) -> int:
        """Whether a is missing."""
        return self._wide("isnan", a)

    def where(self, condition: int, a: Operand, b: Operand) -> int:
        """A where the condition holds, else b."""
        return self._wide("where", condition, a, b)

    def f32(self, condition: int) -> int:
        """1 where the condition holds, else 0."""
        return self.put("f32", (condition,))

    def count_le(self, a: int, edges: ArrayLike) -> int:
        """How many of the rising edges are <= a: an exact integer; 0 for NaN."""
        return self.put("count_le", (a,), values=edges)

    def lookup(self, count: int, table: ArrayLike) -> int:
        """The table's value at a count of edges; the table is one longer than the edges."""
        return self.put("lookup", (count,), values=table)

    def take(self, a: int, columns: Sequence[int]) -> int:
        """Some columns in some order; all in their order is no operation."""
        same = list(columns) == list(range(self.shape(a)[-1]))
        return a if same else self.put("take", (a,), numbers=[int(c) for c in columns])

    def concat(self, parts: Sequence[int]) -> int:
        """Columns of all parts side by side."""
        return parts[0] if len(parts) == 1 else self.put("concat", parts)

    def rows(self, a: int, first: int, stop: int) -> int:
        """Rows first .. stop - 1 of a window."""
        return a if (first, stop) == (0, self.shape(a)[0]) else self.put("rows", (a,), numbers=(first, stop))

    def stack(self, parts: Sequence[int]) -> int:
        """Rows of all parts, one after the other."""
        return parts[0] if len(parts) == 1 else self.put("stack", parts)

    def reshape(self, a: int, shape: Sequence[int]) -> int:
        """The same values in another shape."""
        return a if tuple(shape) == self.shape(a) else self.put("reshape", (a,), numbers=shape)
