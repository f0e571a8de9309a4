"""What a rollout would do to a fleet if the release failed on a share x of its devices - before anything happens.

Counts instead of devices: per batch one binomial draw for each of many runs, against the engine's own limits, of failures or of devices
that go dark. Offline hours are not drawn. The generator is an argument: seeded from the plan's digest, the same plan foretells the same
numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from fleet_server.rollout.pacing import Pace
from fleet_server.rollout.planner_silence import silent_counts_at
from fleet_server.rollout.rules import Counts, Rule, counts_at

DOUBLING: Final = Pace(first=5, growth=2.0)
RUNS: Final = 10_000
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Foretold:
    """Outcome over all runs.

    Attributes:
        stopped_in_first: Share of runs that stop in wave 1.
        stopped: Share that stop at all.
        harmed_median: Devices that fail, or go dark, because of the release.
        harmed_p95: The same, exceeded in one of twenty runs.
        harmed_mean: Their mean.
    """

    stopped_in_first: float
    stopped: float
    harmed_median: float
    harmed_p95: float
    harmed_mean: float


def batches(size: int, goal: int, pace: Pace = DOUBLING) -> Iterator[int]:
    """Cumulative sizes of a paced opening: never more devices at once than are exposed already.

    >>> list(batches(0, 77))
    [5, 10, 20, 40, 77]
    """
    before, batch = size, 0
    while size < goal:
        size, batch = min(goal, max(pace.allowed(before, batch * pace.every_s), size + 1)), batch + 1
        yield size


def foretell(
    waves: Sequence[int],
    rule: Rule,
    failing: float,
    rng: np.random.Generator,
    *,
    late: float = 0.0,
    runs: int = RUNS,
    first: int = 5,
    growth: float = 2.0,
    rests_at: int = 0,
    dark: bool = False,
) -> Foretold:
    """Run a plan many times.

    Args:
        waves: Cumulative devices that each wave reaches, rising.
        rule: Its limits.
        failing: True share of devices on which the release fails.
        rng: Of the runs.
        late: Share of these failures that show only after a wave's last batch is out, or while it rests, but within its dwell.
        runs: How many; a probability is exact to 0.5 / sqrt(runs).
        first: Devices of the first batch.
        growth: Of the batches; what is told of one is taken to be known before the next.
        rests_at: Devices after which the opening of wave 1 rests, until what is hidden has shown; 0: it does not.
        dark: Those devices are never heard again, instead of saying that they failed.

    Raises:
        ConfigError: Waves that do not rise, shares outside 0 to 1.
    """
    if not waves or waves[0] < 1 or any(b <= a for a, b in itertools.pairwise(waves)):
        raise ConfigError(f"waves {list(waves)[:8]} must be device counts that rise from at least 1")
    if not (0 <= failing <= 1 and 0 <= late <= 1 and runs >= 1):
        raise ConfigError(f"failing = {failing}, late = {late}: expected shares; runs = {runs}: at least 1")
    world = _World(
        rule, silent_counts_at if dark else counts_at, failing, 1.0 if dark else late, Pace(first=first, growth=growth), rests_at
    )
    state = _Runs(rng, world, runs)
    groups: dict[int, Ints] = {0: np.arange(runs)}
    for number, goal in enumerate(waves, start=1):
        groups = state.wave(number, goal, waves[-1], groups)
    stopped, harmed = state.stopped_in > 0, state.harmed
    return Foretold(
        stopped_in_first=float((state.stopped_in == 1).mean()),
        stopped=float(stopped.mean()),
        harmed_median=float(np.median(harmed)),
        harmed_p95=float(np.quantile(harmed, 0.95)),
        harmed_mean=float(harmed.mean()),
    )


@dataclass(frozen=True)
class _World:
    """What is the same in all runs: the rule and its limits, the release, how waves open."""

    rule: Rule
    limits: Callable[[Rule, int, int], Counts]
    failing: float
    late: float
    pace: Pace
    rests_at: int

    def counts(self, devices: int, grown: int = 0) -> Counts:
        return self.limits(self.rule, devices, grown)


class _Runs:
    """All runs at once: failures known, failures still hidden, devices harmed, the wave in which a run stopped (0: none)."""

    def __init__(self, rng: np.random.Generator, world: _World, runs: int) -> None:
        self._rng, self._world = rng, world
        self._known, self._hidden = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
        self.harmed, self.stopped_in = np.zeros(runs, np.int64), np.zeros(runs, np.int64)

    def wave(self, number: int, goal: int, everybody: int, groups: dict[int, Ints]) -> dict[int, Ints]:
        """One wave for runs grouped by the devices they have exposed; the groups that go on. An earlier wave may have grown past it."""
        last = goal >= everybody
        waiting = [(size, max(goal, size), 0, runs) for size, runs in groups.items()]
        promoted: dict[int, list[Ints]] = {}
        while waiting:
            size, reach, grown, runs = waiting.pop()
            runs = self._open(number, size, reach, runs)
            if last:
                continue
            limits, larger = self._world.counts(reach, grown), self._world.rule.grown(reach)
            good = self._known[runs] <= limits.promote
            promoted.setdefault(reach, []).append(runs[good])
            more = ~good & (self._known[runs] <= limits.extend) & (grown < self._world.rule.extends) & (larger < everybody)
            self.stopped_in[runs[~good & ~more]] = number
            if more.any():
                waiting.append((reach, larger, grown + 1, runs[more]))
        return {size: np.concatenate(parts) for size, parts in promoted.items()}

    def _open(self, number: int, size: int, reach: int, runs: Ints) -> Ints:
        """Expose the devices from `size` to `reach` in batches, then let hidden failures show; the runs that are not stopped by them."""
        rests_at = self._world.rests_at
        if size == 0 and 0 < rests_at < reach:
            runs = self._open(number, 0, rests_at, runs)
            size = rests_at
        for exposed in batches(size, reach, self._world.pace):
            failed = self._rng.binomial(exposed - size, self._world.failing, len(runs))
            hidden = self._rng.binomial(failed, self._world.late) if self._world.late else np.zeros_like(failed)
            self.harmed[runs] += failed
            self._hidden[runs] += hidden
            self._known[runs] += failed - hidden
            size = exposed
            runs = self._unstopped(number, exposed, runs)
        self._known[runs] += self._hidden[runs]
        self._hidden[runs] = 0
        return self._unstopped(number, reach, runs)

    def _unstopped(self, number: int, exposed: int, runs: Ints) -> Ints:
        stop = self._known[runs] >= self._world.counts(exposed).stop
        self.stopped_in[runs[stop]] = number
        return runs[~stop]


def first_wave_exactly(size: int, rule: Rule, failing: float, pace: Pace = DOUBLING) -> tuple[float, float, float]:
    """(stopped at once, not promoted at its first size, devices harmed on average) of wave 1, by recursion over counts: no random numbers.

    >>> [round(value, 4) for value in first_wave_exactly(77, Rule("bound", confidence=0.9), 0.1)]
    [0.5862, 0.9971, 5.6729]
    """
    alive, reached, stopped, harmed = np.array([1.0]), 0, 0.0, 0.0
    for exposed in batches(0, size, pace):
        alive = np.convolve(alive, _binomial(exposed - reached, failing))
        reached, limit = exposed, counts_at(rule, exposed).stop
        over = alive[limit:]
        stopped += float(over.sum())
        harmed += float(over @ np.arange(limit, limit + len(over)))
        alive = alive[:limit]
    refused = float(alive[counts_at(rule, size).promote + 1 :].sum())
    return stopped, stopped + refused, harmed + float(alive @ np.arange(len(alive)))


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Probabilities of 0 .. n: n throws of one coin, by repeated convolution."""
    coin, found = np.array([1 - p, p]), np.array([1.0])
    for _ in range(n):
        found = np.convolve(found, coin)
    return found
