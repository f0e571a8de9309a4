"""What a number of devices without, or with few, failures can prove: upper bounds of a share, and how many devices a promotion needs."""

import math
from functools import lru_cache

import numpy as np

from edgefleet.errors import ConfigError

_STEPS = 60  # halvings at most
_CLOSE = 1e-14  # relative: the bound is exact to the last digits of a float


def share_at_most(failures: int, devices: int, p: float) -> float:
    """P(X <= failures) for X ~ Binomial(devices, p): how likely so few failures are when the true share is p.

    Summed from the term next to the tail's end outwards, in the smaller tail: no cancellation, no underflow of the sum.

    >>> round(share_at_most(0, 45, 0.05), 6)
    0.09944
    """
    if failures < 0:
        return 0.0
    if failures >= devices or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    if failures > devices * p:
        return 1.0 - share_at_most(devices - failures - 1, devices, 1 - p)
    j = np.arange(failures, 0, -1, dtype=np.float64)
    falling = np.cumprod(j * (1 - p) / ((devices - j + 1) * p))
    return math.exp(_log_probability(failures, devices, p)) * (1.0 + float(falling.sum()))


@lru_cache(maxsize=65_536)  # counts change far less often than they are looked at
def upper_bound(failures: int, devices: int, confidence: float) -> float:
    """The share that is exceeded with at most 1 - confidence: solves P(X <= failures) = 1 - confidence.

    Args:
        failures: k, 0 to n.
        devices: n; 0 proves nothing, the bound is 1.
        confidence: One-sided, above 0 and below 1.

    Raises:
        ConfigError: Counts that cannot be.

    Reference:
        Clopper, Pearson (1934), Biometrika 26.

    >>> round(upper_bound(0, 45, 0.9), 6), upper_bound(3, 3, 0.9), upper_bound(0, 0, 0.9)
    (0.049881, 1.0, 1.0)
    """
    _check(failures, devices, confidence)
    if failures >= devices:
        return 1.0
    low, high, allowed = failures / devices, 1.0, 1 - confidence
    at = min((failures + 1) / (devices + 1), (low + high) / 2)
    for _ in range(_STEPS):
        share = share_at_most(failures, devices, at)
        low, high = (at, high) if share > allowed else (low, at)
        # Newton's step for the logarithm of the share, which is nearly straight; halving where it leaves what is known.
        falls = (devices - failures) / (1 - at) * math.exp(_log_probability(failures, devices, at))
        following = at + share * math.log(share / allowed) / falls if min(share, falls) > 0 else math.nan
        following = following if low < following < high else (low + high) / 2
        if abs(following - at) <= _CLOSE * at:
            return following
        at = following
    return high


def proves(failures: int, devices: int, limit: float, confidence: float) -> bool:
    """Whether the upper bound is within the limit, without searching for the bound.

    Raises:
        ConfigError: Counts that cannot be.
    """
    _check(failures, devices, confidence)
    return failures < devices and share_at_most(failures, devices, limit) <= 1 - confidence


def devices_needed(failures: int, limit: float, confidence: float) -> int:
    """Least number of devices with which so many failures still prove that the share is within the limit.

    >>> [devices_needed(k, 0.05, 0.9) for k in (0, 1, 2, 3, 5)]
    [45, 77, 105, 132, 184]
    """
    low, high = failures, max(2 * failures, 1)
    while not proves(failures, high, limit, confidence):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(failures, middle, limit, confidence) else (middle, high)
    return high


def _check(failures: int, devices: int, confidence: float) -> None:
    if not 0 <= failures <= devices:
        raise ConfigError(f"{failures} failures of {devices} devices cannot be; expected 0 <= failures <= devices")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence {confidence} is no share above 0 and below 1")


def _log_probability(k: int, n: int, p: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
