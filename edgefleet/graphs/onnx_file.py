"""The operators of an ONNX file, those of graphs inside graphs included.

Where protocol buffers let the last of repeated values win, all of them are taken: a reader that picks another one than the runtime sees
nothing more. Numbers of messages and fields are those of onnx.proto, which never change.
"""

import re
from enum import Enum
from typing import Final

from edgefleet.errors import ArtifactError
from edgefleet.graphs.onnx_loops import LoopFacts, first_input
from edgefleet.graphs.wire import BYTES, VARINT, Budget, Field, fields

_MAX_NAME_BYTES: Final = 256


class _Message(Enum):
    MODEL = "model"
    GRAPH = "graph"
    NODE = "node"
    ATTRIBUTE = "attribute"
    TENSOR = "tensor"
    INITIALIZER = "initializer"
    VALUE = "input"
    SPARSE = "sparse tensor"


_INSIDE: Final = {
    _Message.MODEL: {7: _Message.GRAPH},
    _Message.GRAPH: {1: _Message.NODE, 5: _Message.INITIALIZER, 11: _Message.VALUE, 15: _Message.SPARSE},
    _Message.NODE: {5: _Message.ATTRIBUTE},
    _Message.ATTRIBUTE: {
        5: _Message.TENSOR, 6: _Message.GRAPH, 10: _Message.TENSOR, 11: _Message.GRAPH, 22: _Message.SPARSE, 23: _Message.SPARSE,
    },
    _Message.TENSOR: {},
    _Message.INITIALIZER: {},
    _Message.VALUE: {},
    _Message.SPARSE: {1: _Message.TENSOR, 2: _Message.TENSOR},
}  # fmt: skip
_OUTPUT, _OPERATOR, _DOMAIN = 2, 4, 7
_VALUE_NAME: Final = 1
_TRAINING, _FUNCTIONS = 20, 25
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# Trees have millions of numbers, each a field of its own: floats, ints, and the two most common words of the attribute `nodes_modes`.
_NUMBERS: Final = re.compile(rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}+[\x00-\x7f]|\x4a\x0aBRANCH_LEQ|\x4a\x04LEAF)++", re.DOTALL)
# onnxruntime takes such bytes for its own format, whatever else they may be read as.
_OTHER_FORMAT: Final = b"ORTM"


def onnx_operators(graph: bytes, file: str) -> frozenset[tuple[str, str]]:
    """(domain, name) of each operator of a file; the standard domain is "".

    Raises:
        ArtifactError: No ONNX graph, weights outside the file, functions of its own, a training graph, or a loop without a bound.
    """
    if graph[4:8] == _OTHER_FORMAT:
        raise ArtifactError(f"{file}: is in onnxruntime's own format, whose operators are not read; save it as ONNX")
    walk = _Walk(graph, file)
    waiting = [(_Message.MODEL, 0, len(graph), 0)]
    while waiting:
        waiting += walk.read(*waiting.pop())
    if why := walk.loops.endless():
        raise ArtifactError(f"{file}: operator 'Loop' may run without end: {why}; unroll the loop, or give it a constant length")
    return frozenset(walk.found)


class _Walk:
    """The way through one file; `depth` is the number of graphs around a message."""

    def __init__(self, graph: bytes, file: str) -> None:
        self.graph, self.file, self.budget = graph, file, Budget(file)
        self.found: set[tuple[str, str]] = set()
        self.loops = LoopFacts()

    def read(self, message: _Message, start: int, end: int, depth: int) -> list[tuple[_Message, int, int, int]]:
        """Read one message; the messages inside it that lead on."""
        waiting = []
        names: set[str] = set()
        domains: set[str] = set()
        for field in fields(self.graph, start, end, self.budget, _NUMBERS if message is _Message.ATTRIBUTE else None):
            inner = _INSIDE[message].get(field.number)
            if inner is not None:
                waiting.append((inner, *_range(field, self.file), depth + (inner is _Message.GRAPH)))
            elif message is _Message.NODE and field.number in (_OPERATOR, _DOMAIN):
                (names if field.number == _OPERATOR else domains).add(_text(self.graph, field, self.file))
            elif (message, field.number) in ((_Message.NODE, _OUTPUT), (_Message.VALUE, _VALUE_NAME)):
                if depth == 1:
                    self.loops.made.add(_text(self.graph, field, self.file))
            else:
                _refuse(message, field, self.file)
        if message is _Message.NODE:
            plain = {"" if domain == "ai.onnx" else domain for domain in domains or {""}}
            self.found |= {(domain, name) for domain in plain for name in names or {""}}
            if "Loop" in names:
                self.loops.inner = self.loops.inner or depth > 1
                self.loops.counts.append(first_input(self.graph, start, end, self.budget))
        elif message is _Message.INITIALIZER and depth == 1:
            self.loops.add_initializer(self.graph, start, end, self.budget)
        elif message is _Message.MODEL and len(waiting) > 1:
            raise ArtifactError(f"{self.file}: holds {len(waiting)} graphs where one belongs; convert the package again")
        return waiting


def _refuse(message: _Message, field: Field, file: str) -> None:
    if message is _Message.MODEL and field.number == _FUNCTIONS:
        raise ArtifactError(f"{file}: defines operators of its own (functions), which a device is not given; export it with them inlined")
    if message is _Message.MODEL and field.number == _TRAINING:
        raise ArtifactError(f"{file}: holds a training graph; export it for inference")
    outside = field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and not (field.kind == VARINT and field.value == 0))
    if message in (_Message.TENSOR, _Message.INITIALIZER) and outside:
        raise ArtifactError(f"{file}: keeps weights outside the file (external data), which a device never reads; save it as one file")


def _range(field: Field, file: str) -> tuple[int, int]:
    if field.kind != BYTES:
        raise ArtifactError(f"{file}: no readable ONNX graph: field {field.number} is of another type; convert the package again")
    return field.start, field.end


def _text(graph: bytes, field: Field, file: str) -> str:
    start, end = _range(field, file)
    return graph[start : min(end, start + _MAX_NAME_BYTES)].decode("utf-8", "backslashreplace")
