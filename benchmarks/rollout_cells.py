"""The rollouts of `benchmarks/rollout.py` and what is asked of them: releases, scenes, fleets, and the limits of each.

Limits hold for 200 runs. Of fewer, each is widened by two standard errors more than those of 200 (binomial for shares, Poisson for counts
of harmed devices), so that chance alone seldom breaks one; a share of 0 stays 0.
"""

from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.simulate.study import Summary

PERCENT: Final = "%"
LIMITS_HOLD_FOR: Final = 200
_OF_MEDIAN, _OF_P95 = 1.25, 2.1  # errors of these quantiles of a normal distribution, over that of its mean


@dataclass(frozen=True)
class Asked:
    """One kind of rollout, and its limits.

    Attributes:
        release: As `behaviour_named` reads it.
        devices: Of the fleet.
        scene: As `scene_named` reads it.
        harmed: Limits of the median and of the 95th percentile of harmed devices; None: not asked.
        stopped: Limit of the share of runs that stop, in percent: a good release; None: not asked.
        unstopped: Limit of the share of runs that do not stop, in percent: a bad release; None: not asked.
        done_ratio: Limit of the hours until it is completed, over the policy's own dwell; None: not asked.
    """

    release: str
    devices: int = 10_000
    scene: str = "churn"
    harmed: tuple[float, float] | None = None
    stopped: float | None = None
    unstopped: float | None = None
    done_ratio: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.release}, {self.devices:,} devices, {self.scene}"


MAIN: Final = (
    Asked("0.5 %", stopped=0),
    Asked("1 %", stopped=0, done_ratio=1.7),
    Asked("3 %", stopped=5),
    Asked("10 %", harmed=(8, 20)),
    Asked("50 %", harmed=(3, 5)),
    Asked("10 % after 12 h", harmed=(10, 36)),
    Asked("10 % dark", harmed=(10, 27)),
    Asked("80 % of one model in ten", harmed=(7, 11)),
    Asked("one model in a hundred", harmed=(8, 11)),
)
SCENES: Final = tuple(
    Asked("1 %", 2_000, scene, stopped=limit)
    for scene, limit in (
        ("day and night", 0),
        ("site outages", 0),
        ("broker down", 0.5),
        ("slow links", 1),
        ("all together", 1),
        ("batteries", 1),
        ("duplicates", 0),
        ("reordering", 0),
        ("drift", 1),
        ("late joiners", 0),
        ("everything", 1),
    )
)
SMALL: Final = (Asked("1 %", 300, stopped=1), Asked("10 %", 300, harmed=(5, 17)))
# 8 of 10 sites and more; a tenth of few sites cannot be told from chance.
SITES: Final = tuple(
    Asked(f"{share}:site", devices, unstopped=limit)
    for devices in (2_000, 10_000)
    for share, limit in ((0.1, None), (0.2, 10), (0.3, 2), (0.5, 0))
)


def widened_share(limit: float | None, runs: int) -> float | None:
    """A limit in percent for so many runs.

    >>> widened_share(5, 200), round(widened_share(5, 20), 1)
    (5.0, 11.7)
    """
    return limit if limit is None else float(limit + 2 * (100 * limit - limit**2) ** 0.5 * _more_error(runs))


def widened_count(limit: float, runs: int, quantile_error: float) -> float:
    """A limit of harmed devices for so many runs; the error of a quantile is so many times that of the mean."""
    return float(limit + 2 * quantile_error * limit**0.5 * _more_error(runs))


def _more_error(runs: int) -> float:
    return float(max(runs**-0.5 - LIMITS_HOLD_FOR**-0.5, 0.0))


def figures_of(asked: Asked, found: Summary, dwell_h: float) -> list[Figure]:
    """What was asked, beside what came out; stops and harm are told even where no limit is."""
    n = found.runs
    median, p95 = (asked.harmed and widened_count(asked.harmed[i], n, error) for i, error in enumerate((_OF_MEDIAN, _OF_P95)))
    rows = [
        Figure(f"{asked.name}: harmed, median", found.harmed_median, "", median, n),
        Figure(f"{asked.name}: harmed, 95th percentile", found.harmed_p95, "", p95, n),
        Figure(f"{asked.name}: stopped", 100 * found.stopped, PERCENT, widened_share(asked.stopped, n), n),
    ]
    if asked.unstopped is not None:
        rows.append(Figure(f"{asked.name}: not stopped", 100 * (1 - found.stopped), PERCENT, widened_share(asked.unstopped, n), n))
    if found.done_h is not None:
        rows.append(Figure(f"{asked.name}: completed, over its own dwell", found.done_h / dwell_h, "x", asked.done_ratio, n))
    return rows


def own_dwell_h(asked: Asked) -> float:
    """Hours that the default policy's waves stay open at least."""
    return max(sum(course_of(default_policy(), asked.devices).dwell_s) / 3600, 1.0)
