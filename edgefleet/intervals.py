"""The interval of a share, as every report and gate of edgefleet computes it.

Two-sided 95 % intervals are shown; gates judge one-sided 95 % bounds.
"""

import math
from typing import Final

Z_TWO_SIDED: Final = 1.959963984540054  # normal quantile .975: intervals that are shown
Z_ONE_SIDED: Final = 1.6448536269514722  # normal quantile .95: bounds that gates judge


def wilson(successes: float, n: float, z: float = Z_TWO_SIDED) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    Args:
        successes: Number of successes, 0 to n; may be fractional when n is an effective number.
        n: Number of trials; 0 gives (0, 1).
        z: Normal quantile.

    Reference:
        Wilson (1927), J. Amer. Statist. Assoc. 22, 209; Brown, Cai and DasGupta (2001), equation 4.

    >>> [round(bound, 4) for bound in wilson(8, 10, 1.96)]
    [0.4902, 0.9433]
    >>> wilson(720, 720)[1]
    1.0
    """
    if n <= 0:
        return 0.0, 1.0
    p, zz = successes / n, z * z
    centre = (p + zz / (2 * n)) / (1 + zz / n)
    half = z / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # The exact ends are 0 and 1 there; the square root would leave a last bit.
    return (0.0 if successes <= 0 else max(0.0, centre - half)), (1.0 if successes >= n else min(1.0, centre + half))
