"""Columns that float32 cannot hold: neighbouring values become equal (epoch seconds have steps of 128)."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LOOKED_AT: Final = 100_000
# A continuous sensor loses a pair in a hundred by chance among 100 000 values; a clock loses nearly all.
MAX_LOST_FRACTION: Final = 0.05


def float32_warnings(x: NDArray[Any], names: Sequence[str]) -> list[str]:
    """One sentence for each column whose values differ in float64 and are equal in float32.

    Args:
        x: [n, F] float64 as read, before rounding; the first 100 000 rows are looked at.
        names: [F].

    Example:
        >>> float32_warnings(np.arange(1.7e9, 1.7e9 + 600)[:, None], ["at"])[0][:64]
        "column 'at': 594 of 599 neighbouring values become equal in floa"
    """
    found = []
    for name, column in zip(names, np.asarray(x, np.float64)[:_LOOKED_AT].T, strict=True):
        values = np.unique(column[np.isfinite(column)])
        if len(values) < 2:
            continue
        with np.errstate(over="ignore"):
            lost = int(np.sum(np.diff(values.astype(np.float32)) == 0))
        if lost <= MAX_LOST_FRACTION * (len(values) - 1):
            continue
        step, smallest = float(np.spacing(np.float32(np.max(np.abs(values))))), float(np.min(np.diff(values)))
        found.append(
            f"column {name!r}: {lost} of {len(values) - 1} neighbouring values become equal in float32 (steps of {step:g} at "
            f"{float(np.max(np.abs(values))):g}, smallest difference {smallest:g}); subtract a constant or use differences"
        )
    return found
