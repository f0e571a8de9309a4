"""One formula for every gate that compares devices: a gambler's wealth against "the mean difference is within the tolerance".

Valid at any look and for any distribution. A device is one unit and gives one difference per gate, in the order in which devices mature;
a control device may stand in one pair only, or its own noise is counted again and again (each used 20 times: 37 % false stops).

Reference:
    Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86, section 4.
"""

from collections.abc import Iterable
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError

STAKES: Final = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_STAKES: Final = np.array(STAKES)


def wealth(differences: Iterable[float], tolerance: float, clip: float) -> float:
    """e-value of "the mean of the clipped differences is at most the tolerance".

    Args:
        differences: One per device, positive = worse, in order of maturity.
        tolerance: In the unit of the differences, at least 0.
        clip: Larger differences count as this, above the tolerance; about four standard deviations, fixed before the rollout starts.

    Raises:
        ConfigError: A difference that is no number, a clip that is not above the tolerance.

    >>> round(wealth([0.1], 0.02, 0.2), 7), wealth([], 0.02, 0.2)
    (1.1281818, 1.0)
    """
    return float(_mean_exp(log_wealths(differences, tolerance, clip)))


def log_wealths(differences: Iterable[float], tolerance: float, clip: float) -> NDArray[np.float64]:
    """[stakes] log of each gambler's wealth: sums over devices, so that a stored value goes on with the next device.

    Raises:
        ConfigError: See `wealth`.
    """
    if not (0 <= tolerance < clip < float("inf")):
        raise ConfigError(f"tolerance {tolerance} and clip {clip}: expected 0 <= tolerance < clip")
    seen = np.fromiter(differences, np.float64)
    if not np.isfinite(seen).all():
        raise ConfigError(
            f"difference {seen[~np.isfinite(seen)][0]} of a device is no finite number; such a device must be left out and said"
        )
    won = (np.clip(seen, -clip, clip) - tolerance) / (clip + tolerance)  # never below -1: no stake is ever lost whole
    total: NDArray[np.float64] = np.log1p(_STAKES[:, None] * won[None, :]).sum(axis=1)
    return total


def pairs_possible(exposed: int, controls: int) -> int:
    """Pairs with two controls each, none of them in two pairs."""
    return min(exposed, controls // 2)


def devices_to_see(difference: float, deviation: float, tolerance: float, clip: float, level: float, power: float = 0.5) -> float:
    """Devices after which a difference reaches the level with a chance of `power`, infinity when it never does; for plans only.

    Args:
        difference: True mean difference of a device.
        deviation: Its standard deviation between devices, of the pair.
        tolerance: As in `wealth`.
        clip: As in `wealth`.
        level: To be reached, above 1; times the number of stakes and of gates where it is judged as their mean.
        power: From 0.5, usually, to below 1.

    Raises:
        ConfigError: Numbers outside these limits.

    Reference:
        Kelly (1956): wealth grows by the expected log of a round, here under normal noise (Gauss-Hermite quadrature); the log of the wealth
        is a sum over devices and about normal, which gives the power.
    """
    if not 0.5 <= power < 1:
        raise ConfigError(f"power {power} is outside 0.5 to below 1: a plan asks for what is seen at least as often as not")
    if not deviation >= 0 or not level > 1 or not 0 <= tolerance < clip < float("inf"):
        raise ConfigError(f"deviation {deviation}, level {level}, tolerance {tolerance}, clip {clip}: no plan is possible with these")
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    won = (np.clip(difference + deviation * nodes, -clip, clip) - tolerance) / (clip + tolerance)
    logs, weights = np.log1p(_STAKES[:, None] * won), weights / weights.sum()
    growth = logs @ weights
    spread = np.sqrt(np.maximum(logs**2 @ weights - growth**2, 0.0)) * NormalDist().inv_cdf(power)
    grows = growth > 0
    if not grows.any():
        return float("inf")
    # n devices reach the level when n * growth - sqrt(n) * spread does.
    roots = (spread + np.sqrt(spread**2 + 4 * growth * np.log(level), where=grows, out=np.zeros_like(growth)))[grows] / (2 * growth[grows])
    return float(roots.min() ** 2)


def _mean_exp(logs: NDArray[np.float64]) -> np.float64:
    most = logs.max()
    found: np.float64 = np.exp(min(most, 600.0)) * np.exp(logs - most).mean()
    return found
