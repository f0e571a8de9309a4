"""Policies that a machine may draw; times in seconds, so that a rollout fits into a few steps."""

from typing import Any, Final

_QUICK: Final[dict[str, Any]] = {
    "soak_s": 3.0,
    "soak_rows": 20,
    "deadline_s": 60.0,
    "hold_s": 120.0,
    "max_explicit_failures_before_abort": 1,
    "trial": {"soak_s": 1.0, "soak_rows": 5, "timeout_s": 30.0, "min_agreement": 0.8, "drifted_devices": "skip"},
}

POLICIES: Final[dict[str, dict[str, Any]]] = {
    "unanimous": _QUICK | {"name": "unanimous", "waves": [1, 3, "100%"]},
    "unanimous-dwell": _QUICK | {"name": "dwell", "waves": [2, "50%", "100%"], "dwell_s": [30.0, 10.0, 0.0], "on_abort": "roll-back"},
    "unanimous-all": _QUICK | {"name": "all at once", "waves": ["100%"], "max_explicit_failures_before_abort": 2},
}
