"""The fuzzer's side, run where atheris is: `python -m tests.fuzz.run BUNDLE COUNTS CORPUS -max_total_time=60`.

The first byte of an input chooses the target. COUNTS is written again and again, because the fuzzer ends the process by itself.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgefleet", "device_agent"]):
    from tests.fuzz.targets import TARGETS, Device, survives

NAMES = list(TARGETS)
WRITE_EVERY = 256


def main() -> None:
    """Fuzz until the time is over, or a target fails."""
    bundle, counts_file = Path(sys.argv[1]), Path(sys.argv[2])
    device = Device(bundle, Path(tempfile.mkdtemp()))
    asked: Counter[str] = Counter()
    taken: Counter[str] = Counter()

    def one(data: bytes) -> None:
        target = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
        asked[target] += 1
        taken[target] += survives(device, target, data[1:])
        if asked.total() % WRITE_EVERY == 0:
            counts_file.write_text(json.dumps({"asked": asked, "taken": taken}))

    atheris.Setup([sys.argv[0], *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
