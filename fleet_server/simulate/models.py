"""What a release's model does on virtual devices: it answers differently, is slower, takes more memory. Feeds the comparisons.

Beside the virtual fleet, which knows who begins when: the n-th device that began gives its differences some hours later, against two
controls of its own as long as there are any. Differences are drawn about the assumed deviations of a device; real ones come from a
fleet's history.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from fleet_server.rollout.betting import STAKES, pairs_possible
from fleet_server.rollout.comparisons import COMPARISONS, PAUSE_AT, Wealth
from fleet_server.rollout.tally import Tally
from fleet_server.simulate.scene import PER_HOUR

MATURE_TICKS: Final = 4 * PER_HOUR
_LABELS: Final = 50
_SHADOWED: Final = 500
_WINDOW_ROWS: Final = 500
_LATENCY_SD, _MEMORY_SD, _CLASS_SD, _BIN_SD, _OFFSET_SD, _ACCURACY_SD = 0.10, 0.05, 0.02, 0.008, 0.3, 0.01
_DISAGREE_SD: Final = 0.022
_erf: Final = np.vectorize(math.erf, otypes=[float])
# Edges of the tenths of a standard normal score, one between two bins.
_TENTHS: Final = (-1.2815515655, -0.8416212336, -0.5244005127, -0.2533471031, 0.0, 0.2533471031, 0.5244005127, 0.8416212336, 1.2815515655)


@dataclass(frozen=True)
class ModelChange:
    """What the release's model does otherwise than the one before.

    Attributes:
        slower: Of p95 latency, as a share: 0.2 = 20 % slower.
        more_memory: Of peak memory, as a share.
        more_positive: Added to the share of positive answers.
        score_shift: In standard deviations of the score.
        less_accurate: Share of rows, 0.02 = 2 points.
        disagree: Share of rows to which the two models give different answers; 3 % is usual.
        busy: Everybody, controls too, slower by this share: load, heat.
    """

    name: str
    slower: float = 0.0
    more_memory: float = 0.0
    more_positive: float = 0.0
    score_shift: float = 0.0
    less_accurate: float = 0.0
    disagree: float = 0.03
    busy: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.disagree < 1 or min(self.slower, self.more_memory, self.busy) <= -1:
            raise ConfigError(f"{self.name}: disagree must be a share above 0 and below 1, and nothing gets faster or smaller than nothing")


CHANGES: Final = {
    change.name: change
    for change in (
        ModelChange("nothing changed"),
        ModelChange("everybody 8 % slower", busy=0.08),
        ModelChange("10 % slower", slower=0.10),
        ModelChange("20 % slower", slower=0.20),
        ModelChange("memory + 15 %", more_memory=0.15),
        ModelChange("class rate + 3 points", more_positive=0.03),
        ModelChange("scores shifted 0.2 sd", score_shift=0.2),
        ModelChange("2 points less accurate", less_accurate=0.02),
        ModelChange("8 % disagree", disagree=0.08),
    )
}


class ModelWatch:
    """The comparisons of one virtual rollout, kept up by increments.

    Args:
        rng: Of its own: the fleet's story does not depend on it.
        change: What the model does.
        devices: Of the fleet; those that have not begun can stand in a pair, each in one.
    """

    def __init__(self, rng: np.random.Generator, change: ModelChange, devices: int) -> None:
        self._rng, self._change, self._devices, self._used = rng, change, devices, 0
        self._wealth = {name: Wealth.start(gate) for name, gate in COMPARISONS.items()}
        self._exposed: list[int] = []
        self._mature = 0

    def watched(self, tally: Tally, number: int) -> Tally:
        """The tally with the stakes of the devices that are mature at a tick; asked once per tick, more often changes nothing."""
        while len(self._exposed) <= number:
            self._exposed.append(tally.exposed)
        mature = self._exposed[number - MATURE_TICKS] if number >= MATURE_TICKS else 0
        if mature > self._mature:
            self._compare(mature - self._mature, max(self._devices - tally.exposed - self._used, 0))
            self._mature = mature
        return replace(tally, wealth=self._wealth)

    def _compare(self, devices: int, controls: int) -> None:
        paired = pairs_possible(devices, controls)
        self._used += 2 * paired
        drawn = differences(self._rng, self._change, devices)
        for name, gate in COMPARISONS.items():
            rows = drawn[name] if name in ("shadow agreement", "label metric") else drawn[name][:paired]
            after = self._wealth[name].after(gate, rows.tolist())
            self._wealth[name] = replace(after, left_out=after.left_out + devices - len(rows))


def paused_after(rng: np.random.Generator, change: ModelChange, devices: int) -> int:
    """Devices after which the comparisons pause, looked at after each device, each with two controls of its own; 0: they do not."""
    mean = np.zeros(devices)
    for name, drawn in differences(rng, change, devices).items():
        gate = COMPARISONS[name]
        ways = np.concatenate([drawn, -drawn], axis=1) if gate.both_ways else drawn
        won = (np.clip(ways, -gate.clip, gate.clip) - gate.tolerance) / (gate.clip + gate.tolerance)
        logs = np.cumsum(np.log1p(np.array(STAKES)[None, None] * won[:, :, None]), axis=0)
        mean += np.exp(np.minimum(logs, 600.0)).mean(axis=(1, 2)) / len(COMPARISONS)
    stops = np.flatnonzero(mean >= PAUSE_AT)
    return int(stops[0]) + 1 if len(stops) else 0


def differences(rng: np.random.Generator, change: ModelChange, devices: int) -> dict[str, NDArray[np.float64]]:
    """Gate -> [devices, columns] differences, each against the mean of two controls."""

    def against_controls(mean: float, deviation: float, together: float = 0.0) -> NDArray[np.float64]:
        own = rng.normal(mean + together, deviation, devices)
        others = rng.normal(together, deviation, (devices, 2)).mean(axis=1)
        return np.asarray(own - others)[:, None]

    strength = change.disagree * (1 - change.disagree) / _DISAGREE_SD**2 - 1
    disagree = rng.beta(change.disagree * strength, (1 - change.disagree) * strength, devices)
    worse = rng.normal(change.less_accurate, _ACCURACY_SD, devices)
    against = np.clip(disagree / 2 + worse / 2, 0, 1)
    towards = np.clip(disagree / 2 - worse / 2, 0, 1)
    labels = (rng.binomial(_LABELS, against) - rng.binomial(_LABELS, towards)) / _LABELS
    return {
        "shadow agreement": rng.binomial(_SHADOWED, disagree)[:, None] / _SHADOWED,
        "label metric": labels[:, None],
        "p95 latency": against_controls(math.log1p(change.slower), _LATENCY_SD, math.log1p(change.busy)),
        "memory": against_controls(math.log1p(change.more_memory), _MEMORY_SD),
        "class rate": against_controls(change.more_positive, _CLASS_SD),
        "score bins": _bins(rng, change.score_shift, devices),
    }


def _bins(rng: np.random.Generator, shift: float, devices: int) -> NDArray[np.float64]:
    """Change of the share in each tenth of the reference scores, which are normal here; a device's own offset comes and goes."""
    own = _bin_change(rng, rng.normal(0, _OFFSET_SD, devices), shift)
    others = [_bin_change(rng, rng.normal(0, _OFFSET_SD, devices), 0.0) for _ in range(2)]
    return np.asarray(own - np.mean(others, axis=0))


def _bin_change(rng: np.random.Generator, offset: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    before, now = _bin_shares(offset), _bin_shares(offset + shift)
    sampled = [rng.normal(share, np.sqrt(share * (1 - share) / _WINDOW_ROWS)) for share in (before, now)]
    return np.asarray(sampled[1] - sampled[0] + rng.normal(0, _BIN_SD, before.shape))


def _bin_shares(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """[devices, bins] shares of normal scores about `mean` in the tenths of the standard normal."""
    cumulated = _normal(np.array(_TENTHS)[None, :] - mean[:, None])
    ends = np.concatenate([np.zeros((len(mean), 1)), cumulated, np.ones((len(mean), 1))], axis=1)
    return np.diff(ends, axis=1)


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + _erf(z / math.sqrt(2.0))))
