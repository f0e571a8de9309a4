"""One rollout over a virtual fleet, steered by the engine that steers real ones."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np

from edgefleet.errors import ConfigError
from fleet_server.rollout.course import Course
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.transitions import RolloutState
from fleet_server.simulate.asking import Asking
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.drawn import Devices, Order, order_of
from fleet_server.simulate.fleet import VirtualFleet
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.models import CHANGES, ModelChange
from fleet_server.simulate.scene import PER_HOUR, TICK_S, Behaviour, Scene
from fleet_server.simulate.steered import Steered, started
from fleet_server.simulate.watching import Drift, ModelWatch
from fleet_server.simulate.wire import Wire

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
DAYS: Final = 14
MOST_DEVICES: Final = 1_000_000
MOST_DAYS: Final = 90
MOST_SOAK_S: Final = 60.0 * TICK_S  # signs of life are remembered as bits of one number
# Keys of a policy that a virtual fleet does not know: its strata are its hardware models, there is one rollout and no way back.
NOT_SIMULATED: Final = (
    "strata",
    "soak_rows",
    "trial",
    "approvals",
    "on_abort",
    "on_conflict",
    "on_late_evidence",
    "activation_gap_s",
    "baseline",
)
_STOPPED: Final = (RolloutState.PAUSED, RolloutState.ABORTED)


@dataclass(frozen=True)
class Outcome:
    """What one rollout did.

    Attributes:
        stopped: `paused`, `aborted`, `stuck` (neither stopped nor done in time) or nothing.
        harmed: Devices on which the release failed.
        exposed: Devices that began.
        hours: Until it stopped or was completed.
        reason: The last sentence of whoever decided.
    """

    stopped: str
    harmed: int
    exposed: int
    hours: float
    reason: str


def simulate(
    devices: int,
    scene: Scene,
    behaviour: Behaviour,
    seed: int,
    *,
    policy: Policy | None = None,
    rule: Rule | None = None,
    days: int = DAYS,
    change: ModelChange | None = None,
    answer_s: float = 0.0,
) -> Outcome:
    """One rollout, from its start until it stops, is completed or `days` are over.

    Args:
        devices: Of the selection, hold-back included.
        scene: Availability.
        behaviour: Of the release.
        seed: Equal seeds tell equal stories, whatever the release does.
        policy: By evidence; None: the default.
        rule: Instead of the policy's.
        days: At most.
        change: What the release's model does otherwise, seen by the comparisons. None: nothing; and nothing is compared, unless inputs
            drift or the policy says how to compare.
        answer_s: After so long a person confirms what the policy asks her to look at (`confirm`); she accepts nothing.

    Raises:
        ConfigError: Numbers outside their limits, or a policy that is not by evidence.
    """
    check_world(devices, seed, days)
    policy = policy or default_policy()
    if policy.soak_s > MOST_SOAK_S:
        raise ConfigError(f"soak_s = {policy.soak_s:g} is more than the {MOST_SOAK_S:g} that can be simulated")
    ticks = days * 24 * PER_HOUR
    availability = world(devices, scene, seed, days)
    fleet_devices = Devices.draw(np.random.default_rng([seed, 2]), availability, behaviour)
    order, course = ordered(devices, scene, seed, days, policy)
    course = course if rule is None else msgspec.structs.replace(course, rule=rule)
    soak, deadline = (math.ceil(seconds / TICK_S) for seconds in (policy.soak_s, policy.deadline_s))
    ledger = Ledger(fleet_devices.model, availability, order, ticks, soak, deadline)
    fleet = VirtualFleet(fleet_devices, availability, behaviour, ledger, Wire(np.random.default_rng([seed, 4]), scene))
    watch = None
    if change is not None or scene.drift_fraction or policy.gates != GateRules():
        rng = np.random.default_rng([seed, 3])
        watch = ModelWatch(rng, change or CHANGES["nothing changed"], policy.gates, order, Drift.draw(rng, availability, scene))
    asking = Asking(order, policy, availability) if Asking.needed(policy, availability) else None
    steered = Steered(started(policy, course, START), order, ledger, watch, asking, answer_s)
    for number in range(ticks):
        now = START + timedelta(seconds=TICK_S * (number + 1))
        if availability.server_away(number):
            fleet.advance(number, steered.given, last_wave=steered.in_last_wave, server_away=True)
            continue
        given = steered.give(number, now)
        fleet.advance(number, given, last_wave=steered.in_last_wave)
        rollout = steered.decide(number, now)
        if not steered.asks and (rollout.state in _STOPPED or rollout.state is RolloutState.COMPLETED):
            stopped = rollout.state.value if rollout.state in _STOPPED else ""
            return Outcome(stopped, fleet.harmed, fleet.exposed, (number + 1) / PER_HOUR, rollout.last_reason)
    return Outcome("stuck", fleet.harmed, fleet.exposed, ticks / PER_HOUR, steered.rollout.last_reason)


def world(devices: int, scene: Scene, seed: int, days: int) -> Availability:
    """The fleet of a seed, the same for every policy and release."""
    return Availability(np.random.default_rng([seed, 1]), devices, scene, days * 24 * PER_HOUR)


def check_world(devices: int, seed: int, days: int) -> None:
    """Refuse what no world can be made of.

    Raises:
        ConfigError: With the limits.
    """
    if not 1 <= devices <= MOST_DEVICES:
        raise ConfigError(f"{devices} devices cannot be simulated; choose 1 to {MOST_DEVICES}")
    if not 1 <= days <= MOST_DAYS:
        raise ConfigError(f"{days} days cannot be simulated; choose 1 to {MOST_DAYS}")
    if seed < 0:
        raise ConfigError(f"seed {seed} is negative; choose 0 or more")


@lru_cache(maxsize=1)  # several releases over one fleet, one after the other: the order does not depend on what they do
def ordered(devices: int, scene: Scene, seed: int, days: int, policy: Policy) -> tuple[Order, Course]:
    """The order of the waves over the fleet of a seed, and the course with the waves' sizes."""
    availability = world(devices, scene, seed, days)
    drawn = np.random.default_rng([seed, 2])
    fleet_devices = Devices.draw(drawn, availability, Behaviour("none", 0.0))
    there = devices if availability.joined_at is None else int((availability.joined_at == 0).sum())
    return order_of(f"salt-{drawn.integers(2**62)}", policy, course_of(policy, there), fleet_devices, availability)
