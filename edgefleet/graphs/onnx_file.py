"""The operators of an ONNX file, those of graphs inside graphs included.

Where protocol buffers let the last of repeated values win, all of them are taken: a reader that picks another one than the runtime sees
nothing more. Numbers of messages and fields are those of onnx.proto, which never change.
"""

import re
from enum import Enum
from typing import Final

from edgefleet.errors import ArtifactError
from edgefleet.graphs.wire import BYTES, VARINT, Budget, Field, fields

_MAX_NAME_BYTES: Final = 256


class _Message(Enum):
    MODEL = "model"
    GRAPH = "graph"
    NODE = "node"
    ATTRIBUTE = "attribute"
    TENSOR = "tensor"
    SPARSE = "sparse tensor"


_INSIDE: Final = {
    _Message.MODEL: {7: _Message.GRAPH},
    _Message.GRAPH: {1: _Message.NODE, 5: _Message.TENSOR, 15: _Message.SPARSE},
    _Message.NODE: {5: _Message.ATTRIBUTE},
    _Message.ATTRIBUTE: {
        5: _Message.TENSOR, 6: _Message.GRAPH, 10: _Message.TENSOR, 11: _Message.GRAPH, 22: _Message.SPARSE, 23: _Message.SPARSE,
    },
    _Message.TENSOR: {},
    _Message.SPARSE: {1: _Message.TENSOR, 2: _Message.TENSOR},
}  # fmt: skip
_OPERATOR, _DOMAIN = 4, 7
_TRAINING, _FUNCTIONS = 20, 25
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
# Trees have millions of numbers, each a field of its own: floats, ints, and the two most common words of the attribute `nodes_modes`.
_NUMBERS: Final = re.compile(rb"(?:\x3d.{4}|\x40[\x80-\xff]{0,9}+[\x00-\x7f]|\x4a\x0aBRANCH_LEQ|\x4a\x04LEAF)++", re.DOTALL)
# onnxruntime takes such bytes for its own format, whatever else they may be read as.
_OTHER_FORMAT: Final = b"ORTM"


def onnx_operators(graph: bytes, file: str) -> frozenset[tuple[str, str]]:
    """(domain, name) of each operator of a file; the standard domain is "".

    Raises:
        ArtifactError: No ONNX graph, weights outside the file, functions of its own, or a training graph.
    """
    if graph[4:8] == _OTHER_FORMAT:
        raise ArtifactError(f"{file}: is in onnxruntime's own format, whose operators are not read; save it as ONNX")
    budget = Budget(file)
    found: set[tuple[str, str]] = set()
    waiting = [(_Message.MODEL, 0, len(graph))]
    while waiting:
        message, start, end = waiting.pop()
        names: set[str] = set()
        domains: set[str] = set()
        for field in fields(graph, start, end, budget, _NUMBERS if message is _Message.ATTRIBUTE else None):
            inner = _INSIDE[message].get(field.number)
            if inner is not None:
                waiting.append((inner, *_range(field, file)))
            elif message is _Message.NODE and field.number in (_OPERATOR, _DOMAIN):
                (names if field.number == _OPERATOR else domains).add(_text(graph, field, file))
            else:
                _refuse(message, field, file)
        if message is _Message.NODE:
            plain = {"" if domain == "ai.onnx" else domain for domain in domains or {""}}
            found |= {(domain, name) for domain in plain for name in names or {""}}
    return frozenset(found)


def _refuse(message: _Message, field: Field, file: str) -> None:
    if message is _Message.MODEL and field.number == _FUNCTIONS:
        raise ArtifactError(f"{file}: defines operators of its own (functions), which a device is not given; export it with them inlined")
    if message is _Message.MODEL and field.number == _TRAINING:
        raise ArtifactError(f"{file}: holds a training graph; export it for inference")
    outside = field.number == _EXTERNAL_DATA or (field.number == _DATA_LOCATION and not (field.kind == VARINT and field.value == 0))
    if message is _Message.TENSOR and outside:
        raise ArtifactError(f"{file}: keeps weights outside the file (external data), which a device never reads; save it as one file")


def _range(field: Field, file: str) -> tuple[int, int]:
    if field.kind != BYTES:
        raise ArtifactError(f"{file}: no readable ONNX graph: field {field.number} is of another type; convert the package again")
    return field.start, field.end


def _text(graph: bytes, field: Field, file: str) -> str:
    start, end = _range(field, file)
    return graph[start : min(end, start + _MAX_NAME_BYTES)].decode("utf-8", "backslashreplace")
