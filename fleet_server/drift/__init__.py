"""Drift of devices: who differs from its peers at the same time, in which inputs, and how sure that is. Pure rules: no I/O, no clock.

A season moves every device, a fault moves one: each device is compared with the median of its peers in the same round, beyond an effect
floor, with a false-alarm guarantee that holds however often one looks. It refuses to speak with fewer than five peers, it cannot see a
change that comes to all devices at once, and it cannot see a fault that was there while the device's baseline was taken.

Read `scores.py` next (what one window says), then `contrast.py` (the rule), then `state.py` (what is kept between rounds).
"""

from fleet_server.drift.contrast import DriftOutcome, cleared_by, run_round
from fleet_server.drift.scores import design_effect, score_scale, window_scores
from fleet_server.drift.state import DriftAlarm, DriftPolicy, DriftState

__all__ = [
    "DriftAlarm",
    "DriftOutcome",
    "DriftPolicy",
    "DriftState",
    "cleared_by",
    "design_effect",
    "run_round",
    "score_scale",
    "window_scores",
]
