"""What a system that asks for no more than a result sees of a release: when each device starts it, succeeds, or says that it failed."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.reference.history import NEVER_H, History, Hours
from fleet_server.simulate.scene import Behaviour

_ACTIVATES_H: Final = (0.1, 0.3)  # download and start
_SAYS_FAILED_H: Final = (0.08, 0.5)
_SUCCESS_AFTER_H: Final = 1 / 6


@dataclass(frozen=True)
class Exposure:
    """[N] hours from the start of the rollout, infinite where it never comes.

    Attributes:
        began: The release runs on the device.
        succeeded: It reports success; a device that fails late has reported it long before.
        failed: It reports a failure.
        harmed: The release fails on it.
    """

    began: Hours
    succeeded: Hours
    failed: Hours
    harmed: Hours


class Exposing:
    """Draws of one fleet, the same for every rule.

    Args:
        rng: Of the delays.
        history: Signs of life.
        bad: [N] devices on which the release fails.
        behaviour: Of the release.
    """

    def __init__(self, rng: np.random.Generator, history: History, bad: Mask, behaviour: Behaviour) -> None:
        n = len(bad)
        self._history, self._bad, self._behaviour = history, bad, behaviour
        self._activates, self._says = rng.uniform(*_ACTIVATES_H, n), rng.uniform(*_SAYS_FAILED_H, n)

    def start(self, devices: Ints, hours: Hours) -> Exposure:
        """Devices [n] are told at these hours [n] to run the release."""
        bad, kind = self._bad[devices], self._behaviour.kind
        began = self._history.heard_from(hours, devices) + self._activates[devices]
        fine = self._history.heard_from(began + _SUCCESS_AFTER_H, devices)
        says = self._history.heard_from(began + self._says[devices], devices) if kind == "prompt" else np.full(len(devices), NEVER_H)
        return Exposure(
            began=began,
            succeeded=fine if kind == "late" else np.where(bad, NEVER_H, fine),
            failed=np.where(bad, says, NEVER_H),
            harmed=np.where(bad, began, NEVER_H),
        )
