"""The comparisons of one virtual rollout: which device is compared when, and against whom; stakes are kept up by increments.

By the rules of the policy's `gates`: a device gives its difference of a gate once it has answered enough rows, each control stands in one
pair, and who does not tell in time is left out. Before the release every device has told enough, and controls are not chosen by stratum.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from fleet_server.rollout.behaviour import NO_CONTROL
from fleet_server.rollout.betting import pairs_possible
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.models import ModelChange, Shifted, difference
from fleet_server.simulate.scene import PER_DAY, PER_HOUR, TICK_S, Scene

ROWS_PER_H: Final = 125
LABELLED_SHARE: Final = 0.1
_DRIFTS_UNTIL: Final = 3 * PER_DAY
NOBODY: Final = -1


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
        self._pool = np.concatenate([order.held, order.devices[::-1]])
        self._controls: Ints = np.full((n, 2), NOBODY, np.int64)
        self._alone: Mask = np.zeros(n, bool)  # no control was left for them
        self._given: dict[str, Mask] = {name: np.zeros(n, bool) for name in rules.compare}
        self.wealth: Mapping[str, Wealth] = {name: Wealth.start(COMPARISONS[name]) for name in rules.compare}

    def tick(self, number: int, ledger: Ledger, asked: Ints) -> None:
        """Compare the devices that have answered enough.

        Args:
            number: Of the tick.
            ledger: Who began when, and answered how much.
            asked: Devices that were given the release: controls no longer.
        """
        exposed = np.zeros(len(self._alone), bool)
        exposed[asked] = True
        self._pool = self._pool[~exposed[self._pool]]
        if not pairs_possible(1, len(self._pool)):
            # Nobody waits for rows that nothing could be compared with.
            self._alone |= self._controls[:, 0] == NOBODY
        self.wealth = {name: self._after(name, number, ledger) for name in self.wealth}

    def _after(self, name: str, number: int, ledger: Ledger) -> Wealth:
        gate, given, devices = COMPARISONS[name], self._given[name], ledger.devices
        controlled = name not in NO_CONTROL
        usable = ~ledger.failed[devices] & ~(controlled & self._alone[devices])
        ready = devices[usable & ~given[devices] & (ledger.answered[devices] >= ticks_needed(name, self._rules))]
        ready = self._with_controls(ready) if controlled else ready
        after = self.wealth[name]
        if len(ready):
            given[ready] = True
            rows, labels = self._rules.rows, self._rules.labelled_rows
            shifted = self._shifted(number, ledger.began[ready], ready)
            after = after.after(gate, difference(self._rng, name, self._change, shifted, rows, labels).tolist())
        wait_s = self._rules.label_wait_s if name == "label metric" else self._rules.wait_s
        out = ledger.failed[devices] | (controlled & self._alone[devices]) | (number - ledger.began[devices] >= wait_s / TICK_S)
        return replace(after, left_out=int((out & ~given[devices]).sum()))

    def _with_controls(self, ready: Ints) -> Ints:
        """Those of the devices that have two controls, each of which is in no other pair."""
        fresh = ready[self._controls[ready, 0] == NOBODY]
        if len(fresh):
            pairs = pairs_possible(len(fresh), len(self._pool))
            self._controls[fresh[:pairs]] = self._pool[: 2 * pairs].reshape(-1, 2)
            self._pool = self._pool[2 * pairs :]
            self._alone[fresh[pairs:]] = True
        return ready[~self._alone[ready]]

    def _shifted(self, number: int, began: Ints, devices: Ints) -> Shifted:
        """Of the rows before and since a device began, those after the drift: of the device, and of its controls in the same periods."""
        before = np.clip((began - self._drift.at) / (self._rules.before_s / TICK_S), 0, 1)
        now = np.clip((number - self._drift.at) / np.maximum(number - began, 1), 0, 1)
        own, others = self._drift.devices[devices], self._drift.devices[self._controls[devices]]
        return Shifted(own * before, own * now, others * before[:, None], others * now[:, None])


def ticks_needed(name: str, rules: GateRules) -> int:
    """Quarters of an hour that a device must have been heard until it can be compared."""
    if name == "memory":
        return PER_HOUR + 1  # a whole hour
    rows = rules.labelled_rows / LABELLED_SHARE if name == "label metric" else rules.rows
    return max(1, math.ceil(rows * PER_HOUR / ROWS_PER_H))
