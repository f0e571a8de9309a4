"""How many devices each comparison needs to see a change of its model, and in which wave so many are there. For plans, not for verdicts.

How much devices differ among themselves is not known before a fleet has told: it is what virtual fleets assume. The rest follows from the
policy's rows, the gate's tolerance and the gambler's own formula.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fleet_server.rollout.behaviour import NO_CONTROL
from fleet_server.rollout.betting import STAKES, devices_to_see, pairs_possible
from fleet_server.rollout.comparisons import COMPARISONS, PAUSE_AT, Comparison
from fleet_server.rollout.gate_rules import GateRules

POWER: Final = 0.8
# Against the mean of two controls: half a device's variance more.
_OF_PAIR: Final = math.sqrt(1.5)


@dataclass(frozen=True)
class _Usual:
    """A change worth seeing, and how devices differ without it.

    Attributes:
        words: The change, for people.
        change: The same in the unit of the gate's differences.
        between: Standard deviation between devices.
        per_row: Standard deviation that one row adds, over the root of the rows.
    """

    words: str
    change: float
    between: float
    per_row: float = 0.0

    def deviation(self, gate: Comparison, rules: GateRules) -> float:
        """Of a device's difference."""
        rows = rules.labelled_rows if gate.name == "label metric" else rules.rows
        own = math.hypot(self.between, self.per_row / math.sqrt(rows))
        return own if gate.name in NO_CONTROL else own * _OF_PAIR


_SHARE: Final = 0.03  # of the rows, on which two good models differ; also of the labelled ones
_USUAL: Final = {
    "shadow agreement": _Usual("8 % of the rows answered otherwise", 0.08, 0.022, math.sqrt(0.08 * 0.92)),
    "label metric": _Usual("2 points less right answers", 0.02, 0.01, math.sqrt(_SHARE)),
    "p95 latency": _Usual("20 % slower", math.log(1.2), 0.10),
    "memory": _Usual("15 % more memory", math.log(1.15), 0.05),
    "class rate": _Usual("3 points more positive answers", 0.03, 0.02),
    "score bins": _Usual("scores moved by 0.2 standard deviations", 0.04, 0.008, math.sqrt(2 * 0.1 * 0.9)),
}


@dataclass(frozen=True)
class Need:
    """What one comparison needs.

    Attributes:
        gate: Its name.
        change: The change that it is to see, in words.
        tolerance: A mean difference up to it is the same, in the gate's unit.
        devices: That have to tell; None: no number of them is enough.
        wave: The first in which so many can, with two controls for each where the gate needs them; None: none.
    """

    gate: str
    change: str
    tolerance: float
    devices: int | None
    wave: int | None


def needs(rules: GateRules, sizes: Sequence[int], devices: int, power: float = POWER) -> tuple[Need, ...]:
    """What the comparisons in force need.

    Args:
        rules: Of the policy.
        sizes: Cumulative devices of the waves.
        devices: Of the selection, those held back included: who has not begun can be a control.
        power: Chance that a change is seen by so many devices, 0.5 to below 1.

    >>> [(one.gate, one.devices, one.wave) for one in needs(GateRules(compare=("memory",)), (95, 475, 9_500), 10_000)]
    [('memory', 36, 1)]
    """
    found = []
    for name in rules.compare:
        gate, usual = COMPARISONS[name], _USUAL[name]
        # One stake of one column has to lift the mean over all stakes, columns, directions and gates.
        level = PAUSE_AT * len(COMPARISONS) * len(STAKES) * gate.columns * (2 if gate.both_ways else 1)
        least = devices_to_see(usual.change, usual.deviation(gate, rules), gate.tolerance, gate.clip, level, power)
        needed = None if math.isinf(least) else math.ceil(least)
        found.append(Need(name, usual.words, gate.tolerance, needed, None if needed is None else _wave(gate, needed, sizes, devices)))
    return tuple(found)


def _wave(gate: Comparison, needed: int, sizes: Sequence[int], devices: int) -> int | None:
    for number, size in enumerate(sizes, start=1):
        telling = size if gate.name in NO_CONTROL else pairs_possible(size, max(devices - size, 0))
        if telling >= needed:
            return number
    return None
