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

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.cells import BINS, Matrix, SearchEdges, bin_counts, searchable
from edgefleet.errors import ArtifactError

MAX_COMPONENTS: Final = 64
SKETCH_CELLS: Final = BINS + 2
MOST_DEVIATIONS: Final = 128
STEP: Final = 2.0**-10  # grid of deviations and components, in standard deviations
_MOST_STEPS: Final = np.float32(MOST_DEVIATIONS / STEP)
WEIGHT_STEP: Final = 2.0**-12
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
        return np.ascontiguousarray(self._streams(deviations, False).T) * np.float32(STEP)

    def is_tame(self, largest: Matrix) -> bool:
        """Whether no value is missing or beyond what is counted, by the largest absolute deviations [F] (NaN where one is missing)."""
        return bool((self._of_columns(largest) * self._rate < _MOST_STEPS).all())

    def _streams(self, deviations: Matrix, tame: bool) -> Matrix:
        """Values [S, n] of the streams in units of a step."""
        return self.whitened(self.summaries(self.reduced(deviations, tame)))

    def reduced(self, deviations: Matrix, tame: bool) -> Matrix:
        """Standardised columns [C, n], or where there are patches the means of these [P, n]."""
        standardised = _standardised(self._of_columns(deviations), self._rate, tame)
        return self._pooled(standardised) if len(self.pool) else standardised

    def summaries(self, reduced: Matrix) -> Matrix:
        """What is whitened, [P, n] integers in units of a step."""
        return _standardised(reduced - self.mean[:, None], _rate(self.scale), False) if len(self.pool) else reduced

    def whitened(self, summaries: Matrix) -> Matrix:
        """Values [S, n] of the streams, integers in units of a step."""
        components = _product(self._weights, summaries.astype(np.float64))
        np.rint(components, out=components)
        norm = np.sqrt(np.einsum("ij,ij->j", components, components))
        if norm.max(initial=0.0) > _MOST_COMPONENT / STEP:  # sums of squares are exact up to here
            np.minimum(np.maximum(components, -_MOST_COMPONENT / STEP), _MOST_COMPONENT / STEP, out=components)
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
    def _searchable(self) -> SearchEdges:
        """Edges in units of a step."""
        return searchable(self.edges / np.float32(STEP), np.maximum(np.isfinite(self.edges).sum(axis=1) - 1, 0))

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
        return np.asarray(np.vstack([means, intensity]) * STEP, np.float32)

    @cached_property
    def _patches(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Columns in the order of their patches, where each patch starts in that order, and its size."""
        order = np.argsort(self.pool, kind="stable")
        sizes = np.bincount(self.pool)
        return order, np.cumsum(sizes) - sizes, sizes


SKETCH_ARRAYS: Final = tuple(_PREFIX + field.name for field in fields(Sketch))


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
        return (1 / (spread.astype(np.float64) * STEP)).astype(np.float32)


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
