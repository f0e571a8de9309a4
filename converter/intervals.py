"""Confidence bounds for agreement and for paired differences of accuracy."""

import math

# Normal quantiles: two-sided 95 % for what is shown, one-sided 95 % for what is judged.
Z_SHOWN = 1.959963984540054
Z_JUDGED = 1.6448536269514722


def wilson(successes: int, n: int, z: float = Z_SHOWN) -> tuple[float, float]:
    """Score interval of a proportion; (0, 1) when there is nothing to judge from.

    Args:
        successes: Count of successes, 0 to n.
        n: Number of trials.
        z: Normal quantile.

    Reference:
        Wilson (1927), J. Amer. Statist. Assoc. 22, 209.

    >>> low, high = wilson(720, 720)
    >>> round(low, 4), high
    (0.9947, 1.0)
    """
    if n == 0:
        return 0.0, 1.0
    p, zz = successes / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # The exact ends are 0 and 1 there; the square root would leave a last bit.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def paired_drop(worse: int, better: int, n: int, z: float = Z_JUDGED) -> tuple[float, float]:
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
