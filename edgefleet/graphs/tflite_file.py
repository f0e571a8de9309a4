"""The operators of a TFLite file. Tables and fields are numbered as in TFLite's schema, which only ever grows at its end."""

from typing import Final

from edgefleet.errors import ArtifactError
from edgefleet.graphs.allowed import LITERT_NUMBERS
from edgefleet.graphs.flat_tables import FlatFile, Table
from edgefleet.graphs.loops import Operator, Subgraph, endless

_MARK: Final = b"TFL3"
_CUSTOM: Final = 32
_CODES, _SUBGRAPHS, _BUFFERS, _OUTSIDE_GROUPS, _OUTSIDE_BUFFERS = 1, 2, 4, 8, 9
_OLD_NUMBER, _OWN_NAME, _NUMBER = 0, 1, 3
_TENSORS, _INPUTS, _OUTPUTS, _OPERATORS = 0, 1, 2, 3
_TENSOR_OUTSIDE: Final = 10
_DATA_OFFSET, _DATA_SIZE = 1, 2
_OPERATOR_OFFSET, _OPERATOR_SIZE = 9, 10


def tflite_operators(graph: bytes, file: str) -> frozenset[str]:
    """Names of the operators of a file; one that is not on the list has its number or its own name instead.

    Raises:
        ArtifactError: No TFLite file, data outside the file's tables, or a loop without a bound.
    """
    if graph[4:8] != _MARK:
        raise ArtifactError(f"{file}: {len(graph)} bytes are no TFLite graph: the mark TFL3 is missing; convert the package again")
    flat = FlatFile(graph, file)
    model = flat.root()
    names = [_name(code) for code in model.tables(_CODES)]
    buffers = list(model.tables(_BUFFERS))
    outside = model.has(_OUTSIDE_GROUPS) or model.has(_OUTSIDE_BUFFERS)
    if outside or any(buffer.number(_DATA_OFFSET, "<Q") > 1 or buffer.number(_DATA_SIZE, "<Q") > 1 for buffer in buffers):
        raise ArtifactError(f"{file}: keeps weights outside the graph (external buffers), which a device never reads; convert it again")
    subgraphs = [_subgraph(table, names, buffers, flat) for table in model.tables(_SUBGRAPHS)]
    if not subgraphs:
        raise ArtifactError(f"{file}: {len(graph)} bytes hold no graph; convert the package again")
    for subgraph in subgraphs:
        for operator in subgraph.operators:
            if operator.name == "WHILE" and (why := endless(operator, subgraph, subgraphs)):
                raise ArtifactError(f"{file}: operator 'WHILE' may run without end: {why}; unroll the loop, or give it a constant length")
    return frozenset(names)


def _name(code: Table) -> str:
    number = max(code.number(_OLD_NUMBER, "<b"), code.number(_NUMBER, "<i"))
    if number == _CUSTOM:
        return f"custom {code.content(_OWN_NAME)[:80].decode('utf-8', 'backslashreplace')}"
    return LITERT_NUMBERS.get(number, f"number {number}")


def _subgraph(table: Table, names: list[str], buffers: list[Table], flat: FlatFile) -> Subgraph:
    tensors = list(table.tables(_TENSORS))
    if any(tensor.number(_TENSOR_OUTSIDE, "<I") for tensor in tensors):
        raise ArtifactError(
            f"{flat.name}: keeps weights outside the graph (external buffers), which a device never reads; convert it again"
        )
    operators = []
    for entry in table.tables(_OPERATORS):
        index = entry.number(0, "<I")
        if index >= len(names):
            raise flat.damaged(entry.at)
        if entry.number(_OPERATOR_OFFSET, "<Q") or entry.number(_OPERATOR_SIZE, "<Q"):
            raise ArtifactError(f"{flat.name}: operator {names[index]!r} keeps options outside the graph; convert it again")
        operators.append(Operator(names[index], entry.numbers(_INPUTS), entry.numbers(_OUTPUTS), entry))
    return Subgraph(tensors, buffers, table.numbers(_INPUTS), table.numbers(_OUTPUTS), operators)
