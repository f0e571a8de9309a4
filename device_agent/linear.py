"""Linear models explained in closed form: phi_j = w_j (z_j - mean_j) on cleaned columns, summed into the raw inputs.

An integer variant is linear in the columns as it rounds them, so z is rounded as the variant does it, and w are its own weights. What it
does to the sum afterwards (some round their margin, too) is no input's doing and stays in the gap.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Cleaning, Explanation, Margins, Matrix, array_of, column_of
from edgefleet.errors import ArtifactError
from edgefleet.rounding import Rounding


class LinearExplainer:
    """Exact Shapley values of a linear margin against the mean row.

    A linear model has no interactions, so these are its Shapley values for any background with that mean. One multiply per column. The file
    of an integer variant also holds `shift` [C], subtracted before its `rounding`, the `grid` of that, and `error` [K, F].
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], columns: int) -> None:
        self._names, self._cleaning = names, Cleaning.of(arrays, len(names))
        self.segment_rows_back = self._cleaning.segment_rows_back
        weight, mean, base = array_of(arrays, "weight", 2), array_of(arrays, "mean", 1), array_of(arrays, "base", 1)
        cleaned = len(self._cleaning.sources)
        shift = array_of(arrays, "shift", 1) if "shift" in arrays else np.zeros(cleaned)
        error = array_of(arrays, "error", 2) if "error" in arrays else np.zeros((columns, len(names)))
        fits = weight.shape == (cleaned, columns) and mean.shape == shift.shape == (cleaned,) and base.shape == (columns,)
        if not fits or error.shape != (columns, len(names)):
            raise ArtifactError(
                f"explainer: made for another model than this one of {len(names)} inputs and {columns} margins; convert again"
            )
        if not all(bool(np.isfinite(array).all()) for array in (weight, mean, base, shift, error)):
            raise ArtifactError("explainer: its weights hold NaN or infinity; convert again")
        self._weight, self._mean, self._base = weight.astype(np.float64), mean.astype(np.float64), base.astype(np.float64)
        self._shift, self._error = shift.astype(np.float32), error.astype(np.float64)
        self._rounding = Rounding.of(str(arrays["rounding"]), array_of(arrays, "grid", 1)) if "rounding" in arrays else None

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        column, sign = column_of(index, len(self._base))
        cleaned = self._cleaning.run(row)
        z = cleaned if self._rounding is None else self._rounding.run((cleaned - self._shift).astype(np.float32))
        moved = sign * self._weight[:, column] * (z - self._mean)
        by_player = np.asarray(np.bincount(self._cleaning.players, moved, self._cleaning.player_count), np.float64)
        contributions, segments = self._cleaning.shown(by_player)
        base = sign * float(self._base[column])
        gap = margin - base - float(contributions.sum())
        error = self._error[column]
        return Explanation(base, contributions, self._names, "linear", error, gap, segments, self.segment_rows_back)
