"""How many rows a graph of trees answers otherwise than scikit-learn, on rows that are made to show it."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble

LIMIT: Final = 1e-6
_MISSING_SHARE: Final = 0.1


@dataclass(frozen=True)
class Off:
    """A comparison of two answers to the same rows.

    Attributes:
        rows: How many rows were compared.
        off: How many of them differ by more than the limit.
        largest: Largest difference.
    """

    rows: int
    off: int
    largest: float


def rows_off(wanted: NDArray[Any], got: NDArray[Any], *, scale: float = 1.0, limit: float = LIMIT) -> Off:
    """Count rows that differ in any column.

    Args:
        wanted: [n, ...] the original's answers.
        got: [n, ...].
        scale: What differences are divided by: 1 for probabilities, the spread or size of the targets for values.
        limit: Largest difference that counts as none.

    >>> rows_off(np.array([[0.5], [1.0]]), np.array([[0.5], [0.75]]))
    Off(rows=2, off=1, largest=0.25)
    """
    difference = np.abs(np.asarray(wanted, np.float64) - np.asarray(got, np.float64)).reshape(len(wanted), -1) / scale
    # A missing answer on one side only is as far off as can be.
    one_sided = np.isnan(wanted.reshape(len(wanted), -1)) != np.isnan(got.reshape(len(wanted), -1))
    worst = np.where(one_sided, np.inf, np.nan_to_num(difference)).max(axis=1, initial=0.0)
    return Off(len(worst), int((worst > limit).sum()), float(worst.max(initial=0.0)))


def hard_rows(ensemble: Ensemble, rows: int, seed: int, *, missing: bool = False) -> NDArray[np.float32]:
    """Rows whose values lie on split values and on their float32 neighbours; of columns of categories known and unknown ones.

    Args:
        ensemble: The trees.
        rows: How many.
        seed: Of the draw.
        missing: Whether a tenth of the values is missing.
    """
    draw = np.random.default_rng(seed)
    columns = []
    for column in range(ensemble.features):
        kept = [np.zeros(1, np.float32)]
        for tree in ensemble.trees:
            sets = tree.categories or {}
            kept += [values for node, values in sets.items() if tree.feature[node] == column]
            by_value = (tree.left >= 0) & (tree.feature == column)
            by_value[list(sets)] = False
            kept.append(tree.threshold[by_value])
        cuts = np.unique(np.concatenate(kept))
        value = draw.choice(cuts[np.isfinite(cuts)], rows)
        step = draw.integers(-1, 2, rows)
        moved = np.nextafter(value, np.where(step > 0, np.float32(np.inf), np.float32(-np.inf)))
        columns.append(np.where(step == 0, value, moved))
    found = np.stack(columns, axis=1).astype(np.float32)
    if missing:
        found[draw.random(found.shape) < _MISSING_SHARE] = np.nan
    return found
