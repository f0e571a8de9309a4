"""Protocol buffers' wire format, bounded: the fields of one message, as places in the file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgefleet.errors import ArtifactError

VARINT: Final = 0
BYTES: Final = 2
# A graph of 100,000 nodes has about a million; plain runs of numbers inside attributes are passed over and not counted.
MAX_FIELDS: Final = 2_000_000
_FIXED: Final = {1: 8, 5: 4}
_MAX_VARINT_BYTES: Final = 10


@dataclass
class Budget:
    """How many fields of a file may still be read."""

    file: str
    left: int = MAX_FIELDS

    def spend(self) -> None:
        """Count one field.

        Raises:
            ArtifactError: There were too many.
        """
        self.left -= 1
        if self.left < 0:
            raise ArtifactError(f"{self.file}: more than {MAX_FIELDS} fields in the graph; convert a smaller model")


@dataclass(frozen=True)
class Field:
    """One field: a number (`value`) or a range of bytes (`start`, `end`)."""

    number: int
    kind: int
    value: int = 0
    start: int = 0
    end: int = 0


def fields(content: bytes, start: int, end: int, budget: Budget, skip: re.Pattern[bytes] | None = None) -> Iterator[Field]:
    """The fields of the message that stands in content[start:end].

    Args:
        content: The whole file.
        start: Where the message begins.
        end: Where it ends.
        budget: Counts the fields.
        skip: Matches runs of whole fields that need no reading.

    Raises:
        ArtifactError: No such message, or too many fields.
    """
    at = start
    while at < end:
        if skip is not None and (run := skip.match(content, at, end)) is not None:
            at = run.end()
            continue
        budget.spend()
        tag, at = _varint(content, at, end, budget.file)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFFFFFF:
            raise _damaged(budget.file, at)
        if kind == VARINT:
            value, at = _varint(content, at, end, budget.file)
            yield Field(number, kind, value=value)
            continue
        if kind == BYTES:
            length, at = _varint(content, at, end, budget.file)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:  # groups: no writer of graphs uses them
            raise _damaged(budget.file, at)
        if length > end - at:
            raise _damaged(budget.file, at)
        yield Field(number, kind, start=at, end=at + length)
        at += length


def _varint(content: bytes, at: int, end: int, file: str) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at
    raise _damaged(file, at)


def _damaged(file: str, at: int) -> ArtifactError:
    return ArtifactError(f"{file}: no readable ONNX graph, damaged at byte {at}; convert the package again")
