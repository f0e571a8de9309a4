"""The numbers of the rules of evidence, a second time: from the papers' formulas, without the product's code and without numpy."""

import math
from collections import Counter

from fleet_server.rollout import Rollout
from fleet_server.rollout.rules import Rule
from tests.properties.rollout_fleet.seen import Seen

_TERMS = 40


def e_value(failures: float, n: float, limit: float) -> float:
    """Finite mixture: mean over 40 rates above the limit of their likelihood ratio against it, most weight near the limit."""
    shifts = [0.15 + 5.85 * j / 39 for j in range(_TERMS)]
    weights = [math.exp(-shift / 1.5) for shift in shifts]
    total = 0.0
    for shift, weight in zip(shifts, weights, strict=True):
        rate = 1 / (1 + math.exp(-(math.log(limit / (1 - limit)) + shift)))
        ratio = failures * math.log(rate / limit) + (n - failures) * math.log((1 - rate) / (1 - limit))
        total += weight / sum(weights) * math.exp(ratio)
    return total


def bound_promotes(failures: int, n: int, rule: Rule) -> bool:
    """Clopper and Pearson: at most `failures` of n are too few, at a true rate of the limit, in all but 1 - confidence of the cases."""
    below = sum(math.comb(n, k) * rule.limit**k * (1 - rule.limit) ** (n - k) for k in range(failures + 1))
    return n > 0 and below <= 1 - rule.confidence + 1e-9


def posterior_promotes(failures: int, n: int, rule: Rule) -> bool:
    """Bad release, prior Beta(1, 4), against one like earlier ones; prior odds 1 to 9."""
    a, b = rule.history.prior()
    good = _beta(a + failures, b + n - failures) - _beta(a, b)
    bad = _beta(1 + failures, 4 + n - failures) - _beta(1, 4)
    return 1 / (1 + 9 * math.exp(good - bad)) <= rule.promote_below + 1e-9


def promotes(failures: int, n: int, rule: Rule) -> bool:
    """Whether so few failures of so many devices are enough."""
    return (bound_promotes if rule.kind == "bound" else posterior_promotes)(failures, n, rule)


def evidence_against(seen: Seen, rollout: Rollout, rule: Rule) -> float:
    """The weighted mean of e-values that aborts: half of the strata, a quarter of all, a quarter of silence (at most: by counts alone)."""
    exposed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row in seen.members_of(rollout.rollout_id).values():
        if row.wave and row.began_at is not None:
            exposed[row.stratum] += 1
            failed[row.stratum] += row.failed_at is not None
    strata = [e_value(failed[name], n, rule.limit) for name, n in exposed.items()]
    together = e_value(failed.total(), exposed.total(), rule.limit)
    return 0.5 * (sum(strata) / len(strata) if strata else 1.0) + 0.25 * together


def _beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
