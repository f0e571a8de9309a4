"""A simulated fleet for the drift tests: window counts drawn from cell probabilities, or real scans of digits with a camera in front."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from edgefleet.reference import Reference, build_reference
from edgefleet.statistics import InputStatistics
from fleet_server.drift import DriftOutcome, DriftPolicy, DriftState, run_round

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
Shifts = Mapping[str, Mapping[int, float]]


def inputs(count: int) -> list[Input]:
    return [Input(name=f"f{i}", kind="number") for i in range(count)]


@cache
def normal_reference(features: int = 64, seed: int = 0) -> Reference:
    """Independent standard normal features, 2,000 training rows."""
    rows = np.random.default_rng(seed).normal(size=(2000, features)).astype(np.float32)
    return build_reference(rows, inputs(features), block_rows=50)


@cache
def _cell_shares(shift: float, reference_seed: int = 0) -> NDArray[np.float64]:
    """[F, cells] shares of a normal feature with that mean, in the cells of the reference."""
    reference = normal_reference(seed=reference_seed)
    normal = NormalDist(mu=shift)
    shares = np.zeros(reference.counts.shape)
    for f in range(reference.features):
        below = [normal.cdf(float(edge)) for edge in reference.edges[f]]
        shares[f, : len(below) + 1] = np.diff([0.0, *below, 1.0])
    return shares


def counted(reference: Reference, rng: np.random.Generator, rows: int, shift: Mapping[int, float] | None = None) -> InputStatistics:
    """Statistics of so many normal rows; `shift` moves the mean of single features by so many sigmas (-1 = all features)."""
    shares = _cell_shares(0.0).copy()
    for feature, sigmas in (shift or {}).items():
        where = slice(None) if feature < 0 else feature
        shares[where] = _cell_shares(sigmas)[where]
    empty = InputStatistics.empty(reference)
    return replace(empty, rows=rows, counts=rng.multinomial(rows, shares).astype(np.int64))


@dataclass
class World:
    """Devices under one reference, round after round.

    Attributes:
        raised: Device -> rounds in which an alarm was raised; cleared: the same for its end.
    """

    reference: Reference
    policy: DriftPolicy = field(default_factory=DriftPolicy)
    states: dict[str, DriftState] = field(default_factory=dict)
    outcomes: dict[str, DriftOutcome] = field(default_factory=dict)
    rounds: int = 0
    raised: dict[str, list[int]] = field(default_factory=dict)
    cleared: dict[str, list[int]] = field(default_factory=dict)

    def play(self, pending: Mapping[str, InputStatistics]) -> dict[str, DriftOutcome]:
        now = T0 + timedelta(seconds=2 * self.rounds)
        self.states, self.outcomes = run_round(self.states, pending, self.reference, self.policy, now)
        self.rounds += 1
        for device_id, outcome in self.outcomes.items():
            if outcome.raised:
                self.raised.setdefault(device_id, []).append(self.rounds)
            if outcome.cleared:
                self.cleared.setdefault(device_id, []).append(self.rounds)
        return self.outcomes

    def run(self, rng: np.random.Generator, rounds: int, devices: int = 8, shifts: Shifts | None = None) -> None:
        """So many rounds of 50 to 80 rows per device."""
        for _ in range(rounds):
            names = [f"d{i}" for i in range(devices)]
            self.play({name: counted(self.reference, rng, int(rng.integers(50, 81)), (shifts or {}).get(name)) for name in names})


Camera = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Scans:
    """Real scans of digits: a reference from 1,100 of them, 75 for each of eight devices, seen a pixel off and with noise."""

    reference: Reference
    own: NDArray[np.float64]

    def window(self, device: int, rng: np.random.Generator, rows: int, camera: Camera | None = None) -> InputStatistics:
        seen = noisy(self.own[75 * device : 75 * device + 75][rng.integers(0, 75, rows)], rng)
        seen = camera(seen) if camera is not None else seen
        statistics = InputStatistics.empty(self.reference)
        statistics.update(seen.reshape(rows, 64).astype(np.float32), self.reference)
        return statistics


def scans(seed: int) -> Scans:
    from sklearn.datasets import load_digits

    images = load_digits().data.reshape(-1, 8, 8)[np.random.default_rng(seed).permutation(1797)]
    train = images[:1100].reshape(-1, 64).astype(np.float32)
    return Scans(build_reference(train, inputs(64), block_rows=25), images[1100:1700])


def noisy(images: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Each scan shifted by up to a pixel, with noise of 0.7 grey levels of 16."""
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    moves = rng.integers(0, 3, (len(images), 2))
    moved = np.stack([image[y : y + 8, x : x + 8] for image, (y, x) in zip(wide, moves.tolist(), strict=True)])
    return np.asarray(np.clip(np.round(moved + rng.normal(0, 0.7, moved.shape)), 0, 16), np.float64)


def faded(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """A camera fault: less contrast, more offset."""
    return np.asarray(np.clip(images * 0.6 + 5, 0, 16), np.float64)
