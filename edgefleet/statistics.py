"""Input statistics: additive, mergeable, payload-free.

Merging is addition; the empty object is the identity; statistics of another reference are refused. Counts are exact whatever the batch
boundaries; moments are float64 sums about the reference mean, so that they agree to about 1e-12 whatever the order.
Memory and wire size: `cells` + 4 numbers per feature, about 50 bytes per feature and window, and 12 counts per stream of the sketch.
Features are a row's columns, of an image of more than 256 elements its summaries (`summaries.py`): about 5 kB a window, whatever its size.
"""

from dataclasses import dataclass, field
from math import isfinite, isinf
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import MAX_INPUTS
from edgefleet.reference import Reference, count_sorted
from edgefleet.sketch import MAX_COMPONENTS, SKETCH_CELLS

STATISTICS_VERSION: Final = 1
_LEAST_CELLS, _MOST_CELLS = 5, 256
# Rows are folded in blocks whose working memory stays in a processor's cache.
_BLOCK_VALUES, _LEAST_BLOCK_ROWS = 65_536, 64
_MAX_ROWS: Final = 2**53
_MAX_FLOAT32: Final = float(np.finfo(np.float32).max)


class _Wire(msgspec.Struct, array_like=True, frozen=True):
    version: int
    reference_digest: str
    rows: int
    features: int
    cells: int
    counts: list[int]
    total: list[float]
    squares: list[float]
    low: list[float]
    high: list[float]
    infinite: list[int]
    sketch: list[int] = []  # devices that know none end their message here


@dataclass
class InputStatistics:
    """Statistics of the rows seen so far.

    Attributes:
        reference_digest: Sha256 of the reference whose bins are counted.
        rows: Rows counted: every row that parses, before the range policy.
        counts: [F, cells] int64.
        total: [F] float64, sum of (x - reference mean) over present finite values.
        squares: [F] float64, sum of its square.
        low: [F] float32 minimum (+inf when nothing was present).
        high: [F] float32 maximum (-inf when nothing was present).
        infinite: [F] int64, infinite values met; they are in below or above, and in no moment.
        sketch: [S, 12] int64, counts of the streams of `Reference.sketch`; S = 0 where it has none, or where the device knows none. Merged
            with rows that were not sketched, they hold fewer rows than the features' counts.
    """

    reference_digest: str
    rows: int
    counts: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    infinite: NDArray[np.int64]
    sketch: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, SKETCH_CELLS), np.int64))

    @classmethod
    def empty(cls, reference: Reference) -> "InputStatistics":
        """The identity of `merge` for one reference."""
        f = reference.features
        return cls(
            reference_digest=reference.digest,
            rows=0,
            counts=np.zeros((f, reference.cells), np.int64),
            total=np.zeros(f),
            squares=np.zeros(f),
            low=np.full(f, np.inf, np.float32),
            high=np.full(f, -np.inf, np.float32),
            infinite=np.zeros(f, np.int64),
            sketch=np.zeros((0 if reference.sketch is None else reference.sketch.streams, SKETCH_CELLS), np.int64),
        )

    def update(self, rows: NDArray[np.float32], reference: Reference) -> None:
        """Fold rows [n, columns] in; NaN is missing. Of images their summaries are counted.

        Raises:
            InputError: Another reference, or another number of features.
        """
        if reference.digest != self.reference_digest:
            raise InputError(f"statistics of reference {self.reference_digest[:12]} cannot take rows of reference {reference.digest[:12]}")
        if rows.shape[1] != reference.columns:
            raise InputError(f"rows have {rows.shape[1]} columns, the reference is of {reference.columns}")
        block = max(_LEAST_BLOCK_ROWS, _BLOCK_VALUES // reference.columns)
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            self._fold(part if reference.summaries is None else reference.summaries.of(part), reference)

    def _fold(self, rows: NDArray[np.float32], reference: Reference) -> None:
        n = len(rows)
        columns = np.array(rows.T, np.float32, order="C")
        with np.errstate(over="ignore"):
            deviations = columns - reference.mean[:, None]
        columns.sort(axis=1)
        present, sketch = np.full(len(columns), n, np.int64), reference.sketch
        lowest, highest = columns[:, 0], columns[:, -1]
        # Nearly always: both ends of every sorted column are finite, and so is all between them.
        whole = bool(np.isfinite(columns[:, :: max(n - 1, 1)]).all())
        if sketch is not None:
            mean = reference.mean
            tame = whole and sketch.is_tame(np.maximum(highest - mean, mean - lowest))
            self.sketch = _merged(self.sketch, sketch.count(deviations, tame))
        exact = deviations.astype(np.float64)
        if not whole:
            finite = np.isfinite(columns)
            present -= np.isnan(columns).sum(axis=1)
            self.infinite += np.isinf(columns).sum(axis=1)
            exact[~np.isfinite(deviations)] = 0.0
            lowest = np.where(finite, columns, np.float32(np.inf)).min(axis=1)
            highest = np.where(finite, columns, np.float32(-np.inf)).max(axis=1)
        self.rows += n
        self.counts += count_sorted(columns, present, reference)
        self.total += exact.sum(axis=1)
        self.squares += np.einsum("ij,ij->i", exact, exact)
        self.low, self.high = np.minimum(self.low, lowest), np.maximum(self.high, highest)

    def merge(self, other: "InputStatistics") -> "InputStatistics":
        """The statistics of both sets of rows together; neither operand changes.

        Raises:
            InputError: The two count the bins of different references.
        """
        if other.reference_digest != self.reference_digest:
            raise InputError(f"statistics of reference {other.reference_digest[:12]} cannot merge into {self.reference_digest[:12]}")
        return InputStatistics(
            reference_digest=self.reference_digest,
            rows=self.rows + other.rows,
            counts=self.counts + other.counts,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            low=np.minimum(self.low, other.low),
            high=np.maximum(self.high, other.high),
            infinite=self.infinite + other.infinite,
            sketch=_merged(self.sketch, other.sketch),
        )

    def present(self) -> NDArray[np.int64]:
        """[F] values that were neither missing nor infinite: the n of the moments."""
        return self.rows - self.counts[:, -2] - self.infinite

    def mean(self, reference: Reference) -> NDArray[np.float64]:
        """[F] mean of the present values, NaN where there were none."""
        n = self.present()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(n > 0, reference.mean + self.total / n, np.nan)

    def m2(self) -> NDArray[np.float64]:
        """[F] sum of squared deviations from the own mean (Welford's M2), derived from the shifted sums."""
        n = np.maximum(self.present(), 1)
        return np.maximum(self.squares - np.square(self.total) / n, 0.0)

    def to_bytes(self) -> bytes:
        """Msgpack, versioned."""
        wire = _Wire(
            STATISTICS_VERSION,
            self.reference_digest,
            self.rows,
            self.counts.shape[0],
            self.counts.shape[1],
            self.counts.ravel().tolist(),
            self.total.tolist(),
            self.squares.tolist(),
            self.low.tolist(),
            self.high.tolist(),
            self.infinite.tolist(),
            self.sketch.ravel().tolist(),
        )
        return msgspec.msgpack.encode(wire)

    @classmethod
    def from_bytes(cls, content: bytes) -> "InputStatistics":
        """Read what `to_bytes` wrote.

        Raises:
            ArtifactError: Damaged, of another version, or inconsistent.
        """
        try:
            wire = msgspec.msgpack.decode(content, type=_Wire)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise ArtifactError(f"statistics: {len(content)} bytes are malformed: {str(err)[:200]}") from err
        if wire.version != STATISTICS_VERSION:
            raise ArtifactError(f"statistics: version {wire.version} is unknown, this program reads {STATISTICS_VERSION}")
        _check_wire(wire)
        return cls(
            reference_digest=wire.reference_digest,
            rows=wire.rows,
            counts=np.array(wire.counts, np.int64).reshape(wire.features, wire.cells),
            total=np.array(wire.total),
            squares=np.array(wire.squares),
            low=np.array(wire.low, np.float32),
            high=np.array(wire.high, np.float32),
            infinite=np.array(wire.infinite, np.int64),
            sketch=np.array(wire.sketch, np.int64).reshape(-1, SKETCH_CELLS),
        )


def _merged(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of two sketches, of which one may be absent."""
    if len(one) and len(other) and len(one) != len(other):
        raise InputError(f"a sketch of {len(one)} streams cannot merge with one of {len(other)}")
    return one + other if len(one) == len(other) else (one if len(one) else other).copy()


def _check_wire(wire: _Wire) -> None:
    """Refuse what no device can have counted: it would fail later, or poison the sums that it is merged into."""
    if not (1 <= wire.features <= MAX_INPUTS and _LEAST_CELLS <= wire.cells <= _MOST_CELLS and 0 <= wire.rows <= _MAX_ROWS):
        raise ArtifactError(f"statistics: {wire.features} features, {wire.cells} cells, {wire.rows} rows are out of range")
    lengths = {len(wire.total), len(wire.squares), len(wire.low), len(wire.high), len(wire.infinite)}
    if lengths != {wire.features} or len(wire.counts) != wire.features * wire.cells or min(wire.counts) < 0:
        raise ArtifactError("statistics: lengths or counts contradict each other")
    if any(sum(wire.counts[i : i + wire.cells]) != wire.rows for i in range(0, len(wire.counts), wire.cells)):
        raise ArtifactError(f"statistics: a feature's cells do not add up to {wire.rows} rows")
    if not 0 <= min(wire.infinite) <= max(wire.infinite) <= wire.rows:
        raise ArtifactError(f"statistics: infinite values are not between 0 and {wire.rows} rows")
    if not all(isfinite(value) for value in (*wire.total, *wire.squares)) or min(wire.squares) < 0:
        raise ArtifactError("statistics: a moment is not finite, or a sum of squares is negative")
    if not all(isinf(value) or abs(value) <= _MAX_FLOAT32 for value in (*wire.low, *wire.high)):
        raise ArtifactError("statistics: a minimum or maximum is no float32")
    _check_sketch(wire)


def _check_sketch(wire: _Wire) -> None:
    streams, rest = divmod(len(wire.sketch), SKETCH_CELLS)
    if rest or streams > MAX_COMPONENTS + 1 or min(wire.sketch, default=0) < 0:
        raise ArtifactError(f"statistics: {len(wire.sketch)} counts of the sketch are not {SKETCH_CELLS} of each stream")
    rows = {sum(wire.sketch[i : i + SKETCH_CELLS]) for i in range(0, len(wire.sketch), SKETCH_CELLS)}
    if len(rows) > 1 or max(rows, default=0) > wire.rows:
        raise ArtifactError(f"statistics: the sketch's streams do not all hold the same number of rows, at most {wire.rows}")
