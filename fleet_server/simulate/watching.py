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
from fleet_server.simulate.blocks import NOBODY, Blocks, Filling
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


@dataclass(frozen=True)
class _Begun:
    """Devices that began, in that order, and what is known of each; looked up once a tick, for all gates.

    Attributes:
        devices, at: Each of them, and the tick at which it began.
        failed: Whether it said that the release failed there.
        answered: Ticks in which it answered rows.
    """

    devices: Ints
    at: Ints
    failed: Mask
    answered: Ints

    @classmethod
    def of(cls, ledger: Ledger) -> "_Begun":
        """As the server knows them."""
        devices = ledger.devices
        return cls(devices, ledger.began[devices], ledger.failed[devices], ledger.answered[devices])


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
        self._given: dict[str, Mask] = {name: np.zeros(n, bool) for name in rules.compare}
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
        begun = _Begun.of(ledger)
        self.wealth = {name: self._after(name, number, begun, ledger, size) for name in self.wealth}

    def _after(self, name: str, number: int, begun: _Begun, ledger: Ledger, size: int) -> Wealth:
        gate, given, devices = COMPARISONS[name], self._given[name], begun.devices
        controlled, before = name not in NO_CONTROL, self.wealth[name]
        ready = devices[(begun.answered >= ticks_needed(name, self._rules)) & ~begun.failed & ~given[devices]]
        if controlled:
            filling = self._filling[name]
            ready = self.blocks.join(ready, size)
            ready = ready[~filling.closed(self.blocks.of[ready])]
        given[ready] = True
        wait_s = self._rules.label_wait_s if name == "label metric" else self._rules.wait_s
        out = begun.failed | (number - begun.at >= wait_s / TICK_S)
        own, more = self._own(name, number, ledger.began[ready], ready), len(ready)
        told = given[devices]
        if controlled:
            out |= self.blocks.alone[devices] | filling.closed(self.blocks.of[devices])
            filling.add(self.blocks.of[ready], own, len(self.blocks.sizes))
            rest = bool(len(devices)) and bool((out | told).all())
            which, counts, means = filling.close(self.blocks.sizes, rest=rest)
            if (counts < self.blocks.sizes[which]).any():
                self.blocks.begin_anew()
            own, more = means - self._controls(name, number, ledger, which), int(counts.sum())
        after = before.after(gate, own.tolist()) if len(own) else before
        return replace(after, devices=before.devices + more, left_out=int((out & ~told).sum()))

    def _own(self, name: str, number: int, began: Ints, devices: Ints) -> NDArray[np.float64]:
        """[D, columns] of devices that are compared at a tick: shifted are the rows after the drift, before and since they began."""
        before, now = self._periods(number, began)
        drifts = self._drift.devices[devices]
        return own_part(self._rng, name, self._change, drifts * before, drifts * now, self._rules.rows, self._rules.labelled_rows)

    def _controls(self, name: str, number: int, ledger: Ledger, blocks: Ints) -> NDArray[np.float64]:
        """[B, columns] of the controls of blocks, in the middle of the periods of their devices."""
        members = ledger.devices[self.blocks.of[ledger.devices] != NOBODY]
        of, began = self.blocks.of[members], ledger.began[members]
        total = np.bincount(of, began, minlength=len(self.blocks.sizes))
        middle = total / np.maximum(np.bincount(of, minlength=len(self.blocks.sizes)), 1)
        before, now = self._periods(number, middle[blocks])
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
