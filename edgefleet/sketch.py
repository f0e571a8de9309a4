"""The multivariate sketch: what bins of single features cannot see, namely that features no longer move together.

Numeric columns are whitened with the training rows' covariance; each component, and the Mahalanobis norm over all of them, is one more
stream of values in ten bins. A correlation that breaks swells the components of least variance, so that beyond 64 those are kept.
Rows of more than 256 numeric columns (images) are first reduced to declared summaries: the means of up to 64 patches and the overall
intensity of the deviations.

Counts must not depend on how rows were batched, nor on the processor. Deviations and weights are therefore rounded to fixed grids, on
which products and sums are exact in float64 in whatever order they are done.
A missing value counts as the reference mean; beyond 128 standard deviations a value, infinite ones too, counts as 128.
Memory: 4 bytes for each of summaries x components weights; a window adds 12 counts per component.

Reference:
    Kessy, Lewin, Strimmer (2018), Optimal whitening and decorrelation, The American Statistician 72(4): PCA whitening.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.cells import BINS, Matrix, bin_counts, padded_edges, searchable, sorted_columns
from edgefleet.errors import ArtifactError

MAX_COMPONENTS: Final = 64
# More numeric columns than this are reduced to summaries.
MAX_COLUMNS: Final = 256
PATCHES_A_SIDE: Final = 8
SKETCH_CELLS: Final = BINS + 2
# A covariance of fewer rows for each of its columns says more about the sample than about the world.
LEAST_ROWS_A_COLUMN: Final = 5
MOST_DEVIATIONS: Final = 128
_STEP: Final = 2.0**-10  # grid of deviations and components, in standard deviations
_MOST_STEPS: Final = np.float32(MOST_DEVIATIONS / _STEP)
_WEIGHT_STEP: Final = 2.0**-12
_LEAST_VARIANCE: Final = 1e-4  # weights stay below 100, and rounding of deviations below a thousandth of a component
_MOST_COMPONENT: Final = 4096.0
_PREFIX: Final = "sketch_"
# Above so many multiplications OpenBLAS wakes its threads, which on a busy device costs a hundred times the product.
_ONE_THREAD: Final = 262_144


@dataclass(frozen=True)
class Sketch:
    """A whitening and the bins of its streams; S = components + 1 streams, the last one the norm.

    Attributes:
        columns: [C] int64, numeric columns of a row that are looked at; constant ones are not.
        pool: [C] int64, number of the patch that a column belongs to; [0] where the columns themselves are whitened.
        spread: [C] float32, what a deviation from the reference mean is divided by (the column's standard deviation).
        mean: [P] float32, subtracted from each summary: of deviations, 0 where the columns themselves are whitened.
        scale: [P] float32, what a summary is divided by.
        weights: [P, components] float32, multiples of 2^-12: component = summary x weights.
        edges: [S, BINS + 1] float32, deciles of the training rows.
        counts: [S, BINS + 2] int64 of the training rows: below, ten bins, above.
        blocks: [T, S, BINS + 2] int64 of the same consecutive windows as `Reference.blocks`.
    """

    columns: NDArray[np.int64]
    pool: NDArray[np.int64]
    spread: Matrix
    mean: Matrix
    scale: Matrix
    weights: Matrix
    edges: Matrix
    counts: NDArray[np.int64]
    blocks: NDArray[np.int64]

    @property
    def streams(self) -> int:
        """Components and the norm."""
        return len(self.counts)

    @property
    def names(self) -> list[str]:
        """Name of each stream: `component 1` has the least variance, the last is `mahalanobis`."""
        return [*(f"component {i + 1}" for i in range(self.streams - 1)), "mahalanobis"]

    def count(self, deviations: Matrix, tame: bool = False) -> NDArray[np.int64]:
        """Counts [S, BINS + 2] of rows, given as deviations [F, n] from the reference mean; the same whatever the batches.

        Args:
            deviations: Values - reference mean, one line per feature; NaN = missing.
            tame: Whether `is_tame` was asked and said so: nothing has to be cut or filled in then.
        """
        streams = self._streams(deviations, tame)
        streams.sort(axis=1)
        return bin_counts(streams, streams.shape[1], self._searchable)

    def values(self, deviations: Matrix) -> Matrix:
        """Values [n, S] of the streams, in standard deviations of the training rows; as `count` for the argument."""
        return np.ascontiguousarray(self._streams(deviations, False).T) * np.float32(_STEP)

    def is_tame(self, largest: Matrix) -> bool:
        """Whether no value is missing or beyond what is counted, by the largest absolute deviations [F] (NaN where one is missing)."""
        return bool((self._of_columns(largest) * self._rate < _MOST_STEPS).all())

    def _streams(self, deviations: Matrix, tame: bool) -> Matrix:
        """Values [S, n] of the streams in units of a step."""
        found = self._of_columns(deviations)
        summaries = _standardised(found, self._rate, tame)
        if len(self.pool):
            summaries = _standardised(self._pooled(summaries) - self.mean[:, None], _rate(self.scale), False)
        components = _product(self._weights, summaries.astype(np.float64))
        np.rint(components, out=components)
        norm = np.sqrt(np.einsum("ij,ij->j", components, components))
        if norm.max(initial=0.0) > _MOST_COMPONENT / _STEP:  # sums of squares are exact up to here
            np.minimum(np.maximum(components, -_MOST_COMPONENT / _STEP), _MOST_COMPONENT / _STEP, out=components)
            norm = np.sqrt(np.einsum("ij,ij->j", components, components))
        streams = np.empty((self.streams, components.shape[1]), np.float32)
        streams[:-1], streams[-1] = components, norm
        return streams

    def _of_columns(self, lines: Matrix) -> Matrix:
        return lines if len(lines) == len(self.columns) else lines[self.columns]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The attributes by the names that they have in the reference file."""
        return {_PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of_arrays(cls, stored: Mapping[str, NDArray[Any]], features: int) -> "Sketch | None":
        """Read what `arrays` named, None where none of it is there.

        Raises:
            ArtifactError: Some of it is missing, or the shapes contradict each other or rows of `features` columns.
        """
        found = {name: stored[name] for name in SKETCH_ARRAYS if name in stored}
        if not found:
            return None
        if len(found) < len(SKETCH_ARRAYS):
            raise ArtifactError(f"reference statistics: the sketch lacks {', '.join(sorted({*SKETCH_ARRAYS} - {*found}))}; make it again")
        sketch = cls(**{name.removeprefix(_PREFIX): array for name, array in found.items()})
        if not _consistent(sketch, features):
            raise ArtifactError("reference statistics: the shapes of the sketch's arrays contradict each other; make the package again")
        return sketch

    @cached_property
    def _searchable(self) -> list[Matrix]:
        """Edges in units of a step."""
        return searchable(self.edges / np.float32(_STEP), np.maximum(np.isfinite(self.edges).sum(axis=1) - 1, 0))

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        return np.ascontiguousarray(self.weights.T, np.float64)

    @cached_property
    def _rate(self) -> Matrix:
        return _rate(self.spread)

    def _pooled(self, deviations: Matrix) -> Matrix:
        """Mean deviation of each patch, then the root of the mean square of all: [patches + 1, n]."""
        order, starts, sizes = self._patches
        exact = deviations.astype(np.float64)
        means = np.add.reduceat(exact[order], starts, axis=0) / sizes[:, None]
        intensity = np.sqrt(np.einsum("ij,ij->j", exact, exact) / len(order))
        return np.asarray(np.vstack([means, intensity]) * _STEP, np.float32)

    @cached_property
    def _patches(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Columns in the order of their patches, where each patch starts in that order, and its size."""
        order = np.argsort(self.pool, kind="stable")
        sizes = np.bincount(self.pool)
        return order, np.cumsum(sizes) - sizes, sizes


SKETCH_ARRAYS: Final = tuple(_PREFIX + field.name for field in fields(Sketch))


def build_sketch(
    x: Matrix, numeric: NDArray[np.int64], mean: Matrix, scale: Matrix, starts: Sequence[int], block_rows: int, shape: Sequence[int] = ()
) -> Sketch | None:
    """Sketch of training rows; None where there are fewer than two columns that vary, or too few rows to know how they do.

    Args:
        x: [n, F] float32, NaN = missing.
        numeric: Numeric columns of it.
        mean: [F] reference means.
        scale: [F] standard deviations.
        starts: First rows of the consecutive windows.
        block_rows: Their length.
        shape: Of one row's tensor, for the patches of an image; empty = one row of values.
    """
    columns = np.array([f for f in numeric.tolist() if _varies(x[:, f])], np.int64)
    pool = patches(shape, x.shape[1])[columns] if len(columns) > MAX_COLUMNS else np.zeros(0, np.int64)
    pool = np.unique(pool, return_inverse=True)[1].reshape(-1)  # constant corners leave patches empty
    width = int(pool.max()) + 2 if len(pool) else len(columns)
    if len(columns) < 2 or len(x) < LEAST_ROWS_A_COLUMN * width:
        return None
    bare = Sketch(
        columns=columns,
        pool=pool,
        spread=scale[columns],
        mean=np.zeros(width, np.float32),
        scale=np.ones(width, np.float32),
        weights=np.zeros((width, 0), np.float32),
        edges=np.zeros((1, BINS + 1), np.float32),
        counts=np.zeros((1, SKETCH_CELLS), np.int64),
        blocks=np.zeros((0, 1, SKETCH_CELLS), np.int64),
    )
    with np.errstate(over="ignore"):
        deviations = np.ascontiguousarray((x - mean).T)
    return _with_bins(_with_weights(bare, deviations), deviations, starts, block_rows)


def patches(shape: Sequence[int], columns: int) -> NDArray[np.int64]:
    """Number of the patch of each column: 8 x 8 over an image [rows, columns, ...], else up to 64 stretches of neighbours."""
    if len(shape) >= 2 and int(np.prod(shape)) == columns:
        rows, across = (np.arange(size) * min(PATCHES_A_SIDE, size) // size for size in shape[:2])
        grid = rows[:, None] * PATCHES_A_SIDE + across[None, :]
        return np.repeat(grid.ravel(), columns // grid.size).astype(np.int64)
    return np.arange(columns, dtype=np.int64) * PATCHES_A_SIDE**2 // columns


def _varies(column: Matrix) -> bool:
    finite = column[np.isfinite(column)]
    return len(finite) > 1 and bool(finite.min() < finite.max())


def _standardised(deviations: Matrix, rate: Matrix, tame: bool) -> Matrix:
    """Deviations [C, n] as integers in units of a step, missing ones 0."""
    if tame:
        found = deviations * rate[:, None]
        np.rint(found, out=found)
        return found
    with np.errstate(over="ignore", invalid="ignore"):
        found = deviations * rate[:, None]
    np.rint(found, out=found)
    np.minimum(np.maximum(found, -_MOST_STEPS, out=found), _MOST_STEPS, out=found)
    found[np.isnan(found)] = 0.0
    return found


def _product(weights: NDArray[np.float64], summaries: NDArray[np.float64]) -> NDArray[np.float64]:
    """Components [components, n]: multiples of 2^-12 below 2^41, exact whatever order the product sums in."""
    size = max(1, _ONE_THREAD // max(weights.size, 1))
    if summaries.shape[1] <= size:
        return weights @ summaries
    found = np.empty((len(weights), summaries.shape[1]))
    for start in range(0, summaries.shape[1], size):
        np.matmul(weights, summaries[:, start : start + size], out=found[:, start : start + size])
    return found


def _rate(spread: Matrix) -> Matrix:
    """Brings a deviation to units of a step."""
    with np.errstate(over="ignore"):
        return (1 / (spread.astype(np.float64) * _STEP)).astype(np.float32)


def _with_weights(bare: Sketch, deviations: Matrix) -> Sketch:
    mean, scale = bare.mean, bare.scale
    summaries = _standardised(deviations[bare.columns], _rate(bare.spread), False)
    if len(bare.pool):
        pooled = bare._pooled(summaries)
        mean = pooled.mean(axis=1, dtype=np.float64).astype(np.float32)
        scale = np.maximum(pooled.std(axis=1, dtype=np.float64), _STEP).astype(np.float32)
        summaries = _standardised(pooled - mean[:, None], _rate(scale), False)
    exact = summaries.astype(np.float64) * _STEP
    centered = exact - exact.mean(axis=1)[:, None]
    variances, vectors = np.linalg.eigh(centered @ centered.T / exact.shape[1])  # ascending
    vectors = vectors[:, :MAX_COMPONENTS] / np.sqrt(np.maximum(variances[:MAX_COMPONENTS], _LEAST_VARIANCE))
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])  # a vector's sign is arbitrary
    weights = (np.rint(vectors / _WEIGHT_STEP) * _WEIGHT_STEP).astype(np.float32)
    streams = weights.shape[1] + 1
    return replace(bare, mean=mean, scale=scale, weights=weights, counts=np.zeros((streams, SKETCH_CELLS), np.int64))


def _with_bins(whitened: Sketch, deviations: Matrix, starts: Sequence[int], block_rows: int) -> Sketch:
    values = whitened.values(deviations)
    edges, bins = padded_edges(values)
    search = searchable(edges, bins)
    parts = [values, *(values[start : start + block_rows] for start in starts)]
    counts = np.stack([bin_counts(sorted_columns(part), len(part), search) for part in parts])
    return replace(whitened, edges=edges, counts=counts[0], blocks=counts[1:])


def _consistent(sketch: Sketch, features: int) -> bool:
    arrays = [getattr(sketch, field.name) for field in fields(sketch)]
    if any(array.ndim == 0 for array in arrays) or sketch.weights.ndim != 2 or sketch.counts.ndim != 2 or sketch.blocks.ndim != 3:
        return False
    columns, (summaries, components), streams = len(sketch.columns), sketch.weights.shape, len(sketch.counts)
    pools = int(sketch.pool.max(initial=-1)) + 2 if len(sketch.pool) else columns
    return (
        columns > 0
        and sketch.columns.shape == sketch.spread.shape == (columns,)
        and sketch.pool.shape in {(0,), (columns,)}
        and sketch.mean.shape == sketch.scale.shape == (summaries,) == (pools,)
        and streams == components + 1
        and sketch.edges.shape == (streams, BINS + 1)
        and sketch.counts.shape == sketch.blocks.shape[1:] == (streams, SKETCH_CELLS)
        and 0 <= int(sketch.columns.min()) <= int(sketch.columns.max()) < features
        and int(sketch.pool.min(initial=0)) >= 0
    )
