"""The comparisons of one virtual rollout: which device is compared when, and against whom; stakes are kept up by increments.

By the rules of the policy's `gates`: a device gives its difference of a gate once it has answered enough rows, against controls that it may
share with its block (`blocks.py`), and who does not tell in time is left out. Before the release every device has told enough.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.behaviour import NO_CONTROL
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.blocks import Blocks, Filling
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.models import ModelChange, controls_part, own_part
from fleet_server.simulate.scene import PER_DAY, PER_HOUR, TICK_S, Scene

ROWS_PER_H: Final = 125
LABELLED_SHARE: Final = 0.1
_DRIFTS_UNTIL: Final = 3 * PER_DAY


@dataclass(frozen=True)
class Drift:
    """The inputs of some sites shift.

    Attributes:
        devices: [N] whether they do on a device.
        at: Tick.
    """

    devices: Mask
    at: int

    @classmethod
    def draw(cls, rng: np.random.Generator, availability: Availability, scene: Scene) -> "Drift":
        """Of the scene's share of sites."""
        sites = rng.random(availability.sites) < scene.drift_fraction
        return cls(sites[availability.site], int(rng.integers(0, _DRIFTS_UNTIL)))


class ModelWatch:
    """Stakes of the gates in force.

    Args:
        rng: Of its own: the fleet's story does not depend on it.
        change: What the release's model does.
        rules: Of the policy.
        order: Of the waves; controls are taken from the hold-back first, then from its end.
        drift: Of the inputs, of everybody.
    """

    def __init__(self, rng: np.random.Generator, change: ModelChange, rules: GateRules, order: Order, drift: Drift) -> None:
        n = len(drift.devices)
        self._rng, self._change, self._rules, self._drift = rng, change, rules, drift
        self.blocks = Blocks(n, np.concatenate([order.held, order.devices[::-1]]))
        self._filling = {name: Filling(COMPARISONS[name].columns) for name in rules.compare}
        # Devices that began, in that order, and that a gate has not compared yet: most are compared soon, and never looked at again.
        self._untold: dict[str, Ints] = {name: np.empty(0, np.int64) for name in rules.compare}
        self._begun = 0
        self.wealth: Mapping[str, Wealth] = {name: Wealth.start(COMPARISONS[name]) for name in rules.compare}

    def tick(self, number: int, ledger: Ledger, asked: Ints, size: int) -> None:
        """Compare the devices that have answered enough.

        Args:
            number: Of the tick.
            ledger: Who began when, and answered how much.
            asked: Devices that were given the release: controls no longer.
            size: Devices that share a pair of controls (`block_size`).
        """
        exposed = np.zeros(len(self._drift.devices), bool)
        exposed[asked] = True
        self.blocks.exclude(exposed)
        fresh, self._begun = ledger.devices[self._begun :], len(ledger.devices)
        self._untold = {name: np.concatenate([untold, fresh]) for name, untold in self._untold.items()}
        self.wealth = {name: self._after(name, number, ledger, size) for name in self.wealth}

    def _after(self, name: str, number: int, ledger: Ledger, size: int) -> Wealth:
        gate, before, controlled = COMPARISONS[name], self.wealth[name], name not in NO_CONTROL
        untold, filling, blocks = self._untold[name], self._filling[name], self.blocks
        tells = np.flatnonzero((ledger.answered[untold] >= ticks_needed(name, self._rules)) & ~ledger.failed[untold])
        if controlled:
            tells = tells[blocks.join(untold[tells], ledger.began[untold[tells]], size)]
            tells = tells[~filling.closed(blocks.of[untold[tells]])]
        ready, untold = untold[tells], np.delete(untold, tells)
        self._untold[name] = untold
        wait_s = self._rules.label_wait_s if name == "label metric" else self._rules.wait_s
        out = ledger.failed[untold] | (number - ledger.began[untold] >= wait_s / TICK_S)
        own, more = self._own(name, number, ledger.began[ready], ready), len(ready)
        if controlled:
            out |= blocks.alone[untold] | filling.closed(blocks.of[untold])
            filling.add(blocks.of[ready], own, len(blocks.sizes))
            which, counts, means = filling.close(blocks.sizes, rest=bool(self._begun) and bool(out.all()))
            if (counts < blocks.sizes[which]).any():
                blocks.begin_anew()
            own, more = means - self._controls(name, number, which), int(counts.sum())
        after = before.after(gate, own.tolist()) if len(own) else before
        return replace(after, devices=before.devices + more, left_out=int(out.sum()))

    def _own(self, name: str, number: int, began: Ints, devices: Ints) -> NDArray[np.float64]:
        """[D, columns] of devices that are compared at a tick: shifted are the rows after the drift, before and since they began."""
        before, now = self._periods(number, began)
        drifts = self._drift.devices[devices]
        return own_part(self._rng, name, self._change, drifts * before, drifts * now, self._rules.rows, self._rules.labelled_rows)

    def _controls(self, name: str, number: int, blocks: Ints) -> NDArray[np.float64]:
        """[B, columns] of the controls of blocks, in the middle of the periods of their devices."""
        before, now = self._periods(number, self.blocks.began(blocks))
        drifts = self._drift.devices[self.blocks.pairs[blocks]]
        return controls_part(self._rng, name, self._change, drifts * before[:, None], drifts * now[:, None], self._rules.rows)

    def _periods(self, number: int, began: NDArray[np.float64] | Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of the times before and since devices began that lie behind the drift."""
        before = np.clip((began - self._drift.at) / (self._rules.before_s / TICK_S), 0, 1)
        return before, np.clip((number - self._drift.at) / np.maximum(number - began, 1), 0, 1)


def ticks_needed(name: str, rules: GateRules) -> int:
    """Quarters of an hour that a device must have been heard until it can be compared."""
    if name == "memory":
        return PER_HOUR + 1  # a whole hour
    rows = rules.labelled_rows / LABELLED_SHARE if name == "label metric" else rules.rows
    return max(1, math.ceil(rows * PER_HOUR / ROWS_PER_H))
