"""A model of windows on a grid from its table to its answers: trained, converted, and asked with rows as they were recorded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest

from device_agent import Scorer
from device_agent.score import Score
from examples.pump.pump import rows
from tests.unit.device_agent.batch_world import environment
from trainer.dataset import DataSet
from trainer.load import load_rows
from trainer.project import load_project

# A training and a conversion, as children.
pytestmark = pytest.mark.conversions

PROJECT = """
[goal]
name = "pump"
question = "What is wrong with this pump?"
metric = "accuracy"
minimum = 0.4
noninferior_margin = 0.5

[data]
source = "rows.csv"
label = "condition"
group = "run"
time = "time_s"
splits = { method = "group", validation = 0.3, test = 0.2, seed = 1 }

[schema]
inputs = [{ name = "pressure_m", missing = true }, { name = "flow_rel" }, { name = "vibration_mm_s", low = 0.0, high = 50.0 }]

[cleaning]
steps = [{ step = "impute", value = "median" }, { step = "scale" }]
window = { rows = 6, rate_s = 2.0, hold = 1, reset_after = 20, stride = 1, features = ["mean", "last", "max"] }

[search]
candidates = ["logistic"]
trials = 1
seed = 1

[gates]
allow_inconclusive = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10"]
"""


def recorded() -> pandas.DataFrame:
    """Pumps' rows at uneven times, with gaps that outlast the hold and some that reset; what is lost was never recorded."""
    table, rng = rows(runs=24, seconds=160, seed=2), np.random.default_rng(3)
    table["time_s"] = 1_790_000_000.0 + table["time_s"] + rng.uniform(0, 0.6, len(table)).round(3)
    lost = rng.random(len(table)) < 0.35
    lost |= (table["time_s"] % 97 < 9).to_numpy()
    start = table.groupby("run")["time_s"].transform("min")
    lost |= (table["time_s"] - start).between(60, 105).to_numpy() & (table["run"].str[-1] == "1").to_numpy()
    return table[~lost].reset_index(drop=True)


def ran(folder: Path, *arguments: str) -> dict[str, str]:
    command = [sys.executable, "-m", "edgefleet", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment(), cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, str] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, DataSet]:
    """Project folder, bundle, and the rows that the trainer saw."""
    folder = tmp_path_factory.mktemp("pump")
    (folder / "project.toml").write_text(PROJECT)
    recorded().to_csv(folder / "rows.csv", index=False)
    package = ran(folder, "train", str(folder))["package"]
    bundle = ran(folder, "convert", package, "--target", "onnx-fp32", "--output", str(folder / "bundle"))["bundle"]
    return folder, Path(bundle), load_rows(load_project(folder))


def test_the_grid_of_the_project_is_in_the_manifest(made: tuple[Path, Path, DataSet]) -> None:
    with Scorer.open(made[1]) as scorer:
        sampling = scorer.bundle.manifest.sampling
    assert sampling is not None
    assert (sampling.rate_s, sampling.hold, sampling.reset_after) == (2.0, 1, 20)
    assert (sampling.time, sampling.group, sampling.present) == ("time_s", "run", ["flow_rel", "vibration_mm_s"])


def test_streamed_rows_are_answered_as_the_trainer_s_own_windows(made: tuple[Path, Path, DataSet]) -> None:
    folder, bundle, trained = made
    table = pandas.read_csv(folder / "rows.csv")
    names = ["pressure_m", "flow_rel", "vibration_mm_s"]
    expected = {int(row): window for row, window in zip(trained.row_id, trained.x, strict=True)}
    compared = missing = 0
    with Scorer.open(bundle) as scorer, Scorer.open(bundle) as judge:
        for _, run in table.groupby("run"):
            stream, before = scorer.stream(), -1
            for row, when, values in zip(run.index, run["time_s"], run[names].to_numpy(np.float32), strict=True):
                complete = stream.push_at(float(when), values)
                if complete and isinstance(complete[0][1], Score):
                    window = expected.pop(before)
                    # One window at a time both ways: the same arithmetic, hence the same bits.
                    assert complete[0][1].margins.tobytes() == judge.score(window).margins.tobytes()
                    compared += 1
                    missing += bool(np.isnan(window[:, 1]).any())
                before = int(row)
    assert expected == {}
    assert compared > 500
    assert missing > 20  # a value that every recorded row had, missing on the grid


def test_the_command_puts_the_rows_of_the_table_on_the_grid(made: tuple[Path, Path, DataSet]) -> None:
    folder, bundle, trained = made
    told = ran(folder, "agent", "score", "--bundle", str(bundle), "rows.csv", "--output", "answers.csv")

    answers = pandas.read_csv(folder / "answers.csv")
    assert int(told["scored"]) == len(trained) == int((answers["status"] == "ok").sum())
    assert int(told["offered"]) == int(told["scored"]) + int(told["warming_up"]) + int(told["gathered"]) == len(answers)
    correct = answers["label"] == pandas.read_csv(folder / "rows.csv")["condition"]
    assert correct[answers["status"] == "ok"].mean() > 0.4
