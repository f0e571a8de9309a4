"""Small fleets: is this release like the earlier ones of the project, or a bad one? For fleets in which no count can prove a rate."""

import math
from typing import Final

import msgspec

from edgefleet.errors import ConfigError

BAD_SHARE: Final = 0.1  # of releases, before anything is known
_BAD: Final = (1.0, 4.0)  # Beta prior of a bad release's failures: a fifth on average
_GOOD: Final = (1.0, 99.0)  # of a good one's, without history: one in a hundred
_PSEUDO_DEVICES: Final = 300.0
_LEAST_RELEASES: Final = 5
_LEAST_EXPOSED: Final = 300
_LEAST_SHARE, _MOST_SHARE = 1 / 300, 0.04


class History(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What completed releases of the project did: how many, and failures of devices exposed; `clips` of comparisons (`rollout.clips`)."""

    releases: int = 0
    failures: int = 0
    exposed: int = 0
    clips: tuple[tuple[str, float], ...] = ()

    def prior(self) -> tuple[float, float]:
        """Beta(a, b) of a good release's failures.

        A bad release that slipped through must not teach that bad is normal: the share is cut at 4 %.
        """
        if self.releases < _LEAST_RELEASES or self.exposed < _LEAST_EXPOSED:
            return _GOOD
        share = min(max(self.failures / self.exposed, _LEAST_SHARE), _MOST_SHARE)
        return _PSEUDO_DEVICES * share, _PSEUDO_DEVICES * (1 - share)


def silence_prior(expected: float) -> tuple[float, float]:
    """Beta(a, b) of a good release's missing devices, where so large a share of the controls is missing too.

    Raises:
        ConfigError: No share from 0 to 0.98.
    """
    if not 0 <= expected <= 0.98:
        raise ConfigError(f"a share of {expected} of missing controls is outside 0 to 0.98")
    return 100 * (0.01 + expected), 99 - 100 * expected


def bad_probability(failures: int, devices: int, good: tuple[float, float] = _GOOD) -> float:
    """Posterior probability that the release is a bad one.

    Args:
        failures: k.
        devices: n.
        good: Beta prior of a good release's share of failures.

    Raises:
        ConfigError: Counts that cannot be.

    Reference:
        Two beta-binomial hypotheses; Kass, Raftery (1995), Bayes factors, JASA 90.

    >>> [round(bad_probability(k, n), 6) for k, n in ((0, 0), (1, 10), (4, 80))]
    [0.1, 0.225032, 0.173889]
    """
    if not 0 <= failures <= devices:
        raise ConfigError(f"{failures} failures of {devices} devices cannot be; expected 0 <= failures <= devices")
    factor = _log_marginal(failures, devices, good) - _log_marginal(failures, devices, _BAD)
    return 1 / (1 + (1 - BAD_SHARE) / BAD_SHARE * math.exp(min(factor, 700.0)))


def _log_marginal(k: int, n: int, prior: tuple[float, float]) -> float:
    a, b = prior
    return _log_beta(a + k, b + n - k) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
