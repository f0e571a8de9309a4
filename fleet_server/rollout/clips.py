"""Where a comparison cuts off the difference of one device: about four standard deviations, from the project's history where there is one.

Fixed in the plan, before the rollout starts. Tolerances are no statistics: which difference matters is a decision, the same everywhere.

Reference:
    Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86: any bound that is fixed before the data
    is valid, one near the spread of the data sees a difference with the fewest devices.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from fleet_server.rollout.comparisons import COMPARISONS, Comparison
from fleet_server.rollout.model import Rollout

LEAST_DEVICES: Final = 100
LEAST_RELEASES: Final = 5
DEVIATIONS: Final = 4.0
# One odd release must neither make a gate blind nor let a single device speak for all.
_LEAST_TOLERANCES: Final = 2.0
_MOST_DEFAULTS: Final = 2.0


def clips_from(differences: Mapping[str, Sequence[Sequence[float]]], releases: int) -> dict[str, float]:
    """Clips of the comparisons about which the history says enough; the others keep their default.

    Args:
        differences: Gate -> of each device its differences, of the project's completed rollouts.
        releases: Rollouts that they come from.

    >>> clips_from({"memory": [[0.02], [-0.02]] * 200}, 5), clips_from({"memory": [[0.05], [-0.05]] * 200}, 4)
    ({'memory': 0.09758}, {})
    """
    if releases < LEAST_RELEASES:
        return {}
    found = {}
    for name, rows in differences.items():
        gate = COMPARISONS[name]
        if len(rows) < LEAST_DEVICES:
            continue
        most = _MOST_DEFAULTS * gate.clip
        spread = DEVIATIONS * float(np.clip(np.asarray(rows, np.float64), -most, most).std(axis=0).max())
        if math.isfinite(spread):
            found[name] = round(min(max(spread, _LEAST_TOLERANCES * gate.tolerance), most), 5)
    return found


def gate_of(rollout: Rollout, name: str) -> Comparison:
    """A comparison as the rollout's plan has it."""
    gate = COMPARISONS[name]
    clips = {} if rollout.course is None else dict(rollout.course.clips)
    return replace(gate, clip=clips[name]) if name in clips else gate


def said(rollout: Rollout, name: str) -> str:
    """Tolerance and clip of a comparison, and where they come from, for people."""
    gate = gate_of(rollout, name)
    course = rollout.course
    source = f"from {course.clip_releases} rollouts" if course is not None and name in dict(course.clips) else "default"
    return f"tolerance {gate.tolerance:.3g}: default; one device counts at most {gate.clip:.3g}: {source}"
