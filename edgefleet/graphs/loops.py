"""Whether a loop of a TFLite graph ends: admitted is only one that counts from a constant, by a constant, below a constant.

That is what recurrent layers become. Any other loop might end on the golden rows and run for ever on the next row, and LiteRT has no way
to stop it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgefleet.graphs.flat_tables import Table

MAX_TURNS: Final = 65_536
_CONDITION, _BODY = 0, 1
_OPTIONS: Final = 4
_ACTIVATION: Final = 0
_TYPE, _BUFFER, _VARIABLE = 1, 2, 5
_INT32: Final = 2


@dataclass(frozen=True)
class Operator:
    """One operator with the numbers of its tensors."""

    name: str
    inputs: list[int]
    outputs: list[int]
    table: Table


@dataclass(frozen=True)
class Subgraph:
    """One graph of a file; `buffers` are the whole file's."""

    tensors: list[Table]
    buffers: list[Table]
    inputs: list[int]
    outputs: list[int]
    operators: list[Operator]

    def makers(self, tensor: int) -> list[Operator]:
        """The operators that write a tensor."""
        return [operator for operator in self.operators if tensor in operator.outputs]

    def constant(self, tensor: int) -> int | None:
        """The value of a constant int32 tensor of one element; None for every other."""
        if not 0 <= tensor < len(self.tensors) or tensor in self.inputs or self.makers(tensor):
            return None
        table = self.tensors[tensor]
        buffer = table.number(_BUFFER, "<I")
        if table.number(_TYPE, "<b") != _INT32 or table.number(_VARIABLE, "<B") or not 0 < buffer < len(self.buffers):
            return None
        content = self.buffers[buffer].content(0)
        return int.from_bytes(content, "little", signed=True) if len(content) == 4 else None


def endless(loop: Operator, around: Subgraph, subgraphs: Sequence[Subgraph]) -> str:
    """Why a WHILE is not known to end; "" when it is.

    Args:
        loop: The operator.
        around: The graph that it stands in.
        subgraphs: All graphs of the file.
    """
    options = loop.table.table(_OPTIONS)
    if options is None:
        return "it has no condition"
    places = options.number(_CONDITION, "<i"), options.number(_BODY, "<i")
    if not all(0 <= place < len(subgraphs) for place in places):
        return "its condition or its body is missing"
    condition, body = (subgraphs[place] for place in places)
    width = len(loop.inputs)
    if any(len(set(part.inputs)) != width or len(part.inputs) != width for part in (condition, body)) or len(body.outputs) != width:
        return "its values do not fit its condition and its body"
    if any(operator.name == "WHILE" for part in (condition, body) for operator in part.operators):
        return "it holds another loop"
    values = _Values(loop, around, condition, body)
    for place, limit in values.limits(condition.outputs[:1]):
        turns = values.turns(place, limit)
        if turns is not None:
            return "" if turns <= MAX_TURNS else f"it turns up to {turns} times, more than {MAX_TURNS}"
    return "no counter of it has a constant end"


@dataclass(frozen=True)
class _Values:
    """The values that a loop carries from turn to turn, by their place."""

    loop: Operator
    around: Subgraph
    condition: Subgraph
    body: Subgraph

    def limits(self, wanted: list[int]) -> list[tuple[int, int]]:
        """(place, limit) of each comparison `value < limit` without which the loop ends."""
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        waiting = list(wanted)
        while waiting:
            tensor = waiting.pop()
            makers = self.condition.makers(tensor)
            if tensor in seen or len(makers) != 1 or tensor in self.condition.inputs:
                continue
            seen.add(tensor)
            if makers[0].name == "LOGICAL_AND":
                waiting += makers[0].inputs
            elif makers[0].name == "LESS" and len(makers[0].inputs) == 2:
                left, right = makers[0].inputs
                limit = self.known(self.condition, right)
                if limit is not None and left in self.condition.inputs and not self.condition.makers(left):
                    found.append((self.condition.inputs.index(left), limit))
        return found

    def turns(self, place: int, limit: int) -> int | None:
        """How often the loop turns at most, when the value at `place` starts at a constant and grows by one; else None."""
        start = self.around.constant(self.loop.inputs[place])
        before, after = self.body.inputs[place], self.body.outputs[place]
        makers = self.body.makers(after)
        if start is None or start < 0 or len(makers) != 1 or makers[0].name != "ADD" or self.body.makers(before) or after == before:
            return None
        others = [tensor for tensor in makers[0].inputs if tensor != before]
        if len(makers[0].inputs) != 2 or len(others) != 1:
            return None
        options = makers[0].table.table(_OPTIONS)
        if options is not None and options.number(_ACTIVATION, "<b"):  # one that clips would hold the counter below its end
            return None
        step = self.known(self.body, others[0])
        return None if step is None or step < 1 else -(-max(limit - start, 0) // step)

    def known(self, part: Subgraph, tensor: int) -> int | None:
        """The constant that a tensor of the condition or the body is, also when the loop only hands it on."""
        if tensor not in part.inputs or part.makers(tensor):
            return part.constant(tensor)
        place = part.inputs.index(tensor)
        handed_on = self.body.outputs[place] == self.body.inputs[place] and not self.body.makers(self.body.inputs[place])
        return self.around.constant(self.loop.inputs[place]) if handed_on else None
