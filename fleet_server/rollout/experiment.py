"""Numbers of an A/B experiment on devices: who is in which arm, an interval for looking at any time, and whether the arms are sound."""

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from edgefleet.errors import ConfigError

_RATIO_STRENGTH: Final = 100.0
SHARPEST_AT: Final = 400
FIRST_LOOK: Final = 100


def arm(salt: str, device_id: str, shares: Sequence[float] = (0.5, 0.5)) -> int:
    """Arm of a device: the same in any process, any order, after any restart.

    Args:
        salt: Of the experiment.
        device_id: Of the device.
        shares: Of the arms, each above 0, together 1.

    Raises:
        ConfigError: Shares that do not add up to 1.

    >>> [arm("exp-1", f"dev-000{i}") for i in range(4)]
    [1, 0, 1, 0]
    """
    if not shares or abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ConfigError(f"shares {list(shares)} of the arms: expected numbers above 0 that add up to 1")
    place = int.from_bytes(hashlib.sha256(f"{salt}|{device_id}".encode()).digest()[:8], "big") / 2**64
    reached = 0.0
    for number, share in enumerate(shares):
        reached += share
        if place < reached:
            return number
    return len(shares) - 1


def half_width(devices: float, variance: float, alpha: float = 0.05, sharpest_at: int = SHARPEST_AT) -> float:
    """Half-width of a confidence sequence of the difference of two means: valid at every look at once, for large n.

    Args:
        devices: n of both arms together, at least 1.
        variance: s1^2 / n1 + s0^2 / n0, in squared units of the metric.
        alpha: Chance that the truth is ever outside.
        sharpest_at: The n at which the interval is narrowest for its alpha.

    Reference:
        Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), Time-uniform central limit theory, Annals of Statistics 52, eq. 8.

    >>> round(half_width(400, 4 / 400), 6)
    0.303545
    """
    if devices < 1 or not variance >= 0 or not 0 < alpha < 1:
        raise ConfigError(f"n = {devices}, variance {variance}, alpha {alpha}: expected n >= 1, variance >= 0 and a share")
    rho = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / sharpest_at
    known = devices * rho
    return math.sqrt(variance * 2 * (known + 1) / known * math.log(math.sqrt(known + 1) / alpha))


def devices_needed(resolution: float, deviation: float, alpha: float = 0.05) -> int:
    """Devices (equal arms) after which the interval is no wider than +-resolution; more days of one device do not replace devices."""
    if not resolution > 0 or not deviation > 0:
        raise ConfigError(f"resolution {resolution} and standard deviation {deviation} must be above 0")
    low, high = 1, 2
    while half_width(high, 4 * deviation**2 / high, alpha) > resolution:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if half_width(middle, 4 * deviation**2 / middle, alpha) > resolution else (low, middle)
    return high


def ratio_evidence(in_arm: int, devices: int, share: float = 0.5) -> float:
    """e-value of "this arm gets its share" among devices that delivered data; 1000 and more: the experiment is not sound.

    Reference:
        Beta-binomial mixture over the binomial null; Lindon, Malek (2022), Anytime-valid inference for multinomial count data, NeurIPS.

    >>> round(ratio_evidence(550, 1000), 4)
    28.6361
    """
    if not 0 <= in_arm <= devices or not 0 < share < 1:
        raise ConfigError(f"{in_arm} of {devices} devices at a share of {share} cannot be")
    a, b, g = _RATIO_STRENGTH * share, _RATIO_STRENGTH * (1 - share), math.lgamma
    mixture = g(a + in_arm) + g(b + devices - in_arm) - g(a + b + devices) - g(a) - g(b) + g(a + b)
    null = in_arm * math.log(share) + (devices - in_arm) * math.log(1 - share)
    return math.exp(min(mixture - null, 600.0))
