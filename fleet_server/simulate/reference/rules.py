"""What other systems do with their policies, as their sources and manuals say: groups by threshold, rates with an abort, phases in time."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from fleet_server.simulate.cells import Ints
from fleet_server.simulate.drawn import Devices
from fleet_server.simulate.reference.documents import AwsAbort, AwsJob, HawkbitRollout, MenderDeployment, Reference
from fleet_server.simulate.reference.exposure import Exposing, Exposure
from fleet_server.simulate.reference.history import NEVER_H, History, Hours
from fleet_server.simulate.run import DAYS, Outcome, check_world, world
from fleet_server.simulate.scene import PER_HOUR, Behaviour, Scene

DONE_SHARE: Final = 0.85  # a rollout that waits for devices which are off for a month is done when so many run the release


@dataclass(frozen=True)
class _Ended:
    stopped: str
    at_h: float
    reason: str
    devices: Ints
    seen: Exposure


def simulate_reference(devices: int, scene: Scene, behaviour: Behaviour, seed: int, policy: Reference, *, days: int = DAYS) -> Outcome:
    """One rollout by another system's policy, over the same fleet and release as `simulate` with that seed.

    Args:
        devices: Of the selection; these systems hold nobody back.
        scene: Availability.
        behaviour: Of the release.
        seed: Of the fleet.
        policy: As read by `read_reference`.
        days: At most.

    Raises:
        ConfigError: Numbers outside their limits.
    """
    check_world(devices, seed, days)
    availability = world(devices, scene, seed, days)
    drawn = Devices.draw(np.random.default_rng([seed, 2]), availability, behaviour)
    rng = np.random.default_rng([seed, 3])
    order, horizon = rng.permutation(devices), 24.0 * days
    exposing = Exposing(rng, _history(devices, scene, seed, days), drawn.bad, behaviour)
    if isinstance(policy, HawkbitRollout):
        ended = _by_groups(policy, order, exposing, horizon)
    elif isinstance(policy, AwsJob):
        ended = _by_rate(policy, order, exposing)
    else:
        ended = _by_time(policy, order, exposing)
    return _outcome(ended, devices, horizon)


@lru_cache(maxsize=1)  # several policies and releases over one fleet, one after the other
def _history(devices: int, scene: Scene, seed: int, days: int) -> History:
    return History(world(devices, scene, seed, days), days * 24 * PER_HOUR)


def _by_groups(policy: HawkbitRollout, order: Ints, exposing: Exposing, horizon: float) -> _Ended:
    """Each group starts when enough of the one before are finished, or all of it is; too many in error pause the rollout."""
    at, reached, parts = 0.0, 0, []
    for number, group in enumerate(policy.groups, start=1):
        goal = round(group.cumulative * len(order))
        if goal == reached:
            continue
        parts.append((order[reached:goal], exposing.start(order[reached:goal], np.full(goal - reached, at))))
        size, seen, reached = goal - reached, parts[-1][1], goal
        failed, succeeded = np.sort(seen.failed), np.sort(seen.succeeded)
        too_many = NEVER_H if group.error is None else _nth(failed, group.error * size // 100)
        finished = _nth(succeeded, -(-group.success * size // 100) - 1)
        # The success action is also run for a group that is complete, whatever its results.
        following = min(finished, float(np.minimum(seen.failed, seen.succeeded).max()))
        if too_many <= min(following, horizon):
            return _joined("paused", too_many, f"group {number}: more than {group.error} % of {size} in error", parts)
        if following > horizon and number < len(policy.groups):
            return _joined("stuck", horizon, f"group {number}: fewer than {group.success} % of {size} finished", parts)
        at = following
    return _joined("", NEVER_H, "all groups started", parts)


def _by_rate(policy: AwsJob, order: Ints, exposing: Exposing) -> _Ended:
    """Devices are notified at a rate; the job is cancelled when the share of failures among the executions that ended is too high."""
    seen = exposing.start(order, _notified(policy, len(order)))
    timed_out = np.full(len(order), NEVER_H)
    if policy.timeout_h is not None:
        due = seen.began + policy.timeout_h
        timed_out = np.where(np.minimum(seen.succeeded, seen.failed) > due, due, NEVER_H)
    ended = np.minimum(np.minimum(seen.succeeded, seen.failed), timed_out)
    failed = np.where(timed_out < NEVER_H, NEVER_H, seen.failed)
    hits = [(_crossed(one, ended, failed, timed_out), one) for one in policy.aborts]
    at, criterion = min(hits, key=lambda hit: hit[0], default=(NEVER_H, None))
    if criterion is None or at == NEVER_H:
        return _Ended("", NEVER_H, "all devices notified", order, seen)
    return _Ended("aborted", at, f"more than {criterion.percent:g} % of at least {criterion.executed} executions failed", order, seen)


def _by_time(policy: MenderDeployment, order: Ints, exposing: Exposing) -> _Ended:
    """Phases start when their time has come."""
    goals = [int(phase.cumulative * len(order) + 1e-9) for phase in policy.phases]
    start = np.repeat([phase.start_h for phase in policy.phases], np.diff([0, *goals]))
    return _Ended("", NEVER_H, "all phases started", order, exposing.start(order, start))


def _notified(policy: AwsJob, devices: int) -> Hours:
    """[N] hours at which each device is notified."""
    found, at, rate, done = np.empty(devices), 0.0, 60 * policy.base_per_minute, 0
    while done < devices:
        count = min(policy.rise_after or devices, devices - done)
        found[done : done + count] = at + np.arange(count) / rate
        at, done, rate = at + count / rate, done + count, min(rate * policy.factor, 60 * policy.most_per_minute)
    return found


def _crossed(criterion: AwsAbort, ended: Hours, failed: Hours, timed_out: Hours) -> float:
    """When the criterion is first met."""
    failures = [times for kind, times in (("FAILED", failed), ("TIMED_OUT", timed_out)) if kind in criterion.failures]
    ends = np.sort(ended[ended < NEVER_H])
    bad = np.sort(np.concatenate([times[times < NEVER_H] for times in failures])) if failures else np.empty(0)
    executed = np.arange(1, len(ends) + 1)
    met = (executed >= criterion.executed) & (100 * np.searchsorted(bad, ends, "right") > criterion.percent * executed)
    return float(ends[met.argmax()]) if met.any() else NEVER_H


def _nth(rising: Hours, index: int) -> float:
    """Element of sorted times, from 0; before the first: at once, behind the last: never."""
    return 0.0 if index < 0 else float(rising[index]) if index < len(rising) else NEVER_H


def _joined(stopped: str, at_h: float, reason: str, parts: list[tuple[Ints, Exposure]]) -> _Ended:
    seen = Exposure(*(np.concatenate([getattr(one, name) for _, one in parts]) for name in ("began", "succeeded", "failed", "harmed")))
    return _Ended(stopped, at_h, reason, np.concatenate([devices for devices, _ in parts]), seen)


def _outcome(ended: _Ended, devices: int, horizon: float) -> Outcome:
    until = min(ended.at_h, horizon)
    began = np.sort(ended.seen.began[ended.seen.began < until])
    exposed, harmed = len(began), int((ended.seen.harmed < until).sum())
    if ended.stopped:
        return Outcome(ended.stopped, harmed, exposed, until, ended.reason)
    enough = int(DONE_SHARE * devices)
    if exposed <= enough:
        return Outcome("stuck", harmed, exposed, horizon, f"{exposed} of {devices} devices run the release")
    return Outcome("", harmed, exposed, float(began[enough]), ended.reason)
