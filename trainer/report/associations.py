"""How each input goes with the label and with the other inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.suspects import THRESHOLD

LEAST_ROWS = 30  # of a class and of all others
_HALVES = 2


@dataclass(frozen=True)
class Association:
    """What one input alone tells about the label.

    Attributes:
        column: Index of the input.
        measure: "AUC" (best class against the others, whatever the direction), or "rank correlation" (absolute).
        value: In [0, 1]; an AUC is at least one half.
        by: What tells it: "value", or "being missing" where that tells more.
    """

    column: int
    measure: str
    value: float
    by: str

    @property
    def suspect(self) -> bool:
        """Whether the input nearly is the label."""
        return self.value > THRESHOLD


def associations(x: NDArray[np.float32], label: NDArray[Any], is_category: list[bool], classes: int) -> list[Association]:
    """One association an input, strongest first.

    Args:
        x: [n, F] training rows.
        label: [n] class index, or target.
        is_category: [F]; a category is replaced by the mean label of its rows in one half of the rows and judged on the other half.
        classes: Number of classes, 0 for a target.
    """
    found = []
    for column in range(x.shape[1]):
        values = x[:, column].astype(np.float64)
        gone = ~np.isfinite(values)
        shown = _best(values, label, is_category[column], classes)
        hidden = _strength(gone.astype(np.float64), label, classes) if gone.any() and not gone.all() else 0.0
        measure = "AUC" if classes else "rank correlation"
        found.append(Association(column, measure, max(shown, hidden), "value" if shown >= hidden else "being missing"))
    return sorted(found, key=lambda item: -item.value)


def _best(values: NDArray[np.float64], label: NDArray[Any], category: bool, classes: int) -> float:
    if not category:
        return _strength(np.nan_to_num(values, nan=-np.inf), label, classes)
    fit = np.arange(len(values)) % _HALVES == 0
    _, index = np.unique(np.nan_to_num(values, nan=-2.0), return_inverse=True)
    counts = np.bincount(index[fit], minlength=index.max() + 1)
    targets = [label == k for k in range(classes)] if classes else [label]
    strengths = []
    for target in targets:
        sums = np.bincount(index[fit], weights=target[fit].astype(np.float64), minlength=len(counts))
        # Categories with few rows lean to the mean of all, else each rare one would look sure.
        means = (sums + target[fit].mean()) / (counts + 1)
        strengths.append(_strength(means[index[~fit]], target[~fit].astype(np.int64) if classes else target[~fit], 2 if classes else 0))
    return max(strengths, default=0.0)


def _strength(values: NDArray[np.float64], label: NDArray[Any], classes: int) -> float:
    """Largest one-against-rest AUC, or the absolute rank correlation."""
    from scipy.stats import rankdata

    if len(values) == 0 or np.all(values == values[0]):
        return 0.5 if classes else 0.0
    ranks = rankdata(values)
    if not classes:
        other = rankdata(label)
        deviation = ranks.std() * other.std()
        return float(abs(((ranks - ranks.mean()) * (other - other.mean())).mean() / deviation)) if deviation > 0 else 0.0
    counts = np.bincount(label, minlength=classes)
    sums = np.bincount(label, weights=ranks, minlength=classes)
    rest = len(label) - counts
    judged = (counts >= LEAST_ROWS) & (rest >= LEAST_ROWS)
    if not judged.any():
        return 0.5
    # Mann and Whitney (1947): the rank sum of one class gives the share of pairs it wins.
    auc = (sums[judged] - counts[judged] * (counts[judged] + 1) / 2) / (counts[judged] * rest[judged])
    return float(np.maximum(auc, 1 - auc).max())


def rank_correlations(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """[F, F] Spearman's correlation over rows where both inputs are there; NaN where one is constant or has fewer than 3 such rows."""
    import pandas as pd

    # Ranks are taken once a column; with missing values that differs from ranking each pair anew by less than a report can show.
    correlation: NDArray[np.float64] = pd.DataFrame(x).rank().corr(min_periods=3).to_numpy(np.float64)
    return correlation
