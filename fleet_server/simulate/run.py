"""One rollout over a virtual fleet, steered by the engine that steers real ones."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import numpy as np

from fleet_server.rollout.course import Course
from fleet_server.rollout.engine import apply, apply_person, decide
from fleet_server.rollout.model import Facts, Rollout
from fleet_server.rollout.plans import default_course
from fleet_server.rollout.policy import parse_policy
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.transitions import Event, RolloutState
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.fleet import VirtualFleet
from fleet_server.simulate.scene import PER_HOUR, TICK_S, Behaviour, Scene

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
DAYS: Final = 14
_STOPPED: Final = (RolloutState.PAUSED, RolloutState.ABORTED)


@dataclass(frozen=True)
class Outcome:
    """What one rollout did.

    Attributes:
        stopped: `paused`, `aborted`, `stuck` (neither stopped nor done in time) or nothing.
        harmed: Devices on which the release failed.
        exposed: Devices that began.
        hours: Until it stopped or was completed.
        reason: The engine's last sentence.
    """

    stopped: str
    harmed: int
    exposed: int
    hours: float
    reason: str


def simulate(devices: int, scene: Scene, behaviour: Behaviour, seed: int, *, rule: Rule | None = None, days: int = DAYS) -> Outcome:
    """One rollout, from its start until it stops, is completed or `days` are over.

    Args:
        devices: Of the selection, hold-back included.
        scene: Availability.
        behaviour: Of the release.
        seed: Equal seeds tell equal stories, whatever the release does.
        rule: None: the default for so many devices.
        days: At most.
    """
    ticks = days * 24 * PER_HOUR
    availability = Availability(np.random.default_rng([seed, 1]), devices, scene, ticks)
    course = default_course(devices, rule)
    fleet = VirtualFleet(np.random.default_rng([seed, 2]), availability, behaviour, course.sizes, ticks)
    course = _fitted(course, fleet.sizes)
    rollout = apply_person(_draft(course), Event.START.value, "simulated", START)
    for number in range(ticks):
        now = START + timedelta(seconds=TICK_S * (number + 1))
        reach, last = _reach(rollout, now)
        fleet.advance(number, reach, last_wave=last)
        rollout = _settle(rollout, fleet, number, now)
        if rollout.state in _STOPPED or rollout.state is RolloutState.COMPLETED:
            stopped = rollout.state.value if rollout.state in _STOPPED else ""
            return Outcome(stopped, fleet.harmed, fleet.exposed, (number + 1) / PER_HOUR, rollout.last_reason)
    return Outcome("stuck", fleet.harmed, fleet.exposed, ticks / PER_HOUR, rollout.last_reason)


def _settle(rollout: Rollout, fleet: VirtualFleet, number: int, now: datetime) -> Rollout:
    while True:
        course = rollout.course
        assert course is not None  # noqa: S101  # every simulated rollout is by evidence
        wave = max(rollout.wave, 1)
        dwell = int(course.dwell_s[wave - 1] / TICK_S)
        facts = Facts(devices={}, tally=fleet.tally(number, course.sizes[wave - 1], dwell))
        action = decide(rollout, facts, now)
        if action is None:
            return rollout
        rollout = apply(rollout, action, now)


def _reach(rollout: Rollout, now: datetime) -> tuple[int, bool]:
    course = rollout.course
    assert course is not None  # noqa: S101
    return course.reach(rollout.wave, now), rollout.wave == len(course.sizes)


def _fitted(course: Course, sizes: tuple[int, ...]) -> Course:
    """The course with the waves' real sizes: strata may ask for more devices, the hold-back takes some away."""
    dwell = (*course.dwell_s[: len(sizes) - 1], course.dwell_s[-1])
    return msgspec.structs.replace(course, sizes=sizes, dwell_s=dwell)


def _draft(course: Course) -> Rollout:
    policy = parse_policy({"name": "simulated", "waves": ["100%"], "soak_s": 3600, "soak_rows": 200, "deadline_s": 7200, "hold_s": 86400})
    return Rollout("r", "p", "rel", "d" * 64, 2, RolloutState.DRAFT, (), 0, (), (), policy, "salt", START, "simulation", course=course)
