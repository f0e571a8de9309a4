"""Cleaning steps to a C function: runs of elementwise operations of one width become one loop over scalars.

Only values that are read outside their run lie in memory, in one arena whose places are used again. Yes and no are 1 and 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from converter.to_c.text import Source, literal, smallest
from edgefleet.errors import VerdictError
from edgefleet.steps import Op, Steps

MAX_OPERATIONS: Final = 4000
MAX_ARENA_BYTES: Final = 64 * 1024  # it lies on the stack
_ELEMENTWISE: Final = {
    "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "eq": "(float)({0} == {1})", "lt": "(float)({0} < {1})",
    "isnan": "(float)({0} != {0})", "where": "{0} != 0.0f ? {1} : {2}", "f32": "{0}", "count_le": "", "lookup": "",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where values lie.

    Attributes:
        order: Places of the operations that the result needs, in order.
        run: The run that an elementwise operation belongs to, by place.
        at: Offset in the arena of the values that are kept there, by place.
        arena: Floats of the arena.
    """

    order: list[int]
    run: dict[int, int]
    at: dict[int, int]
    arena: int


def why_not_steps(steps: Steps) -> str | None:
    """Why steps have no C form, or None."""
    layout = lay_out(steps)
    if len(layout.order) > MAX_OPERATIONS:
        return f"{len(layout.order)} cleaning operations, the limit of the target c is {MAX_OPERATIONS}: declare fewer steps"
    # The raw window is the caller's; what the steps make of it lies on the stack.
    floats = layout.arena + math.prod(steps.output_shape)
    if floats * 4 > MAX_ARENA_BYTES:
        return (
            f"the cleaning steps of one row of shape {list(steps.input_shape)} need {floats * 4} bytes of stack, the limit of the target c "
            f"is {MAX_ARENA_BYTES}: shorten the window or declare fewer steps"
        )
    return None


def write_steps(steps: Steps, name: str, source: Source) -> None:
    """Write `static void NAME(const float *x, float *y)`.

    Raises:
        VerdictError: See `why_not_steps`.
    """
    if (reason := why_not_steps(steps)) is not None:
        raise VerdictError(reason)
    writer = _Writer(steps.ops, lay_out(steps), source)
    body = writer.body()
    arena = f"  float b[{writer.layout.arena}];\n" if writer.layout.arena else ""
    source.function(f"EXACT static void {name}(const float *x, float *y)\n{{\n{arena}{body}}}\n")


def lay_out(steps: Steps) -> Layout:
    """Runs and places of the values of all operations that the result needs."""
    ops, end = steps.ops, len(steps.ops) - 1
    needed = {end}
    for i in range(end, -1, -1):
        if i in needed:
            needed.update(ops[i].args)
    order = sorted(needed - {i for i in needed if ops[i].kind == "input"})
    run, number, width = {}, -1, -1
    for i in order:
        if ops[i].kind in _ELEMENTWISE:
            number += width != _size(ops[i])
            width = _size(ops[i])
            run[i] = number
        elif ops[i].kind != "const":
            width = -1
    users: dict[int, list[int]] = {}
    for i in order:
        for j in ops[i].args:
            users.setdefault(j, []).append(i)
    first, last = _ends(run)
    kept = [i for i in order if i != end and ops[i].kind != "const" and (i not in run or any(run.get(u) != run[i] for u in users[i]))]
    at, live, arena = {}, list[tuple[int, int, int]](), 0
    for i in kept:
        begins = first[run[i]] if i in run else i
        until = max(last[run[u]] if u in run else u for u in users[i])
        live = [value for value in live if value[2] >= begins]
        spot = _gap(live, _size(ops[i]))
        at[i] = spot
        live.append((spot, _size(ops[i]), until))
        arena = max(arena, spot + _size(ops[i]))
    return Layout(order, run, at, arena)


def _ends(run: dict[int, int]) -> tuple[dict[int, int], dict[int, int]]:
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, r in run.items():
        first.setdefault(r, i)
        last[r] = i
    return first, last


def _gap(live: Sequence[tuple[int, int, int]], size: int) -> int:
    spot = 0
    for start, length, _ in sorted(live):
        if spot + size <= start:
            break
        spot = max(spot, start + length)
    return spot


def _size(op: Op) -> int:
    return math.prod(op.shape)


class _Writer:
    def __init__(self, ops: Sequence[Op], layout: Layout, source: Source) -> None:
        self.ops, self.layout, self.source = ops, layout, source
        self.end = len(ops) - 1

    def body(self) -> str:
        lines: list[str] = []
        current = -1
        if self.end == 0:
            return f"  for (int i = 0; i < {_size(self.ops[0])}; i++) y[i] = x[i];\n"
        for i in self.layout.order:
            op, run = self.ops[i], self.layout.run.get(i, -1)
            if op.kind == "const":
                continue
            if current >= 0 and run != current:
                lines.append("  }")
            if run >= 0 and run != current:
                lines.append(f"  for (int i = 0; i < {_size(op)}; i++) {{")
            current = run
            lines += [self._elementwise(i)] if run >= 0 else self._moved(i)
        return "\n".join([*lines, *(["  }"] if current >= 0 else [])]) + "\n"

    def _place(self, i: int, index: str) -> str:
        """An element of a value in memory."""
        if i == 0:
            return f"x[{index}]"
        return f"y[{index}]" if i == self.end else f"b[{self.layout.at[i]} + {index}]" if self.layout.at[i] else f"b[{index}]"

    def _elementwise(self, i: int) -> str:
        op = self.ops[i]
        operands = [self._operand(j, op, self.layout.run[i]) for j in op.args]
        if op.kind == "count_le":
            assert op.values is not None  # noqa: S101  # a rule of the kind
            helper = self.source.helper("count_le")
            text = f"{helper}({self.source.table(op.values)}, {len(op.values)}, {operands[0]})"
        elif op.kind == "lookup":
            assert op.values is not None  # noqa: S101  # a rule of the kind
            text = f"{self.source.table(op.values)}[(int){operands[0]}]"
        else:
            text = _ELEMENTWISE[op.kind].format(*operands)
        store = f"\n    {self._place(i, 'i')} = s{i};" if i in self.layout.at or i == self.end else ""
        return f"    const float s{i} = {text};{store}"

    def _operand(self, j: int, reader: Op, run: int) -> str:
        op = self.ops[j]
        if self.layout.run.get(j) == run:
            return f"s{j}"
        if op.kind == "const":
            assert op.values is not None  # noqa: S101  # a rule of the kind
            if _size(op) == 1:
                return literal(op.values.ravel()[0])
            return f"{self.source.table(op.values)}[{_index(op.shape, reader.shape)}]"
        return self._place(j, _index(op.shape, reader.shape))

    def _moved(self, i: int) -> list[str]:
        op = self.ops[i]
        n, own = _size(op), op.shape[-1]
        if op.kind == "take":
            wide = self.ops[op.args[0]].shape[-1]
            table = self.source.table(op.numbers, smallest(max(op.numbers)))
            row, column = (f"i / {own} * {wide} + ", f"i % {own}") if n != own else ("", "i")
            return [_loop(n, f"{self._place(i, 'i')} = {self._place(op.args[0], f'{row}{table}[{column}]')}")]
        if op.kind in ("rows", "reshape"):
            skip = op.numbers[0] * math.prod(op.shape[1:]) if op.kind == "rows" else 0
            return [_loop(n, f"{self._place(i, 'i')} = {self._place(op.args[0], f'{skip} + i' if skip else 'i')}")]
        lines, before = [], 0
        for j in op.args:
            part = self.ops[j]
            m, width = _size(part), part.shape[-1]
            inside = f"i / {width} * {own} + i % {width}" if op.kind == "concat" and m != width else "i"
            lines.append(_loop(m, f"{self._place(i, f'{before} + {inside}' if before else inside)} = {self._place(j, 'i')}"))
            before += width if op.kind == "concat" else m
        return lines


def _loop(n: int, statement: str) -> str:
    return f"  for (int i = 0; i < {n}; i++) {statement};"


def _index(shape: Sequence[int], wide: Sequence[int]) -> str:
    """Index of the element that is broadcast to element i of a wider shape.

    >>> _index((2, 3), (2, 3)), _index((3,), (2, 3)), _index((2, 1), (2, 3)), _index((1, 1), (2, 3))
    ('i', 'i % 3', 'i / 3', '0')
    """
    if math.prod(shape) == math.prod(wide):
        return "i"
    full = (1,) * (len(wide) - len(shape)) + tuple(shape)
    parts = []
    for axis, side in enumerate(full):
        if side == 1:
            continue
        inner, stride = math.prod(wide[axis + 1 :]), math.prod(full[axis + 1 :])
        at = f"i / {inner}" if inner > 1 else "i"
        at = f"{at} % {side}" if math.prod(wide[:axis]) > 1 else at
        parts.append(f"{at} * {stride}" if stride > 1 else at)
    return " + ".join(parts) or "0"
