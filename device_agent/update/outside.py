"""What the update path asks of the agent around it: the only calls that leave the package."""

from collections.abc import Callable
from dataclasses import dataclass

from device_agent.update.selftest import Selftest


@dataclass(frozen=True)
class Outside:
    """What the updater needs from the agent around it.

    Attributes:
        selftest: Runs the self-test of a slot.
        stopped: Whether the agent was asked to stop.
        newer: Whether a newer desired state or a fleet halt waits; a download ends for it.
        tell: Called with (event name, sentence, bundle digest) for the operator.
        changed: Called after each change of the progress or of the running model.
    """

    selftest: Selftest
    stopped: Callable[[], bool]
    newer: Callable[[], bool]
    tell: Callable[[str, str, str], None]
    changed: Callable[[], None]
