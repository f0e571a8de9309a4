"""Flatbuffers, bounded: tables and vectors of a file, every place checked and every visit counted.

Offsets may point at the same table many times over, so that a small file can describe a graph of any size: hence the count.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from edgefleet.errors import ArtifactError

# A graph of 1,000 operators takes some 30,000.
MAX_VISITS: Final = 1_000_000


@dataclass
class FlatFile:
    """A file and how much of it may still be read."""

    content: bytes
    name: str
    left: int = MAX_VISITS

    def number(self, form: str, at: int) -> int:
        """The number of struct's format `form` at byte `at`.

        Raises:
            ArtifactError: Outside the file, or too much was read.
        """
        self.left -= 1
        if self.left < 0:
            raise ArtifactError(f"{self.name}: more than {MAX_VISITS} parts in the graph; convert a smaller model")
        if not 0 <= at <= len(self.content) - struct.calcsize(form):
            raise self.damaged(at)
        return int(struct.unpack_from(form, self.content, at)[0])

    def root(self) -> "Table":
        """The table that the file begins with."""
        return Table(self, self.number("<I", 0))

    def damaged(self, at: int) -> ArtifactError:
        """The error for what points outside the file."""
        return ArtifactError(f"{self.name}: no readable TFLite graph, damaged at byte {at}; convert the package again")


@dataclass(frozen=True)
class Table:
    """One table; fields are named by their number in the schema."""

    file: FlatFile
    at: int

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A scalar field."""
        place = self._place(field)
        return self.file.number(form, place) if place else default

    def table(self, field: int) -> "Table | None":
        """A field that is a table, None where it is absent."""
        place = self._place(field)
        return Table(self.file, place + self.file.number("<I", place)) if place else None

    def tables(self, field: int) -> Iterator["Table"]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        for place in range(start, start + 4 * count, 4):
            yield Table(self.file, place + self.file.number("<I", place))

    def numbers(self, field: int) -> list[int]:
        """A vector of int32."""
        start, count = self._vector(field, 4)
        return [self.file.number("<i", place) for place in range(start, start + 4 * count, 4)]

    def content(self, field: int) -> bytes:
        """A vector of bytes."""
        start, count = self._vector(field, 1)
        return self.file.content[start : start + count]

    def has(self, field: int) -> bool:
        """Whether the field stands in the file at all."""
        return self._place(field) != 0

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + self.file.number("<I", place)
        count = self.file.number("<I", start)
        if count * size > len(self.file.content) - start - 4:
            raise self.file.damaged(start)
        return start + 4, count

    def _place(self, field: int) -> int:
        """Where a field stands, 0 where it is absent."""
        offsets = self.at - self.file.number("<i", self.at)
        inside = 4 + 2 * field
        if inside + 2 > self.file.number("<H", offsets):
            return 0
        offset = self.file.number("<H", offsets + inside)
        return self.at + offset if offset else 0
