"""Bounds of a paired difference of accuracy."""

import math

from edgefleet.intervals import Z_ONE_SIDED


def paired_drop(worse: int, better: int, n: int, z: float = Z_ONE_SIDED) -> tuple[float, float]:
    """Bounds of the drop of accuracy between two models on the same rows.

    Only rows on which exactly one model is right carry information. Without any such row the rule of three bounds what may be hidden.

    Args:
        worse: Rows that only the original answers rightly.
        better: Rows that only the variant answers rightly.
        n: Rows.
        z: Normal quantile.

    Reference:
        Agresti and Min (2005), Biometrics 61, 515: half a row added to each cell.

    >>> low, high = paired_drop(0, 0, 720)
    >>> round(high, 5)
    0.00417
    """
    if n == 0:
        return -1.0, 1.0
    if worse == better == 0:
        return -3.0 / n, 3.0 / n
    total = n + 2
    difference = (worse - better) / total
    variance = ((worse + better + 1) - total * difference * difference) / (total * total)
    half = z * math.sqrt(max(variance, 0.0))
    return difference - half, difference + half
