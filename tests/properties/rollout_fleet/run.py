"""Runs the machine until so many steps ran, and says how many and what happened in them."""

from collections import Counter
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.rollout_fleet.machine import STEPS, FleetMachine

STEPS_OF_A_RUN: Final = 50


def run_steps(steps: int, *, seed: int, shrink: bool = False) -> Counter[str]:
    """At least so many steps; `steps`, `runs` and figures of what happened.

    Args:
        steps: At least.
        seed: The same steps for the same seed.
        shrink: Look for the shortest sequence when something breaks; takes minutes.

    Raises:
        Broken: An invariant does not hold; Hypothesis has printed the steps.
    """
    STEPS.clear()
    piece = 0
    while STEPS["steps"] < steps:
        left = steps - STEPS["steps"]
        _run(max(left // STEPS_OF_A_RUN, 2), 1_000 * seed + piece, shrink)
        piece += 1
    return Counter(STEPS)


def _run(runs: int, seed: int, shrink: bool) -> None:
    chosen = settings(
        max_examples=runs,
        stateful_step_count=STEPS_OF_A_RUN,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    class Seeded(FleetMachine):
        """A class of its own: the seed is kept with it."""

    run_state_machine_as_test(seeded(seed)(Seeded), settings=chosen)
