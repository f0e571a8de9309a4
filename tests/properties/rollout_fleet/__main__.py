"""`python -m tests.properties.rollout_fleet STEPS [SEED]`: as many steps as one likes."""

import logging
import sys
import time

from tests.properties.rollout_fleet.run import run_steps

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # damaged rows and garbage are logged by the hundred
    begun = time.monotonic()
    ran = run_steps(int(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 0, shrink="--shrink" in sys.argv)
    print(f"{ran['steps']} steps in {time.monotonic() - begun:.0f} s: {dict(ran)}")  # noqa: T201
