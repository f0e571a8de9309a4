"""Building the multivariate sketch from training rows; the device only reads it (`sketch.py`)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.cells import BINS, Matrix, bin_counts, padded_edges, searchable, sorted_columns
from edgefleet.sketch import MAX_COMPONENTS, SKETCH_CELLS, STEP, WEIGHT_STEP, Sketch

# More numeric columns than this are reduced to summaries.
MAX_COLUMNS: Final = 256
PATCHES_A_SIDE: Final = 8
# A covariance of fewer rows for each of its columns says more about the sample than about the world.
LEAST_ROWS_A_COLUMN: Final = 5
_LEAST_VARIANCE: Final = 1e-4  # weights stay below 100, and rounding of deviations below a hundredth of a component
_BUILT_AT_ONCE: Final = 4_194_304  # values of training rows


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
    parts = [x[i : i + _BUILT_AT_ONCE // x.shape[1] + 1] for i in range(0, len(x), _BUILT_AT_ONCE // x.shape[1] + 1)]
    with np.errstate(over="ignore"):
        reduced = np.hstack([bare.reduced((part - mean).T, False) for part in parts])
    return _with_bins(_with_weights(bare, reduced), reduced, starts, block_rows)


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


def _with_weights(bare: Sketch, reduced: Matrix) -> Sketch:
    if len(bare.pool):
        mean = reduced.mean(axis=1, dtype=np.float64).astype(np.float32)
        scale = np.maximum(reduced.std(axis=1, dtype=np.float64), STEP).astype(np.float32)
        bare = replace(bare, mean=mean, scale=scale)
    exact = bare.summaries(reduced).astype(np.float64) * STEP
    exact -= exact.mean(axis=1)[:, None]
    variances, vectors = np.linalg.eigh(exact @ exact.T / exact.shape[1])  # ascending
    vectors = vectors[:, :MAX_COMPONENTS] / np.sqrt(np.maximum(variances[:MAX_COMPONENTS], _LEAST_VARIANCE))
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])  # a vector's sign is arbitrary
    weights = (np.rint(vectors / WEIGHT_STEP) * WEIGHT_STEP).astype(np.float32)
    return replace(bare, weights=weights, counts=np.zeros((weights.shape[1] + 1, SKETCH_CELLS), np.int64))


def _with_bins(whitened: Sketch, reduced: Matrix, starts: Sequence[int], block_rows: int) -> Sketch:
    values = whitened.whitened(whitened.summaries(reduced)).T * np.float32(STEP)
    edges, bins = padded_edges(values)
    search = searchable(edges, bins)
    parts = [values, *(values[start : start + block_rows] for start in starts)]
    counts = np.stack([bin_counts(sorted_columns(part), len(part), search) for part in parts])
    return replace(whitened, edges=edges, counts=counts[0], blocks=counts[1:])
