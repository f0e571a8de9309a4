"""Linear models explained in closed form: phi_j = w_j (z_j - mean_j) on cleaned columns, summed into the raw inputs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Cleaning, Explanation, Margins, Matrix, array_of, column_of
from edgefleet.errors import ArtifactError


class LinearExplainer:
    """Exact Shapley values of a linear margin against the mean row.

    A linear model has no interactions, so these are its Shapley values for any background with that mean. One multiply per column.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], columns: int) -> None:
        self._names, self._cleaning = names, Cleaning.of(arrays, len(names))
        self.segment_rows_back = self._cleaning.segment_rows_back
        weight, mean, base = array_of(arrays, "weight", 2), array_of(arrays, "mean", 1), array_of(arrays, "base", 1)
        cleaned = len(self._cleaning.sources)
        if weight.shape != (cleaned, columns) or mean.shape != (cleaned,) or base.shape != (columns,):
            raise ArtifactError(
                f"explainer: made for another model than this one of {len(names)} inputs and {columns} margins; convert again"
            )
        if not (np.isfinite(weight).all() and np.isfinite(mean).all() and np.isfinite(base).all()):
            raise ArtifactError("explainer: its weights hold NaN or infinity; convert again")
        self._weight, self._mean, self._base = weight.astype(np.float64), mean.astype(np.float64), base.astype(np.float64)

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        column, sign = column_of(index, len(self._base))
        moved = sign * self._weight[:, column] * (self._cleaning.run(row) - self._mean)
        by_player = np.asarray(np.bincount(self._cleaning.players, moved, self._cleaning.player_count), np.float64)
        contributions, segments = self._cleaning.shown(by_player)
        base = sign * float(self._base[column])
        gap = margin - base - float(contributions.sum())
        exact = np.zeros(len(contributions))
        return Explanation(base, contributions, self._names, "linear", exact, gap, segments, self.segment_rows_back)
