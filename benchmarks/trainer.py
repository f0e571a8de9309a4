"""What a training costs beside the same work by hand, and how it behaves on a million rows: `python -m benchmarks.trainer`.

- fit and predict of one candidate, file and reload included, beside scikit-learn's own calls: median of interleaved runs.
- evaluation and gates on 15,000 rows, and a repeat of the whole command that finds everything cached.
- check and training of 1,000,000 rows x 20 inputs in a process of its own: peak memory; Parquet beside CSV.
- `edgefleet --help` beside `python -c pass`: median of interleaved starts.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure, show

FIT_RATIO_LIMIT: Final = 1.3
JUDGE_LIMIT_S: Final = 20.0
REPEAT_LIMIT_S: Final = 2.0
MEMORY_LIMIT_GB: Final = 2.0
HELP_LIMIT_MS: Final = 150.0
FEATURES: Final = 20
PROJECT: Final = """
[goal]
name = "many-rows"
question = "Which of two?"
metric = "auc"
minimum = 0.6
[data]
source = "{source}"
splits = {{ method = "random", validation = {validation}, test = 0.1 }}
[schema]
numbers = [{names}]
[search]
candidates = ["hist_boosting"]
"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description="Cost of a training beside the same work by hand.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of short measurements (default 5)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large table (default 1,000,000)")
    parser.add_argument("--data", type=Path, help="folder of public data sets: fit on `adult` instead of rows of its shape")
    options = parser.parse_args()
    rows = wide_table(26_000) if options.data is None else adult_rows(options.data)
    figures = [*fit_figures(*rows, options.rounds), *command_figures(), *help_figures(options.rounds)]
    figures += many_rows_figures(options.rows)
    show(figures, options.json)


def fit_figures(x: NDArray[np.float32], y: NDArray[np.int64], rounds: int) -> list[Figure]:
    """One candidate's fit and predict beside scikit-learn's."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    from trainer.candidates import Problem, fit

    # As many threads as scikit-learn takes by itself; a project says so with search.jobs.
    problem = Problem(task="classification", classes=2, shape=(x.shape[1],), seed=1, jobs=os.cpu_count() or 1)
    ours: list[float] = []
    bare: list[float] = []
    settings = fit("hist_boosting", x[:2_000], y[:2_000], problem).parameters
    by_hand = {key: settings[key] for key in HistGradientBoostingClassifier().get_params() if key in settings}
    # By itself scikit-learn would set a tenth of so many rows aside and stop earlier: fewer trees, another estimator than ours.
    by_hand |= {"random_state": 1, "early_stopping": False}
    model = HistGradientBoostingClassifier(**by_hand).fit(x, y)
    if model.n_iter_ != settings["trees"] or not np.allclose(
        model.predict_proba(x)[:, 1], fit("hist_boosting", x, y, problem).predict(x)[:, 1]
    ):
        raise SystemExit("the two sides do not fit the same estimator: their times say nothing")
    for _ in range(rounds):
        ours.append(seconds(lambda: fit("hist_boosting", x, y, problem).predict(x)))
        bare.append(seconds(lambda: HistGradientBoostingClassifier(**by_hand).fit(x, y).predict_proba(x)))
    ratio = statistics.median(ours) / statistics.median(bare)
    return [Figure(f"fit + predict of {len(x)} x {x.shape[1]} / scikit-learn by hand", ratio, "x", FIT_RATIO_LIMIT, rounds)]


def command_figures() -> list[Figure]:
    """Evaluation, gates and a cached repeat of a whole training, 45,000 rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, "rows.csv", 0.33)
        to_frame(*table(45_000)).to_csv(folder / "rows.csv", index=False)
        command = [sys.executable, "-m", "edgefleet", "train", str(folder), "--json"]
        first = subprocess.run(command, check=True, capture_output=True, text=True)
        judged = judge_seconds(first.stdout)
        repeat = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return [
        Figure("evaluation + gates, 15,000 rows", judged, "s", JUDGE_LIMIT_S, 1),
        Figure("cached repeat of the command", repeat, "s", REPEAT_LIMIT_S, 1),
    ]


def judge_seconds(document: str) -> float:
    """Seconds of the steps that judge, from the run's own record."""
    import json

    record = json.loads((Path(json.loads(document)["run"]) / "run.json").read_text())
    return float(sum(value for step, value in record["seconds"].items() if step in {"judge rows", "judge hist_boosting", "test"}))


def many_rows_figures(rows: int) -> list[Figure]:
    """Check and train a large table, each in a process of its own; peak memory of the worst."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = to_frame(*table(rows))
        frame.to_csv(folder / "rows.csv", index=False)
        frame.to_parquet(folder / "rows.parquet")
        del frame
        read = {}
        for kind in ("csv", "parquet"):
            write_project(folder, f"rows.{kind}", 0.1)
            read[kind] = run_measured([sys.executable, "-m", "edgefleet", "data", "check", str(folder)])
        write_project(folder, "rows.csv", 0.1)
        trained = run_measured([sys.executable, "-m", "edgefleet", "train", str(folder), "--json"])
    peak = max(read["csv"][1], trained[1])
    figures += [
        Figure(f"check + train {rows} x {FEATURES}: peak memory", peak, "GB", MEMORY_LIMIT_GB, 1),
        Figure(f"train {rows} x {FEATURES}", trained[0], "s", None, 1),
        Figure("data check, Parquet / CSV", read["parquet"][0] / read["csv"][0], "x", 1.0, 1),
    ]
    return figures


def help_figures(rounds: int) -> list[Figure]:
    """What `edgefleet --help` takes longer than Python itself."""
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(4 * rounds):
        ours.append(seconds(lambda: subprocess.run([sys.executable, "-m", "edgefleet", "--help"], check=True, capture_output=True)))
        bare.append(seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True, capture_output=True)))
    extra = 1000 * (statistics.median(ours) - statistics.median(bare))
    return [Figure("edgefleet --help above python -c pass", extra, "ms", HELP_LIMIT_MS, 4 * rounds)]


def adult_rows(data: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The training rows of `adult`, its texts one-hot."""
    import pandas

    from benchmarks.projects.tables import adult

    rows = adult(str(data)).query("split == 'train'")
    x = pandas.get_dummies(rows.drop(columns=["income", "split", "part"], errors="ignore"), dtype=float).to_numpy(np.float32)
    return np.asarray(x), np.asarray(rows["income"] == ">50K", np.int64)


def wide_table(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of the shape that census data has after one-hot encoding: 5 numbers and 49 columns of 0 and 1."""
    x, y = table(rows)
    rng = np.random.default_rng(1)
    return np.hstack([x[:, :5], (rng.random((rows, 49)) < 0.1).astype(np.float32)]), y


def table(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows with a label that depends on some of them, up to noise."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    score = x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * x[:, 3] ** 2 + rng.normal(0, 1, rows)
    return x, (score > 0.5).astype(np.int64)


def to_frame(x: NDArray[np.float32], y: NDArray[np.int64]) -> Any:
    """The same as a pandas table with the columns f00, f01, ..., label."""
    import pandas

    return pandas.DataFrame(x, columns=[f"f{i:02d}" for i in range(FEATURES)]).assign(label=y)


def write_project(folder: Path, source: str, validation: float) -> None:
    """A project.toml for `to_frame`'s table."""
    names = ", ".join(f'"f{i:02d}"' for i in range(FEATURES))
    (folder / "project.toml").write_text(PROJECT.format(source=source, names=names, validation=validation))


def run_measured(command: list[str]) -> tuple[float, float]:
    """(seconds, peak memory in GB) of a command that must end well; the peak is that of the largest child so far."""
    took = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def seconds(work: Callable[[], object]) -> float:
    """Wall clock of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
