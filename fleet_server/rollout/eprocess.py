"""Anytime-valid evidence that a share of devices is above its limit: look as often as you like, the error stays bounded.

Reference:
    Ville (1939); Ramdas, Grünwald, Vovk, Shafer (2023), Game-theoretic statistics and safe anytime-valid inference, Statistical Science 38:
    a mixture of likelihood ratios against the limit is a supermartingale under every share up to the limit.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError

ALTERNATIVES: Final = 40
_NEAREST, _FARTHEST = 0.15, 6.0  # log-odds above the limit
_DECAY: Final = 1.5
# exp(600) is still a float64, and no verdict asks for more.
_MOST_LOG: Final = 600.0


@lru_cache(maxsize=65_536)  # counts change far less often than they are looked at
def e_value(failures: float, exposed: float, limit: float) -> float:
    """Evidence that the true share of failures is above the limit; under any share up to it, P(ever >= 1/a) <= a.

    Devices that have not answered count as exposed without a failure: failures report sooner than successes, and whoever leaves the pending
    ones out stops good releases. As more failures can only raise the value, what is seen now is below what will be seen.

    Alternatives below the limit would break the guarantee: a flawless release would count as evidence (with a prior over all shares,
    200 devices without a failure reach 142).

    Args:
        failures: k, at least 0.
        exposed: n, at least k; both may be fractions where counts were deflated for clustering.
        limit: p0, above 0 and below 1.

    Raises:
        ConfigError: Numbers outside these limits, NaN included.

    >>> [round(e_value(k, n, 0.05), 6) for k, n in ((0, 0), (0, 20), (5, 20))]
    [1.0, 0.27855, 27.501034]
    """
    if not 0 < limit < 1:
        raise ConfigError(f"limit {limit} of an evidence is no share above 0 and below 1")
    if not 0 <= failures <= exposed < float("inf"):
        raise ConfigError(f"{failures} failures of {exposed} devices cannot be; expected 0 <= failures <= devices")
    up, down, weight = _factors(limit)
    return float(np.exp(np.minimum(failures * up + (exposed - failures) * down, _MOST_LOG)) @ weight)


def mean_evidence(parts: Sequence[tuple[float, float]]) -> float:
    """Mean of e-values by fixed weights that add up to 1: evidence again, whatever depends on what.

    Args:
        parts: (weight, e-value).

    Raises:
        ConfigError: Weights that do not add up to 1.
    """
    total = sum(weight for weight, _ in parts)
    if abs(total - 1) > 1e-9 or any(weight < 0 for weight, _ in parts):
        raise ConfigError(f"weights of evidence add up to {total:g}; expected 1, none of them negative")
    return sum(weight * value for weight, value in parts)


@lru_cache(maxsize=4096)
def _factors(limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Log factor of a failure, of a success, and weight of each alternative."""
    above = np.linspace(_NEAREST, _FARTHEST, ALTERNATIVES)
    share = 1 / (1 + (1 - limit) / limit * np.exp(-above))
    weight = np.exp(-above / _DECAY)
    return np.log(share / limit), np.log((1 - share) / (1 - limit)), weight / weight.sum()
