"""The gates that look at what the model does on devices: agreement, labels, latency, memory, class rate, score bins.

Each device gives one difference per gate against its own past and its controls (`betting.py`). Together they may pause a rollout, and a
person decides; they never abort it, and promotion asks them for maturity only, never for proof of sameness.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from fleet_server.rollout.betting import STAKES, log_wealths

PAUSE_AT: Final = 100.0  # wrongly in at most 1 % of all rollouts, all gates together
MATURE_SHARE: Final = 0.8
SCORE_BINS: Final = 10


@dataclass(frozen=True)
class Comparison:
    """One gate.

    Attributes:
        tolerance: A mean difference up to it is the same.
        clip: Larger differences of one device count as this.
        difference: What a device's difference is, in words, positive = worse.
        both_ways: A change in either direction is worse.
        columns: Differences per device (score bins have one each).
    """

    name: str
    tolerance: float
    clip: float
    difference: str
    both_ways: bool = False
    columns: int = 1


COMPARISONS: Final = {
    gate.name: gate
    for gate in (
        Comparison("shadow agreement", 0.05, 0.5, "share of rows to which the running model gives another class"),
        Comparison("label metric", 0.005, 0.15, "share of labelled rows: right before minus right now"),
        Comparison("p95 latency", math.log(1.05), 0.4, "log of p95 now over p95 before, less the controls' change"),
        Comparison("memory", math.log(1.05), 0.2, "log of peak memory now over before, less the controls' change"),
        Comparison("class rate", 0.01, 0.08, "change of the positive share, less the controls' change", both_ways=True),
        Comparison(
            "score bins", 0.01, 0.12, "change of the share in each bin, less the controls' change", both_ways=True, columns=SCORE_BINS
        ),
    )
}


@dataclass(frozen=True)
class Wealth:
    """A gate's stake so far: sums, so that a stored value goes on with the next device.

    Attributes:
        logs: [directions x columns, stakes] log wealth of each gambler.
        devices: Devices that gave their difference.
        left_out: Devices that can give none, each with its reason in the store: nothing is awaited from them.
    """

    logs: NDArray[np.float64]
    devices: int
    left_out: int = 0

    @classmethod
    def start(cls, gate: Comparison) -> "Wealth":
        """Before any device."""
        return cls(np.zeros(((2 if gate.both_ways else 1) * gate.columns, len(STAKES))), 0)

    def after(self, gate: Comparison, differences: Iterable[Sequence[float]]) -> "Wealth":
        """With more devices, in the order in which they matured.

        Args:
            gate: The gate that this is the wealth of.
            differences: Per device `gate.columns` numbers.

        Raises:
            ConfigError: Another number of columns, or a number that is not finite.
        """
        rows = [tuple(row) for row in differences]
        if any(len(row) != gate.columns for row in rows):
            raise ConfigError(f"{gate.name}: expected {gate.columns} differences of a device, got {sorted({len(row) for row in rows})}")
        ways = (1.0, -1.0) if gate.both_ways else (1.0,)
        columns = [[row[i] for row in rows] for i in range(gate.columns)]
        more = [log_wealths([way * value for value in column], gate.tolerance, gate.clip) for way in ways for column in columns]
        return replace(self, logs=self.logs + np.array(more), devices=self.devices + len(rows))

    @property
    def evidence(self) -> float:
        """e-value: the mean over stakes, columns and directions, cut at the largest float."""
        most = float(self.logs.max())
        return math.exp(min(most, 600.0)) * float(np.exp(self.logs - most).mean())


@dataclass(frozen=True)
class Compared:
    """Verdict of all comparisons.

    Attributes:
        pauses: Whether a person must look.
        evidence: Mean of the gates' e-values.
        worst: The gate that says most, "" when none has seen a device.
        immature: Gates that have not seen enough of the wave to let it go on.
        nothing: Gates for which no device of the wave has anything to compare; they vote for nothing and block nothing.
    """

    pauses: bool
    evidence: float
    worst: str
    immature: tuple[str, ...]
    nothing: tuple[str, ...] = ()


def compare(wealth: Mapping[str, Wealth], wave_devices: int) -> Compared:
    """Judge the gates that are in force.

    Args:
        wealth: Gate name -> what it has seen; gates that the policy leaves out are missing.
        wave_devices: Devices of the open waves that could give a difference.

    Raises:
        ConfigError: An unknown gate, or stakes that are no number: whoever cannot decide must pause.
    """
    unknown = sorted(set(wealth) - set(COMPARISONS))
    if unknown:
        raise ConfigError(f"gate {unknown[0]!r} is unknown; known: {', '.join(COMPARISONS)}")
    if not wealth:
        return Compared(False, 1.0, "", ())
    by_gate = {name: one.evidence for name, one in wealth.items()}
    # Gates that are not in force bet nothing: their wealth stays 1, and the mean is over all six.
    mean = (sum(by_gate.values()) + len(COMPARISONS) - len(by_gate)) / len(COMPARISONS)
    broken = [name for name, value in by_gate.items() if not math.isfinite(value)]
    if broken:
        raise ConfigError(f"{broken[0]}: evidence {by_gate[broken[0]]} is no finite number; the comparisons must be made again")
    awaited = {name: max(wave_devices - one.left_out, 0) for name, one in wealth.items()}
    worst = max(by_gate, key=lambda name: by_gate[name])
    return Compared(
        pauses=mean >= PAUSE_AT,
        evidence=mean,
        worst=worst if wealth[worst].devices else "",
        immature=tuple(n for n, one in wealth.items() if one.devices < math.ceil(MATURE_SHARE * awaited[n]) or wave_devices == 0),
        nothing=tuple(name for name, one in wealth.items() if one.devices == 0 and awaited[name] == 0 and wave_devices > 0),
    )
