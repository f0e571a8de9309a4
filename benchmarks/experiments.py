"""How often an experiment or a comparison is wrong, and what it finds: `python -m benchmarks.experiments [--full] [--only PART]`.

- false winners of experiments without a difference, looked at after every device (limit 5 %);
- power: share of experiments decided by so many devices; the sample-ratio check: false alarms, and what it finds;
- comparisons of a rollout: good releases paused (limit 1 %), and devices until a change of the model pauses.

Two minutes on one core; with --full (10,000 experiments, 1,000 worlds a cell) about a quarter of an hour.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fleet_server.simulate.arms import Metric, ratio_alarms, simulate_experiments
from fleet_server.simulate.models import CHANGES, paused_after

SEED: Final = 1
MARKS: Final = (200, 500, 1_000, 2_000, 4_000)
EFFECTS: Final = (0.05, 0.1, 0.2, 0.3, 0.5)
METRICS: Final[tuple[Metric, ...]] = ("normal", "skewed")
WAVES: Final = (77, 200, 500)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments", description="False alarms and power of experiments and gates."
    )
    parser.add_argument("--full", action="store_true", help="more experiments and worlds")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="this part only; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = {name: PARTS[name](10 if options.full else 1) for name in options.only or PARTS}
    if options.json:
        print(json.dumps(found))
        return
    for name, rows in found.items():
        header = list(rows[0])
        print(f"\n## {name}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
        for row in rows:
            print("| " + " | ".join(str(row[key]) for key in header) + " |")


def false_winners(times: int) -> list[dict[str, Any]]:
    """Experiments without a difference that end with a winner, in percent."""
    rows = []
    for metric in METRICS:
        ended = simulate_experiments(1_000 * times, MARKS[-1], effect=0.0, seed=SEED, metric=metric)
        rows.append(
            {"metric": metric, "experiments": len(ended)} | {f"by {n} devices, %": _by([e.devices for e in ended], n) for n in MARKS}
        )
    return rows


def power(times: int) -> list[dict[str, Any]]:
    """Experiments with a difference that end with the right winner, in percent; the median number of devices."""
    rows = []
    for effect in EFFECTS:
        ended = [
            one for metric in METRICS for one in simulate_experiments(200 * times, MARKS[-1], effect=effect, seed=SEED + 1, metric=metric)
        ]
        right = [one.devices if one.ending == "winner B" else 0 for one in ended]
        wrong = 100 * sum(one.ending == "winner A" for one in ended) / len(ended)
        numbers = {f"by {n}, %": _by(right, n) for n in MARKS}
        rows.append({"difference, sd": effect} | numbers | {"wrong winner, %": round(wrong, 2), "median devices": _median(right)})
    return rows


def ratio(times: int) -> list[dict[str, Any]]:
    """The sample-ratio check over 10,000 devices that delivered, by the share of arm B among them."""
    rows = []
    for share in (0.5, 0.52, 0.55, 0.6):
        alarms = ratio_alarms(2_000 * times if share == 0.5 else 300 * times, 10_000, share, SEED + 2)
        found = round(100 * sum(at > 0 for at in alarms) / len(alarms), 2)
        rows.append({"share of arm B": share, "runs": len(alarms), "alarms, %": found, "median devices": _median(alarms)})
    return rows


def gates(times: int) -> list[dict[str, Any]]:
    """Rollouts that the comparisons pause, by how many devices of the wave, each with two controls of its own."""
    rows = []
    for change in CHANGES.values():
        good = change.name in ("nothing changed", "everybody 8 % slower")
        stops = [paused_after(np.random.default_rng([SEED, seed]), change, WAVES[-1]) for seed in range((1_000 if good else 100) * times)]
        shares = {f"paused by {n} devices, %": _by(stops, n) for n in WAVES}
        rows.append({"change": change.name, "worlds": len(stops)} | shares | {"median devices": _median(stops)})
    return rows


def _by(devices: list[int], mark: int) -> float:
    return round(100 * sum(0 < n <= mark for n in devices) / len(devices), 1)


def _median(devices: list[int]) -> str:
    middle = float(np.median([n or np.inf for n in devices]))
    return "-" if np.isinf(middle) else f"{middle:.0f}"


PARTS: Final[dict[str, Callable[[int], list[dict[str, Any]]]]] = {
    "false winners": false_winners,
    "power": power,
    "sample ratio": ratio,
    "comparisons": gates,
}

if __name__ == "__main__":
    main()
