"""What a release's model does otherwise on virtual devices, and what shifting inputs do to everybody: differences for the comparisons.

Differences are drawn about the assumed deviations of a device; real ones come from a fleet's history. Who is compared when, and against
whom, is said by `watching.py`.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from fleet_server.rollout.behaviour import NO_CONTROL
from fleet_server.rollout.betting import STAKES
from fleet_server.rollout.comparisons import COMPARISONS, PAUSE_AT

LABELS: Final = 50
ROWS: Final = 500
# What shifted inputs do to both models alike, and to how often they disagree.
DRIFT_POSITIVE, DRIFT_SCORE_SD, DRIFT_DISAGREE = 0.05, 0.5, 0.01
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


def change_named(text: str) -> ModelChange:
    """A change by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    change = CHANGES.get(text)
    if change is None:
        raise ConfigError(f"model {text[:40]!r} is unknown; known: {', '.join(CHANGES)}")
    return change


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
    """Gate -> [devices, columns] differences of devices whose inputs do not shift, each against the mean of two controls."""
    nothing = np.zeros(devices)
    found = {}
    for name in COMPARISONS:
        found[name] = own_part(rng, name, change, nothing, nothing, ROWS, LABELS)
        if name not in NO_CONTROL:
            found[name] = found[name] - controls_part(rng, name, change, np.zeros((devices, 2)), np.zeros((devices, 2)), ROWS)
    return found


def own_part(
    rng: np.random.Generator,
    gate: str,
    change: ModelChange,
    before: NDArray[np.float64],
    now: NDArray[np.float64],
    rows: int,
    labels: int,
) -> NDArray[np.float64]:
    """[D, columns] what changed on devices themselves; of gates without controls that is the difference.

    Args:
        rng: Draws.
        gate: Name of a comparison.
        change: What the release's model does.
        before: [D] share of the rows before the release whose inputs had shifted.
        now: [D] the same of those since.
        rows: That each period of a device has.
        labels: Rows of which the truth is known.
    """
    n = len(now)
    if gate == "shadow agreement":
        return rng.binomial(rows, _disagreeing(rng, change, now))[:, None] / rows
    if gate == "label metric":
        disagree, worse = _disagreeing(rng, change, now), rng.normal(change.less_accurate, _ACCURACY_SD, n)
        against, towards = (np.clip(disagree / 2 + way * worse / 2, 0, 1) for way in (1, -1))
        return np.asarray((rng.binomial(labels, against) - rng.binomial(labels, towards)) / labels)[:, None]
    if gate == "score bins":
        return _bin_change(rng, before, now, change.score_shift, rows)
    mean, deviation, drift = {
        "p95 latency": (math.log1p(change.slower) + math.log1p(change.busy), _LATENCY_SD, 0.0),
        "memory": (math.log1p(change.more_memory), _MEMORY_SD, 0.0),
        "class rate": (change.more_positive, _CLASS_SD, DRIFT_POSITIVE),
    }[gate]
    return np.asarray(rng.normal(mean, deviation, n) + drift * (now - before))[:, None]


def controls_part(
    rng: np.random.Generator, gate: str, change: ModelChange, before: NDArray[np.float64], now: NDArray[np.float64], rows: int
) -> NDArray[np.float64]:
    """[D, columns] mean change of controls in the same periods.

    Args:
        rng: Draws.
        gate: Name of a comparison with controls.
        change: Of it, what happens to everybody.
        before: [D, controls] as in `own_part`.
        now: [D, controls].
        rows: That each period of a control has.
    """
    everybody = ModelChange(change.name, busy=change.busy)
    columns = [own_part(rng, gate, everybody, before[:, i], now[:, i], rows, LABELS) for i in range(before.shape[1])]
    return np.asarray(np.mean(columns, axis=0))


def _disagreeing(rng: np.random.Generator, change: ModelChange, now: NDArray[np.float64]) -> NDArray[np.float64]:
    """[D] share of rows to which the two models give different answers."""
    mean = np.minimum(change.disagree + DRIFT_DISAGREE * now, 0.99)
    strength = np.maximum(mean * (1 - mean) / _DISAGREE_SD**2 - 1, 0.1)
    return np.asarray(rng.beta(mean * strength, (1 - mean) * strength))


def _bin_change(
    rng: np.random.Generator, before: NDArray[np.float64], now: NDArray[np.float64], shift: float, rows: int
) -> NDArray[np.float64]:
    """[D, bins] change of the share in each tenth of the reference scores, which are normal here; a device's own offset comes and goes."""
    offset = rng.normal(0, _OFFSET_SD, len(now))
    shares = [_mixed(offset, before), _mixed(offset + shift, now)]
    sampled = [rng.normal(share, np.sqrt(share * (1 - share) / rows)) for share in shares]
    return np.asarray(sampled[1] - sampled[0] + rng.normal(0, _BIN_SD, shares[0].shape))


def _mixed(mean: NDArray[np.float64], drifted: NDArray[np.float64]) -> NDArray[np.float64]:
    """[D, bins] shares where some of the rows have shifted inputs."""
    if not drifted.any():
        return _bin_shares(mean)
    share = drifted[:, None]
    return (1 - share) * _bin_shares(mean) + share * _bin_shares(mean + DRIFT_SCORE_SD)


def _bin_shares(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """[devices, bins] shares of normal scores about `mean` in the tenths of the standard normal."""
    cumulated = _normal(np.array(_TENTHS)[None, :] - mean[:, None])
    ends = np.concatenate([np.zeros((len(mean), 1)), cumulated, np.ones((len(mean), 1))], axis=1)
    return np.diff(ends, axis=1)


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + _erf(z / math.sqrt(2.0))))
