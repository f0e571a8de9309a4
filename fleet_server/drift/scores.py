"""The normal score of a window: one number per feature, from cell counts alone.

A cell's score is the normal quantile of its middle place in the reference, so that every feature has about the unit "reference standard
deviation" whatever its distribution. Missing and unseen values have no place in that order: they are excluded (their rates are the matter
of data-quality rules). Categories are scored in the order of their index, which sees a change of shares but has no meaning as a size.
"""

from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.reference import BELOW, FIRST_BIN, Reference
from edgefleet.statistics import InputStatistics

# One row moves the mean of 50 rows by at most 0.05.
MAX_SCORE: Final = 2.5
_STRETCHES: Final = (1, 4, 16, 64)
_LEAST_STRETCHES: Final = 10


def cell_scores(reference: Reference) -> NDArray[np.float64]:
    """[F, cells] normal score per cell; 0 for missing, unseen, and every cell of a feature that is constant in the reference.

    >>> from edgefleet.manifest import Input
    >>> from edgefleet.reference import build_reference
    >>> x = np.array([[0.0], [0.0], [1.0], [1.0]], np.float32)
    >>> table = cell_scores(build_reference(x, [Input(name="a", kind="number")], block_rows=2))
    >>> [round(float(s), 3) for s in table[0, 1:3]]
    [-0.674, 0.674]
    """
    width = reference.cells - 4
    order = [BELOW, *range(FIRST_BIN, FIRST_BIN + width + 1)]
    body = reference.counts[:, order].astype(np.float64)
    total = body.sum(axis=1, keepdims=True)
    middle = (np.cumsum(body, axis=1) - body / 2) / np.maximum(total, 1.0)
    table = np.zeros(reference.counts.shape)
    normal = NormalDist()
    least = normal.cdf(-MAX_SCORE)
    for f in np.flatnonzero((body > 0).sum(axis=1) > 1):
        table[f, order] = [normal.inv_cdf(min(max(share, least), 1 - least)) for share in middle[f].tolist()]
    return table


def window_scores(
    statistics: InputStatistics, reference: Reference, table: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean score per feature, and the number of rows behind it.

    Args:
        statistics: Of one window.
        reference: Whose cells are counted.
        table: `cell_scores(reference)`, when the caller has it already.

    Returns:
        Scores [F], NaN where a feature had no present value; present values [F].

    Raises:
        InputError: The statistics count the cells of another reference.
    """
    if statistics.reference_digest != reference.digest or statistics.counts.shape != reference.counts.shape:
        raise InputError(
            f"statistics of reference {statistics.reference_digest[:12]} {statistics.counts.shape} cannot be scored by reference "
            f"{reference.digest[:12]} {reference.counts.shape}"
        )
    scores = cell_scores(reference) if table is None else table
    present = statistics.counts[:, :-2].sum(axis=1)
    total = (statistics.counts[:, :-2] * scores[:, :-2]).sum(axis=1)
    return np.where(present > 0, total / np.maximum(present, 1), np.nan), present


def score_scale(reference: Reference) -> NDArray[np.float64]:
    """[F] standard deviation of one row's score in the reference; 0 for constant features."""
    return np.asarray(np.sqrt(score_variance(reference.counts, cell_scores(reference))), np.float64)


def score_variance(counts: NDArray[np.int64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F] variance of one row's score within these counts [F, cells]; 0 where nothing is present."""
    body, scores = counts[:, :-2], table[:, :-2]
    total = np.maximum(body.sum(axis=1), 1)
    mean = (body * scores).sum(axis=1) / total
    return np.asarray((body * np.square(scores - mean[:, None])).sum(axis=1) / total, np.float64)


def design_effect(reference: Reference, table: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """[F] how many times larger the variance of a window's mean is than with independent rows; never below 1.

    The largest over stretches of 1, 4, 16, 64 consecutive reference windows, where at least ten stretches exist; 1 without windows. A
    stretch lies within one group, and means are compared with those of their own group: a device is one of them, and the level at which it
    stands is no autocorrelation. It is as good as the time order of the training rows: shuffled rows give 1.
    """
    effect = np.ones(reference.features)
    scores = cell_scores(reference) if table is None else table
    variance = score_variance(reference.counts, scores)
    # Means add up over windows of equal length, so the cells are needed once.
    body = reference.blocks[:, :, :-2]
    present = body.sum(axis=2)
    totals = np.einsum("tfk,fk->tf", body, scores[:, :-2])
    for stretch in _STRETCHES:
        kept, group = _stretches(len(body), reference.block_group, stretch)
        # One group has one mean of its own, so ten stretches of it leave nine degrees of freedom.
        degrees = len(group) - len(np.unique(group))
        if degrees < _LEAST_STRETCHES - 1:
            continue
        sums = totals[kept].reshape(len(group), stretch, -1).sum(axis=1)
        rows = present[kept].reshape(len(group), stretch, -1).sum(axis=1)
        means = sums / np.maximum(rows, 1)
        squares = sum(np.square(means[group == one] - means[group == one].mean(axis=0)).sum(axis=0) for one in np.unique(group))
        ratio = np.where(variance > 0, squares / degrees * rows.mean(axis=0) / np.where(variance > 0, variance, 1.0), 1.0)
        effect = np.maximum(effect, ratio)
    return effect


def _stretches(windows: int, block_group: NDArray[np.int64] | None, stretch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows that fill stretches of one group each, in order, `stretch` at a time; the run of windows that each stretch lies in."""
    group = np.zeros(windows, np.int64) if block_group is None else block_group
    run = np.cumsum(np.diff(group, prepend=group[:1]) != 0)
    sizes = np.bincount(run) if windows else np.zeros(0, np.int64)
    place = np.arange(windows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.flatnonzero(place < np.repeat(sizes // stretch * stretch, sizes))
    return kept, run[kept][::stretch]
