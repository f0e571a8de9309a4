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
# An hour of real life is eight seconds here.
_EVIDENCE: Final[dict[str, Any]] = {
    "soak_s": 8.0,
    "soak_rows": 0,
    "deadline_s": 16.0,
    "hold_s": 400.0,
    "dwell_s": 20.0,
    "patience_s": 10.0,
    "stall_s": 4_000.0,
    "pace": {"first": 2, "every_s": 10.0},
    "gates": {"compare": []},
    "activation_gap_s": 0.0,
    "trial": {"soak_s": 1.0, "soak_rows": 5, "timeout_s": 30.0, "min_agreement": 0.8},
}
_PROVABLE: Final[dict[str, Any]] = {"limit": 0.3, "confidence": 0.6, "warn_limit": 0.2, "warn_at": 15.0}
_HELD: Final[dict[str, Any]] = {"fraction": 0.2, "least": 1, "smallest_fleet": 6}

POLICIES: Final[dict[str, dict[str, Any]]] = {
    "unanimous": _QUICK | {"name": "unanimous", "waves": [1, 3, "100%"]},
    "unanimous-dwell": _QUICK
    | {"name": "unanimous dwell", "waves": [2, "50%", "100%"], "dwell_s": [30.0, 10.0, 0.0], "on_abort": "roll-back"},
    "unanimous-all": _QUICK
    | {"name": "unanimous at once", "waves": ["100%"], "max_explicit_failures_before_abort": 2, "on_conflict": "supersede"},
    "approved": _QUICK | {"name": "unanimous approved", "waves": [1, "100%"], "approvals": 2, "on_conflict": "supersede"},
    "posterior": _EVIDENCE | {"name": "posterior", "evidence": "posterior", "waves": [2, 5, "100%"]},
    "posterior-held": _EVIDENCE
    | {"name": "held", "evidence": "posterior", "waves": [2, "100%"], "per_stratum": 1, "hold_back": _HELD, "on_abort": "roll-back"},
    "posterior-confirmed": _EVIDENCE
    | {"name": "confirmed", "evidence": "posterior", "waves": [2, 5, "100%"], "confirm": "first-wave-and-failure"},
    "bound": _EVIDENCE | {"name": "bound", "evidence": "bound", "waves": [4, "100%"], "least_first_wave": 4, "rule": _PROVABLE},
    "bounded": _EVIDENCE
    | {
        "name": "bounded",
        "evidence": "posterior",
        "waves": [2, "100%"],
        "pace": {"first": 4, "every_s": 10.0},
        "rate": {"per_hour": 600.0},
        "site_budget": 1,
        "windows": [{"start": "08:00", "end": "18:00"}],
    },
}
