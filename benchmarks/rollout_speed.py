"""What deciding, foretelling and simulating a rollout cost, and how often the evidence errs where it may err most."""

import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

import msgspec
import numpy as np

from benchmarks.figures import Figure
from fleet_server.rollout.engine import apply, apply_person, decide
from fleet_server.rollout.eprocess import ALTERNATIVES, e_value
from fleet_server.rollout.model import Facts, Rollout
from fleet_server.rollout.planner import foretell
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.rollout.rules import counts_at
from fleet_server.rollout.silence import Silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.rollout.transitions import RolloutState
from fleet_server.simulate.run import START, simulate
from fleet_server.simulate.scene import BEHAVIOURS, SCENES

_STRATA, _SITES = 12, 2_000
_LIMIT: Final = 0.05


def deciding(looks: int = 200) -> Iterator[Figure]:
    """`decide` on the facts of large rollouts: sums, of which it looks at each once; the exact bound adds up as many terms as failures."""
    yield Figure("decide, 100,000 devices, every sum changed", _decide_ms(100_000, looks, changing=True), "ms", 5.0, looks)
    took = {devices: _decide_ms(devices, looks, changing=False) for devices in (1_000, 100_000)}
    yield Figure("decide, 100,000 devices, nothing changed", took[100_000], "ms", 5.0, looks)
    yield Figure("decide, nothing changed: 100,000 devices over 1,000", took[100_000] / took[1_000], "x", 2.0, looks)


def planning(runs: int = 10_000) -> Iterator[Figure]:
    """The planner, with nothing remembered from before."""
    course = course_of(default_policy(), 10_000)
    counts_at.cache_clear()
    start = time.perf_counter()
    for failing in (0.01, 0.1):
        foretell(
            course.sizes, course.rule, failing, np.random.default_rng(1), runs=runs, first=course.pace.first, growth=course.pace.growth
        )
    yield Figure(f"planner, {runs:,} runs of 10,000 devices", (time.perf_counter() - start) / 2, "s", 1.0, 2)


def erring(runs: int, devices: int = 2_000) -> Iterator[Figure]:
    """How often the evidence is ever 20 in a release that fails exactly at the limit, looked at after each device."""
    rng, failed = np.random.default_rng(1), np.zeros(runs, np.int64)
    ever = np.zeros(runs, bool)
    for exposed in range(1, devices + 1):
        failed += rng.random(runs) < _LIMIT
        seen, places = np.unique(failed[~ever], return_inverse=True)
        values = np.array([e_value(int(k), exposed, _LIMIT) for k in seen])
        ever[~ever] = values[places] >= 20
    yield Figure(
        f"evidence of 20 at {100 * _LIMIT:g} % failures, {devices:,} devices, {ALTERNATIVES} alternatives",
        100 * ever.mean(),
        "%",
        5.0,
        runs,
    )


def simulating(*, million: bool) -> Iterator[Figure]:
    """A good release through whole fleets: processor seconds, which other work on the machine changes less than the clock's."""
    yield from _simulated(10_000, 2.0)
    if million:
        yield from _simulated(1_000_000, 180.0)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        yield Figure("simulate, 1,000,000 devices: peak memory", peak_mb, "MB", 4096.0, 1)


def _simulated(devices: int, limit_s: float) -> Iterator[Figure]:
    start = time.process_time()
    outcome = simulate(devices, SCENES["churn"], BEHAVIOURS["1 %"], 1)
    name = f"simulate, {devices:,} devices until {outcome.hours:.0f} h"
    yield Figure(f"{name}: processor", time.process_time() - start, "s", limit_s, 1)


def _decide_ms(devices: int, looks: int, *, changing: bool) -> float:
    rollout, now = _running(devices), START + timedelta(hours=30)
    took = []
    for look in range(looks):
        facts = Facts(devices={}, tally=_facts(devices, look if changing else 0))
        start = time.perf_counter()
        decide(rollout, facts, now)
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)


def _running(devices: int) -> Rollout:
    course = msgspec.structs.replace(course_of(default_policy(), 2 * devices), sizes=(devices, 2 * devices), dwell_s=(86_400.0, 0.0))
    draft = Rollout(
        "r", "p", "rel", "d" * 64, 2, RolloutState.DRAFT, (), 0, (), (), default_policy(), "salt", START, "benchmark", course=course
    )
    started = apply_person(draft, "start", "", START)
    opening = decide(started, Facts(devices={}), START)
    if opening is None:
        raise AssertionError("a started rollout opens its first wave")
    return replace(apply(started, opening, START))


def _facts(devices: int, changed: int) -> Tally:
    """Facts of which something has changed since the look before, so that nothing is answered from memory."""
    each = devices // _STRATA
    strata = {f"model-{i}": Stratum(each, each // 100 + (changed if i == 0 else 0) % (each // 10)) for i in range(_STRATA)}
    exposed = each * _STRATA
    sites = np.full((_SITES, 2), [0, max(exposed // _SITES, 1)])
    quiet = Silence(
        exposed, exposed // 30 + changed % 20, 0.03 + 1e-6 * changed, exposed, exposed // 50 + changed % 20, 0.02 + 1e-6 * changed, sites
    )
    return Tally(exposed, strata, quiet, dwelled=exposed, dwelled_failed=exposed // 100, heard_after_dwell=exposed, sites_exposed=_SITES)
