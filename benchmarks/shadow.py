"""What a candidate on trial costs the running model: latency of one row with and without it, in interleaved blocks.

    python -m benchmarks.shadow BUNDLE CANDIDATE [--rows-per-second 0] [--blocks 30] [--rows 400]

Rows come as fast as they are answered (0, the worst case), or at a rate. Blocks with and without a candidate take turns, so that other load
on the machine hits both alike; the figures are medians over blocks of each block's p50 and p99, in microseconds.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from device_agent.doors.answering import Answering
from device_agent.scorer import Scorer
from device_agent.update.trial import Trial
from edgefleet.desired import TrialPolicy
from edgefleet.package import read_npz

FOREVER = TrialPolicy(soak_s=1e9, soak_rows=10**9, timeout_s=1e9, agreement_rows=10**9, min_agreement=0.5)


def main() -> None:
    """Measure and print one JSON document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("candidate", type=Path)
    parser.add_argument("--rows-per-second", type=float, default=0.0)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--rows", type=int, default=400)
    args = parser.parse_args()
    models = Answering()
    models.install(Scorer.open(args.bundle))
    running = Scorer.open(args.bundle)
    golden = read_npz(running.bundle.read(running.bundle.manifest.golden), ("x",), "golden rows")["x"]
    rows = [row.tolist() for row in golden[np.arange(args.rows) % len(golden)]]
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    compared = shed = 0
    for block in range(2 * args.blocks):
        beside = block % 2 == 1
        trial = Trial(FOREVER, 0.0, compared=True, tolerance=0.1)
        if beside:
            models.begin_trial(Scorer.open(args.candidate), trial)
        taken = _block(models, rows, args.rows_per_second)
        if beside:
            models.end_trial()
            compared, shed = compared + trial.both, shed + getattr(trial, "shed", 0)
        found[beside].append((float(np.percentile(taken, 50)), float(np.percentile(taken, 99))))
    alone, both = ([statistics.median(v) for v in zip(*found[beside], strict=True)] for beside in (False, True))
    document = {
        "rows_per_second": args.rows_per_second or "closed loop",
        "p50_us": {"alone": round(alone[0], 1), "beside": round(both[0], 1), "added_percent": round(100 * (both[0] / alone[0] - 1), 1)},
        "p99_us": {"alone": round(alone[1], 1), "beside": round(both[1], 1)},
        "compared": compared,
        "shed": shed,
    }
    print(json.dumps(document))


def _block(models: Answering, rows: list[list[float]], rows_per_second: float) -> list[float]:
    taken = []
    due = time.perf_counter()
    for row in rows:
        if rows_per_second:
            due += 1 / rows_per_second
            time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter_ns()
        models.score(row)
        taken.append((time.perf_counter_ns() - start) / 1000)
    return taken


if __name__ == "__main__":
    main()
