"""The rollout engine: which device gets a release when, and what stops it. Pure rules: no clock, no random, no database.

It refuses to guess: a fact that is missing or a decision that fails pauses the rollout, an unlisted transition is an error, and no
wave is promoted on the absence of bad news. Rates of failure are not estimated in this version: the evidence is unanimous or it is none.

Read `transitions.py` next (the states as data), then `engine.py` (`decide`), then `gates.py`.
"""

from fleet_server.rollout.cohorts import assign_waves
from fleet_server.rollout.engine import apply, apply_person, decide, gates
from fleet_server.rollout.evidence import DeviceFacts, progress
from fleet_server.rollout.gates import GateResult
from fleet_server.rollout.model import Action, ActionKind, Facts, Rollout
from fleet_server.rollout.outlook import next_due, view, wants
from fleet_server.rollout.policy import Policy, parse_policy, policy_digest, trial_for
from fleet_server.rollout.transitions import Event, RolloutState, TransitionError, next_state

__all__ = [
    "Action",
    "ActionKind",
    "DeviceFacts",
    "Event",
    "Facts",
    "GateResult",
    "Policy",
    "Rollout",
    "RolloutState",
    "TransitionError",
    "apply",
    "apply_person",
    "assign_waves",
    "decide",
    "gates",
    "next_due",
    "next_state",
    "parse_policy",
    "policy_digest",
    "progress",
    "trial_for",
    "view",
    "wants",
]
