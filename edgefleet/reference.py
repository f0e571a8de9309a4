"""Reference statistics of the training rows: bin edges, counts per cell, means, and consecutive windows of counts.

Bins of a number: 11 float32 edges (training deciles, duplicates dropped), right-open, last edge nextafter(max, inf). With at most ten
distinct values the edges are those values, so that each has a cell of its own. Cells in order: below, 10 bins, above, missing, unseen;
bins that a feature does not need stay empty. Categories: one cell each, at most 30, the rest pooled in the last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.cells import BINS, SearchEdges, bin_counts, padded_edges, searchable, sorted_columns
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import MAX_INPUTS, Input
from edgefleet.package import npz_bytes, read_npz
from edgefleet.sketch import SKETCH_ARRAYS, Sketch
from edgefleet.summaries import Summaries, is_summarised

__all__ = [
    "BELOW",
    "BINS",
    "FIRST_BIN",
    "MAX_CATEGORY_CELLS",
    "Reference",
    "build_reference",
    "cell_count",
    "count_cells",
    "count_sorted",
    "score_histogram",
]

MAX_CATEGORY_CELLS: Final = 30
_SUMMARISED_AT_ONCE: Final = 4_194_304  # elements
MAX_REFERENCE_BYTES: Final = 512 * 1024 * 1024
BELOW, FIRST_BIN = 0, 1
_ARRAYS: Final = ("edges", "bins", "is_category", "mean", "scale", "counts", "blocks", "score_counts", "class_counts")
_OPTIONAL: Final = ("block_group", "score_edges", "row_shape")  # files of earlier versions and of other tasks do not have them


@dataclass(frozen=True)
class Reference:
    """What the model was trained on, as statistics.

    Attributes:
        edges: [F, BINS + 1] float32; unused edges are +inf, so that nothing falls between them.
        bins: [F] int64, how many bins (or category cells) feature f uses.
        is_category: [F] bool.
        mean: [F] float32; statistics are shifted by it before they are squared.
        scale: [F] float32, standard deviation of the training rows (1 where it is 0).
        counts: [F, cells] int64 of the training rows.
        blocks: [T, F, cells] int64, counts of T consecutive windows of training rows, all of the same length.
        score_counts: [BINS] int64, the model's scores on validation rows in ten equal bins of [0, 1], or between `score_edges`.
        class_counts: [classes] int64, the model's answers on validation rows.
        digest: Sha256 of the file; statistics of other references never merge.
        block_group: [T] int64: neighbours in `blocks` with the same number follow each other in time; None: all of them do.
        score_edges: [BINS + 1] float64, deciles of scores that are no probabilities (regression, anomaly), or None.
        sketch: How numeric features move together, or None where that is not known.
        row_shape: Shape of a row of which summaries are counted; its features are then these summaries. None: the features are its columns.
    """

    edges: NDArray[np.float32]
    bins: NDArray[np.int64]
    is_category: NDArray[np.bool_]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    counts: NDArray[np.int64]
    blocks: NDArray[np.int64]
    score_counts: NDArray[np.int64]
    class_counts: NDArray[np.int64]
    digest: str = ""
    block_group: NDArray[np.int64] | None = None
    score_edges: NDArray[np.float64] | None = None
    sketch: Sketch | None = None
    row_shape: NDArray[np.int64] | None = None

    @property
    def features(self) -> int:
        """Number of features F."""
        return len(self.bins)

    @property
    def cells(self) -> int:
        """Cells per feature: below, bins, above, missing, unseen."""
        return int(self.counts.shape[1])

    @cached_property
    def summaries(self) -> Summaries | None:
        """What is counted instead of a row's columns, None where these are counted."""
        return None if self.row_shape is None else Summaries(self.row_shape.tolist())

    @property
    def columns(self) -> int:
        """Columns of a row."""
        return self.features if self.summaries is None else self.summaries.columns

    @cached_property
    def searchable_edges(self) -> tuple[NDArray[np.int64], SearchEdges]:
        """The numeric features' numbers and edges, as `edgefleet.cells.bin_counts` takes them."""
        numeric = np.flatnonzero(~self.is_category).astype(np.int64)
        return numeric, searchable(self.edges[numeric], self.bins[numeric])

    @property
    def block_rows(self) -> int:
        """Rows in each of the consecutive windows; 0 where there are none."""
        return int(self.blocks[0, 0].sum()) if len(self.blocks) else 0

    def to_bytes(self) -> bytes:
        """Deterministic .npz; its sha256 is the reference digest. Counts are stored as narrow as they fit: devices fetch this file."""
        there = [*_ARRAYS, *(name for name in _OPTIONAL if getattr(self, name) is not None)]
        arrays = {name: getattr(self, name) for name in there} | ({} if self.sketch is None else self.sketch.arrays())
        return npz_bytes({name: _narrow(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Reference":
        """Read a reference file.

        Raises:
            ArtifactError: No .npz, an array is missing, or the shapes contradict each other.
        """
        optional = (*_OPTIONAL, *SKETCH_ARRAYS)
        stored = read_npz(content, _ARRAYS, "reference statistics", optional, max_bytes=MAX_REFERENCE_BYTES)
        arrays: dict[str, Any] = {name: array.astype(np.int64) if array.dtype.kind == "u" else array for name, array in stored.items()}
        sketch = Sketch.of_arrays(arrays, len(arrays["bins"]) if arrays["bins"].ndim else 0)
        own = {name: array for name, array in arrays.items() if name not in SKETCH_ARRAYS}
        reference = cls(**own, sketch=sketch, digest=sha256_hex(content))
        f, cells = reference.counts.shape if reference.counts.ndim == 2 else (0, 0)
        shapes = (reference.edges.shape == (f, BINS + 1), reference.mean.shape == (f,), reference.bins.shape == (f,))
        group, scores = reference.block_group, reference.score_edges
        extra = (group is None or group.shape == reference.blocks.shape[:1], scores is None or scores.shape == (BINS + 1,))
        if reference.row_shape is not None and not _is_shape(reference.row_shape, f):
            raise ArtifactError("reference statistics: the shape of a row does not fit its features; make the package again")
        if f == 0 or not all(shapes) or not all(extra) or reference.blocks.shape[1:] != (f, cells):
            raise ArtifactError("reference statistics: the shapes of its arrays contradict each other; make the package again")
        return reference


def _is_shape(shape: NDArray[np.int64], features: int) -> bool:
    plain = shape.ndim == 1 and 2 <= len(shape) <= 4 and bool((shape > 0).all()) and math.prod(shape.tolist()) <= MAX_INPUTS
    return plain and len(Summaries(shape.tolist()).names) == features


def cell_count(inputs: list[Input]) -> int:
    """Cells per feature that fit every input."""
    widest = max((min(len(i.categories), MAX_CATEGORY_CELLS) for i in inputs if i.kind == "category"), default=0)
    return max(BINS, widest) + 4


def count_cells(x: NDArray[np.float32], reference: Reference) -> NDArray[np.int64]:
    """Counts [F, cells] of rows x [n, F]; NaN is missing, infinities are below or above, a category below 0 is unseen."""
    if x.shape[1] != reference.features:
        raise InputError(f"rows have {x.shape[1]} features, the reference has {reference.features}")
    columns = sorted_columns(x)
    return count_sorted(columns, len(x) - np.isnan(columns).sum(axis=1), reference)


def count_sorted(columns: NDArray[np.float32], present: NDArray[np.int64], reference: Reference) -> NDArray[np.int64]:
    """As `count_cells`, of sorted columns [F, n] (NaN last) and the number of values in each that are not NaN."""
    features, n = columns.shape
    counts = np.zeros((features, reference.cells), np.int64)
    counts[:, -2] = n - present
    numeric, edges = reference.searchable_edges
    if len(numeric) < features:
        width = reference.cells - 4
        for f in np.flatnonzero(reference.is_category).tolist():
            counts[f, -1] = columns[f, : present[f]].searchsorted(np.float32(0))
            index = columns[f, counts[f, -1] : present[f]].astype(np.int64)
            counts[f, FIRST_BIN : FIRST_BIN + width] = np.bincount(np.minimum(index, reference.bins[f] - 1), minlength=width)[:width]
        if not len(numeric):
            return counts
        columns, present = columns[numeric], present[numeric]
    found = bin_counts(columns, present, edges)
    where = slice(None) if len(numeric) == features else numeric  # a slice takes a third of the time
    counts[where, BELOW : FIRST_BIN + BINS] = found[:, :-1]
    counts[where, -3] = found[:, -1]
    return counts


def build_reference(
    x: NDArray[np.float32],
    inputs: list[Input],
    *,
    block_rows: int,
    scores: NDArray[np.float64] | None = None,
    answers: NDArray[np.int64] | None = None,
    classes: int = 0,
    block_starts: Sequence[int] | None = None,
    block_group: NDArray[np.int64] | None = None,
    shape: Sequence[int] = (),
) -> Reference:
    """Reference of training rows in time order.

    Args:
        x: [n, F] float32, NaN = missing.
        inputs: Schema, one per column.
        block_rows: Length of the consecutive windows.
        scores: [m] scores of the model, or None: in [0, 1] where there are classes, else anything finite, then binned by their deciles.
        answers: [m] class indices the model answered, or None.
        classes: Number of classes.
        block_starts: First row of each window; None: one after the other from the first row on.
        block_group: [windows] what `Reference.block_group` says; None: all windows follow each other.
        shape: Of one row's tensor, for the sketch of an image; empty = one row of values.
    """
    if x.ndim != 2 or x.shape[1] != len(inputs):
        raise InputError(f"rows of shape {x.shape} do not fit {len(inputs)} inputs")
    row_shape = np.array(shape, np.int64) if is_summarised(inputs, shape) else None
    if row_shape is not None:
        summaries, rows = Summaries(shape), max(1, _SUMMARISED_AT_ONCE // len(inputs))
        parts = [summaries.of(x[i : i + rows]) for i in range(0, len(x), rows)]
        x = np.concatenate(parts) if parts else np.zeros((0, len(summaries.names)), np.float32)
        inputs, shape = [Input(name=name, missing=True) for name in summaries.names], ()
    features = len(inputs)
    category = np.array([column.kind == "category" for column in inputs])
    if empty_ones := [column.name for column in inputs if column.kind == "category" and not column.categories]:
        raise InputError(f"input {empty_ones[0]!r} is a category without categories; list them in the schema")
    edges, bins = padded_edges(x, ~category)
    bins[category] = [min(len(column.categories), MAX_CATEGORY_CELLS) for column in inputs if column.kind == "category"]
    filled = np.where(np.isfinite(x), x, np.nan)
    some = np.isfinite(filled).any(axis=0)
    mean = np.zeros(features, np.float32)
    scale = np.ones(features, np.float32)
    mean[some] = np.nanmean(filled[:, some].astype(np.float64), axis=0)
    spread = np.nanstd(filled[:, some].astype(np.float64), axis=0)
    scale[some] = np.where(spread > 0, spread, 1.0)
    score_edges = None if scores is None or classes or not len(scores) else np.quantile(scores, np.linspace(0, 1, BINS + 1))
    empty = np.zeros((features, cell_count(inputs)), np.int64)
    bare = Reference(
        edges=edges,
        bins=bins,
        is_category=category,
        mean=mean,
        scale=scale,
        counts=empty,
        blocks=np.zeros((0, *empty.shape), np.int64),
        score_counts=score_histogram(np.zeros(0) if scores is None else scores, score_edges),
        class_counts=np.bincount(np.zeros(0, np.int64) if answers is None else answers, minlength=classes).astype(np.int64),
        block_group=block_group,
        score_edges=score_edges,
    )
    starts = range(0, len(x) - block_rows + 1, block_rows) if block_starts is None else block_starts
    blocks = np.stack([count_cells(x[s : s + block_rows], bare) for s in starts]) if len(starts) else bare.blocks
    from edgefleet.sketch_building import build_sketch  # a trainer's work

    sketch = build_sketch(x, np.flatnonzero(~category), mean, scale, starts, block_rows, shape)
    return Reference.from_bytes(replace(bare, counts=count_cells(x, bare), blocks=blocks, sketch=sketch, row_shape=row_shape).to_bytes())


def score_histogram(scores: NDArray[np.float64], edges: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Counts of scores in ten equal bins of [0, 1], or between the edges [BINS + 1]; the outer bins also take what lies outside."""
    if edges is not None:
        return np.bincount(edges[1:-1].searchsorted(scores, side="right"), minlength=BINS).astype(np.int64)
    bins = np.where(np.isfinite(scores), scores, np.where(scores > 0, 1.0, 0.0)) * BINS
    index = np.minimum(np.maximum(bins.astype(np.int64), 0), BINS - 1)
    return np.bincount(index, minlength=BINS).astype(np.int64)


def _narrow(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != np.int64:
        return array
    return array.astype(np.min_scalar_type(int(array.max(initial=0))))
