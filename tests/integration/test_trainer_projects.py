"""Whole trainings as a user starts them: the examples, a search killed in its middle, other tasks, public data where it is at hand."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.datasets import BASELINES, train_one
from edgefleet.package import ModelPackage
from trainer.limits import LESS_IS_BETTER
from trainer.opened import open_predict

ROOT = Path(__file__).parents[2]
PUBLIC_DATA = Path(os.environ.get("EDGEFLEET_PUBLIC_DATA", ROOT.parent / "shared" / "data"))


def start(project: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "edgefleet", "train", str(project), "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def train(project: Path, *arguments: str) -> dict[str, Any]:
    with start(project, *arguments) as process:
        output, trouble = process.communicate(timeout=280)
    assert process.returncode == 0, trouble[-3000:]
    document: dict[str, Any] = json.loads(output)
    return document


def by_deadline(look: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "nothing happened before the deadline"
        time.sleep(0.02)


@pytest.mark.slow
def test_the_press_example_trains_on_gaps_text_and_machines(tmp_path: Path) -> None:
    document = train(ROOT / "examples" / "press", "--runs-dir", str(tmp_path), "--candidate", "forest")

    package = ModelPackage.open(document["package"])
    golden = package.rows("golden")
    assert document["test"]["value"] > 0.9
    assert package.index.threshold is not None
    assert package.index.threshold < 0.5  # a missed failure costs twenty needless inspections
    assert np.isnan(golden.x).any()  # the golden rows hold missing values
    assert len(open_predict(package)(golden.x)) == len(golden.x)
    assert "Will this press fail" in Path(document["report"]).read_text()


@pytest.mark.slow
def test_the_pump_example_trains_on_windows(tmp_path: Path) -> None:
    document = train(ROOT / "examples" / "pump", "--runs-dir", str(tmp_path), "--candidate", "logistic", "--candidate", "hist_boosting")

    package = ModelPackage.open(document["package"])
    assert package.index.window_rows == 32
    assert package.rows("parity").x.shape[1:] == (32, 4)
    assert document["test"]["value"] > 0.9
    assert {baseline["name"] for baseline in document["baselines"]} == {"majority"}


@pytest.mark.slow
def test_a_training_killed_in_its_search_goes_on_with_no_trial_lost_and_none_twice(tmp_path: Path) -> None:
    small = ["--runs-dir", str(tmp_path), "--candidate", "tree", "--set", "search.trials=8", "--set", "data.arguments={runs=48}"]
    process = start(ROOT / "examples" / "pump", *small)
    by_deadline(lambda: sum(file.read_text().count('"trial"') for file in tmp_path.glob("2*/events.ndjson")) >= 3)
    process.kill()
    process.communicate()
    assert process.returncode != 0

    document = train(ROOT / "examples" / "pump", *small)

    trials = json.loads((Path(document["run"]) / "run.json").read_bytes())["candidates"]["tree"]["trials"]
    here = (Path(document["run"]) / "events.ndjson").read_text().count('"trial"')
    assert [trial["number"] for trial in trials] == list(range(8))
    assert here <= 5  # the three that were done before are not done again


@pytest.mark.slow
def test_a_run_is_reproduced_by_replay(tmp_path: Path) -> None:
    runs = ["--runs-dir", str(tmp_path)]
    first = train(ROOT / "examples" / "pump", *runs, "--candidate", "forest", "--set", "data.arguments={runs=45}")

    replay = train(ROOT / "examples" / "pump", *runs, "--replay", Path(first["run"]).name)

    assert replay["reproduced"] is True
    assert [difference for difference in replay["differences"] if difference["kind"] == "result"] == []


@pytest.mark.parametrize(
    ("task", "label", "goal", "candidate"),
    [
        ("regression", "target", 'metric = "rmse"\nmaximum = 1.5', "ridge"),
        ("anomaly", "kind", 'metric = "auc"\nminimum = 0.8\npositive = "bad"', "isolation_forest"),
        ("rul", "target", 'metric = "mae"\nmaximum = 2.0\ncap = 8.0', "hist_boosting"),
    ],
)
def test_other_tasks_train_to_a_package_that_answers(tmp_path: Path, task: str, label: str, goal: str, candidate: str) -> None:
    rng = np.random.default_rng(1)
    lines = ["a,b,target,kind"]
    for i in range(1_500):
        a, b = rng.normal(5, 1, 2)
        bad = i % 8 == 0
        lines.append(f"{a + 1.8 * bad:.5f},{b + 1.8 * bad:.5f},{max(0, 3 * a - 2 * b + rng.normal(0, 0.3)):.5f},{'bad' if bad else 'ok'}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "project.toml").write_text(
        f'[goal]\nname = "other"\nquestion = "What?"\ntask = "{task}"\n{goal}\n[data]\nsource = "rows.csv"\nlabel = "{label}"\n'
        f'splits = {{ method = "random" }}\n[schema]\nnumbers = ["a", "b"]\n[search]\ncandidates = ["{candidate}"]\n'
        '[gates]\nallow_inconclusive = ["G3", "G4"]\n'
    )

    document = train(tmp_path)

    package = ModelPackage.open(document["package"])
    answers = open_predict(package)(package.rows("parity").x)
    assert package.index.task == ("anomaly" if task == "anomaly" else "regression")
    assert answers.value is not None
    assert np.isfinite(answers.value).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heart", "occupancy", "cmapss"])
def test_a_public_data_set_reaches_its_baseline(tmp_path: Path, name: str) -> None:
    if not (PUBLIC_DATA / name).is_dir():
        pytest.skip(f"the public data set {name} is not here: EDGEFLEET_PUBLIC_DATA names a folder that holds it")

    training = train_one(name, PUBLIC_DATA, tmp_path)

    test = training.test[training.project.goal.metric]
    baseline = BASELINES[name][0]
    level = test["low"] <= baseline if training.project.goal.metric in LESS_IS_BETTER else test["high"] >= baseline
    assert level, test
