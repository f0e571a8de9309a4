"""Whether a Loop of an ONNX graph ends: admitted is only one whose count of turns is a constant of the file.

ONNX ends a Loop after as many turns as its first input says, whatever its condition. A count that comes from a row, or from nowhere, may be
anything.
"""

from dataclasses import dataclass, field
from typing import Final

from edgefleet.graphs.loops import MAX_TURNS
from edgefleet.graphs.wire import BYTES, Budget, fields

_INPUT: Final = 1
_TYPE, _NUMBERS, _NAME, _RAW = 2, 7, 8, 9
_INT64: Final = 7
_BYTES: Final = 8


@dataclass
class LoopFacts:
    """What is seen of the outermost graph on the way through a file.

    Attributes:
        counts: First input of each Loop; "" where there is none.
        values: Values of its initializers by name, None for those that are no single int64.
        made: Names that its inputs and its nodes give values to.
        inner: Whether a Loop stands inside another graph.
    """

    counts: list[str] = field(default_factory=list)
    values: dict[str, list[int | None]] = field(default_factory=dict)
    made: set[str] = field(default_factory=set)
    inner: bool = False

    def endless(self) -> str:
        """Why a Loop is not known to end; "" when all of them do."""
        if self.inner:
            return "it stands inside another loop"
        for name in self.counts:
            known = self.values.get(name, [])
            if len(known) != 1 or known[0] is None or known[0] < 0 or name in self.made:
                return "its count of turns is no constant of the file"
            if known[0] > MAX_TURNS:
                return f"it turns up to {known[0]} times, more than {MAX_TURNS}"
        return ""

    def add_initializer(self, graph: bytes, start: int, end: int, budget: Budget) -> None:
        """Note a tensor of the outermost graph."""
        names, kinds, values = [], [], []
        for entry in fields(graph, start, end, budget):
            if entry.number == _NAME and entry.kind == BYTES:
                names.append(graph[entry.start : entry.end].decode("utf-8", "backslashreplace"))
            elif entry.number == _TYPE:
                kinds.append(entry.value)
            elif entry.number == _RAW:
                raw = graph[entry.start : entry.end] if entry.end - entry.start == _BYTES else b""
                values.append(int.from_bytes(raw, "little", signed=True) if raw else None)
            elif entry.number == _NUMBERS:
                values.append(_only(graph, entry.start, entry.end) if entry.kind == BYTES else None)
        value = values[0] if len(values) == 1 and kinds == [_INT64] else None
        for name in names:
            self.values.setdefault(name, []).append(value)


def first_input(graph: bytes, start: int, end: int, budget: Budget) -> str:
    """Name of a node's first input, "" where it has none."""
    for entry in fields(graph, start, end, budget):
        if entry.number == _INPUT and entry.kind == BYTES:
            return graph[entry.start : entry.end].decode("utf-8", "backslashreplace")
    return ""


def _only(graph: bytes, start: int, end: int) -> int | None:
    """The one number of a packed list of int64 that is not negative; None for every other list."""
    value = 0
    for i, byte in enumerate(graph[start : min(end, start + 10)]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value if start + i + 1 == end and value < 1 << 63 else None
    return None
