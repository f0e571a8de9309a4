"""Simulated A/B experiments, looked at after every device: how often the wrong one ends one, how many devices a difference takes.

The formulas are those of `rollout.experiment`, `rollout.betting` and `rollout.experiment_sums`, over whole rows of devices at once; a test
holds them against the sums that a server keeps, device by device.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.betting import STAKES
from fleet_server.rollout.by_experiment import PAIRS_AT, RATIO_AT
from fleet_server.rollout.experiment import FIRST_LOOK, SHARPEST_AT
from fleet_server.rollout.experiment_sums import CLIP_DEVIATIONS, SCALE_FROM

Floats = NDArray[np.float64]
Metric = Literal["normal", "skewed"]
_PRIOR: Final = 100.0  # strength of the sample-ratio check's prior, as in `rollout.experiment.ratio_evidence`


@dataclass(frozen=True)
class Ended:
    """How one experiment ended, and after how many devices; 0 when it did not."""

    ending: str
    devices: int


def simulate_experiments(
    experiments: int, devices: int, *, effect: float, seed: int, resolution: float = 0.0, alpha: float = 0.05, metric: Metric = "normal"
) -> list[Ended]:
    """Experiments with equal arms, a standard deviation of 1 between devices, and a look after every device.

    Args:
        experiments: How many.
        devices: Of both arms together, at most.
        effect: Mean of B minus mean of A.
        seed: Equal seeds tell equal stories.
        resolution: Difference that matters; 0: none ends as "no difference".
        alpha: Of the interval.
        metric: `skewed`: gamma of shape 0.5.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(experiments):
        arm = rng.random(devices) < 0.5
        noise = rng.normal(0, 1, devices) if metric == "normal" else (rng.gamma(0.5, 1, devices) - 0.5) / math.sqrt(0.5)
        found.append(ended(noise + effect * arm, arm, resolution, alpha))
    return found


def ended(values: Floats, arm: NDArray[np.bool_], resolution: float, alpha: float = 0.05) -> Ended:
    """The first look that ends one experiment.

    Args:
        values: [N] in the order in which devices are measured; higher is better.
        arm: [N] whether a device is in arm B.
        resolution: Difference that matters, 0: none.
        alpha: Of the interval.
    """
    difference, half = interval(values, arm, alpha)
    evidence = pair_evidence(values, arm)
    looks = np.arange(1, len(values) + 1) >= FIRST_LOOK
    won = looks & (np.abs(difference) > half) & (evidence >= PAIRS_AT)
    same = looks & (np.abs(difference) + half <= resolution)
    over = np.flatnonzero(won | same)
    if not len(over):
        return Ended("", 0)
    at = int(over[0])
    return Ended(("winner B" if difference[at] > 0 else "winner A") if won[at] else "no difference", at + 1)


def interval(values: Floats, arm: NDArray[np.bool_], alpha: float = 0.05) -> tuple[Floats, Floats]:
    """([N] difference of the means, [N] half-width) after each device; the half-width is infinite before both arms have two devices."""
    n, mean, variance = zip(*(_running(values, mine) for mine in (~arm, arm)), strict=True)
    total = np.arange(1, len(values) + 1)
    known = total * ((-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / SHARPEST_AT)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = variance[1] / n[1] + variance[0] / n[0]
        half = np.sqrt(spread * 2 * (known + 1) / known * np.log(np.sqrt(known + 1) / alpha))
    return mean[1] - mean[0], np.where((n[0] > 1) & (n[1] > 1), half, np.inf)


def pair_evidence(values: Floats, arm: NDArray[np.bool_]) -> Floats:
    """[N] e-value that the arms differ after each device: pairs in the order of arrival, once the scale is known."""
    counts = np.stack([np.cumsum(~arm), np.cumsum(arm)])
    ready = np.flatnonzero((np.arange(1, len(values) + 1) >= SCALE_FROM) & (counts.min(axis=0) >= 2))
    evidence = np.ones(len(values))
    if not len(ready):
        return evidence
    first = int(ready[0]) + 1
    groups = [values[:first][mine[:first]] for mine in (~arm, arm)]
    scale = math.sqrt(sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (first - 2))
    places = [first + np.flatnonzero(mine[first:]) for mine in (~arm, arm)]
    pairs = min(len(places[0]), len(places[1]))
    if not pairs or scale <= 0:
        return evidence
    moved = values[places[1][:pairs]] - values[places[0][:pairs]]
    won = np.clip(moved / (CLIP_DEVIATIONS * scale), -1, 1)
    logs = np.concatenate([np.cumsum(np.log1p(stake * way * won)[None], axis=1) for way in (1.0, -1.0) for stake in STAKES])
    after_pair = np.exp(np.minimum(logs, 600.0)).mean(axis=0)
    formed = np.maximum(places[0][:pairs], places[1][:pairs])
    told = np.searchsorted(formed, np.arange(len(values)), side="right")
    return np.where(told > 0, after_pair[np.maximum(told - 1, 0)], 1.0)


def ratio_alarms(runs: int, devices: int, share: float, seed: int) -> list[int]:
    """After how many devices the sample-ratio check of arms drawn half and half finds that they deliver at `share`; 0: never.

    Args:
        runs: How many.
        devices: That deliver, of both arms together.
        share: True share of arm B among them.
        seed: Equal seeds tell equal stories.
    """
    rng = np.random.default_rng(seed)
    lgamma = np.vectorize(math.lgamma, otypes=[float])
    of_arm = lgamma(_PRIOR / 2 + np.arange(devices + 1))
    n = np.arange(1, devices + 1)
    fixed = lgamma(_PRIOR) - 2 * math.lgamma(_PRIOR / 2) - lgamma(_PRIOR + n) + n * math.log(2)
    found = []
    for _ in range(runs):
        in_b = np.cumsum(rng.random(devices) < share)
        alarms = np.flatnonzero(of_arm[in_b] + of_arm[n - in_b] + fixed >= math.log(RATIO_AT))
        found.append(int(alarms[0]) + 1 if len(alarms) else 0)
    return found


def _running(values: Floats, mine: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """(n, mean, variance) of the values of one arm after each device."""
    n = np.cumsum(mine).astype(np.float64)
    # About a value of their own size, so that squares lose nothing.
    shift = float(values[mine][0]) if mine.any() else 0.0
    moved = np.where(mine, values - shift, 0.0)
    total, squares = np.cumsum(moved), np.cumsum(moved**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        variance = np.maximum(squares - n * mean**2, 0.0) / (n - 1)
    return n, mean + shift, variance
