"""What goes through the batch door: chunks of rows with their places in the input, and the count of what became of them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
from numpy.typing import NDArray

from edgefleet.errors import RowRejected

CHUNK_ROWS: Final = 1024
# Wide rows and windows get smaller chunks.
MAX_CHUNK_BYTES: Final = 16 * 1024 * 1024
# Lines that are far too long for a row too: a value takes ten times the bytes of its text.
MAX_CHUNK_TEXT_BYTES: Final = 4 * 1024 * 1024


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place between two rows.

    Attributes:
        offset: Bytes of the input before it; rows of a Parquet file.
        rows: Rows before it.
        lines: Lines before it, 0 for Parquet.
    """

    offset: int = 0
    rows: int = 0
    lines: int = 0


@dataclass(slots=True)
class Chunk:
    """Consecutive rows.

    Attributes:
        first: Number of the first one, from 1.
        rows: As `Scorer.score_batch` takes them; a row that is none is its refusal. Of an array [n, F] all rows are rows.
        end: Position after the last one.
        lines: Line of each row, from 1; empty for Parquet.
        groups: What each row belongs to (a machine); empty where nobody asked.
        times: When each was measured, in seconds; empty where nobody asked.
    """

    first: int
    rows: list[Any] | NDArray[Any]
    end: Position
    lines: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


class Source(Protocol):
    """An opened input.

    Attributes:
        size: Its length in the unit of `Position.offset`, None for a pipe.
    """

    size: int | None

    def chunks(self) -> Iterator[Chunk]:
        """Its rows from the start position on; chunks begin at the same rows wherever the start was a chunk's end."""
        ...

    def fingerprint(self) -> str | None:
        """Sha256 of what was read: of the bytes before the last chunk's end (text), or of the whole file (Parquet).

        None where it cannot be told at this chunk's end, but at a later one's.
        """
        ...

    def close(self) -> None:
        """Let go of the input."""
        ...


@dataclass(frozen=True, slots=True)
class BadRow:
    """One refused row, for the side file."""

    row: int
    line: int | None
    refusal: RowRejected


class Tally(msgspec.Struct):
    """What became of the rows: offered = scored + warming_up + all rejected.

    Attributes:
        offered: Rows that came.
        scored: Rows with an answer.
        warming_up: Rows of a model of windows that came before its window was full.
        rejected: Refused rows by reason.
        outliers: Scored rows that are unlike the training rows.
    """

    offered: int = 0
    scored: int = 0
    warming_up: int = 0
    rejected: dict[str, int] = {}
    outliers: int = 0

    def add(self, other: "Tally") -> None:
        """Count another chunk in."""
        self.offered += other.offered
        self.scored += other.scored
        self.warming_up += other.warming_up
        self.outliers += other.outliers
        self.rejected = dict(sorted((Counter(self.rejected) + Counter(other.rejected)).items()))

    @property
    def refused(self) -> int:
        """All rejected rows."""
        return sum(self.rejected.values())


class Answered(Protocol):
    """What an answerer makes of a chunk."""

    @property
    def tally(self) -> Tally:
        """Counts of this chunk."""
        ...

    @property
    def bad(self) -> list[BadRow]:
        """Its refused rows, in order."""
        ...


def chunk_rows(values: int) -> int:
    """Rows of a chunk of a model whose answer needs so many values."""
    return max(1, min(CHUNK_ROWS, MAX_CHUNK_BYTES // (4 * values)))
