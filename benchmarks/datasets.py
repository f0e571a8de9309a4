"""Projects over public data sets beside the baselines measured on the same splits: `python -m benchmarks.datasets --data FOLDER`.

A project is level with its baseline when its 95 % interval reaches it. The data sets are not part of edgefleet.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure, show
from edgefleet.report.table import table
from trainer import GateRefused, Training, load_project, run_training
from trainer.limits import LESS_IS_BETTER

PROJECTS: Final = Path(__file__).parent / "projects"
# name -> (baseline, what made it)
BASELINES: Final[dict[str, tuple[float, str]]] = {
    "gas_drift": (0.859, "logistic regression, batches 1 + 2 -> 3"),
    "ai4i2020": (0.974, "boosting, first 70 % -> rest"),
    "occupancy": (0.985, "logistic regression, all five inputs"),
    "adult": (0.8719, "boosting on ordinal categories"),
    "heart": (0.879, "logistic regression, Cleveland -> Hungary"),
    "cmapss": (17.32, "boosting, one row, truth capped at 125"),
    "beijing_air": (41.2, "boosting, 2013 to 2015 -> 2016 and later"),
}


def main() -> None:
    """Train every project and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datasets", description="Projects over public data sets beside baselines.")
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder per data set")
    parser.add_argument("--only", action="append", choices=list(BASELINES), help="this set only; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    figures: list[Figure] = []
    lines: list[list[object]] = []
    for name in options.only or BASELINES:
        with tempfile.TemporaryDirectory() as runs:
            figure, line = measure(name, options.data, Path(runs))
        figures.append(figure)
        lines.append(line)
    if not options.json:
        print(table(["set", "metric", "winner", "test [95 %]", "rows", "baseline", "level", "s"], lines))
    else:
        show(figures, as_json=True)


def measure(name: str, data: Path, runs: Path) -> tuple[Figure, list[object]]:
    """Train one project; its figure and its line of the table."""
    baseline = BASELINES[name][0]
    try:
        training = train_one(name, data, runs)
    except GateRefused as refused:
        return Figure(f"{name} refused", 1.0, "", 0.0, 0), [name, "-", "-", str(refused)[:60], "-", baseline, "refused", "-"]
    metric = training.project.goal.metric
    test = training.test[metric]
    # How much the better end of the interval misses the baseline: 0 or less is level.
    missed = test["low"] - baseline if metric in LESS_IS_BETTER else baseline - test["high"]
    level = missed <= 0
    seconds = sum(training.record["seconds"].values())
    interval = f"{test['value']:.4g} [{test['low']:.4g}, {test['high']:.4g}]"
    line: list[object] = [name, metric, training.winner, interval, test["n"], baseline, "yes" if level else "no", round(seconds, 1)]
    return Figure(f"{name} behind its baseline", missed, metric, 0.0, test["n"]), line


def train_one(name: str, data: Path, runs: Path) -> Training:
    """One project's training."""
    project = load_project(PROJECTS / name, [f'data.arguments.folder="{data.resolve()}"'])
    return run_training(project, runs_dir=runs)


if __name__ == "__main__":
    main()
