"""`python -m tests.properties.rollout_fleet STEPS [SEED] [--shrink]`: as many steps as one likes."""

import argparse
import logging
import time

from tests.properties.rollout_fleet.run import run_steps

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.properties.rollout_fleet", description="Any fleet keeps the 28 invariants.")
    parser.add_argument("steps", type=int, help="at least so many")
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the same steps for the same seed (default 0)")
    parser.add_argument("--shrink", action="store_true", help="look for the shortest sequence when something breaks; takes minutes")
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)  # damaged rows and garbage are logged by the hundred
    begun = time.monotonic()
    ran = run_steps(asked.steps, seed=asked.seed, shrink=asked.shrink)
    print(f"{ran['steps']} steps in {time.monotonic() - begun:.0f} s: {dict(ran)}")  # noqa: T201
