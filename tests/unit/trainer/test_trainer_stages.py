"""What each step of a training depends on: a setting that its outcome reads is part of its key."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.trainer.conftest import TINY, tiny_rows
from trainer import Training, load_project, run_training

Tiny = Callable[..., Path]
SEARCHED = f"{TINY}trials = 2\n"


def ran(training: Training) -> set[str]:
    """Steps that were not taken from the cache."""
    return {name for name, why in training.steps.items() if not why.startswith("unchanged")}


@pytest.mark.parametrize(
    ("text", "changed", "steps"),
    [
        (TINY, f"{TINY}\n[gates]\nslice_minimum = 0.3\n", {"judge forest", "test"}),
        (TINY, TINY.replace("missing = true", "missing = true, low = -90.0"), {"judge rows", "judge forest", "test", "clean for trees"}),
        (SEARCHED, SEARCHED.replace("block_rows", 'class_weight = "balanced"\nblock_rows'), {"search forest", "fit forest"}),
        (SEARCHED, f'{SEARCHED}\n[gates]\ncalibrate = "sigmoid"\n', {"search forest", "judge forest", "test"}),
    ],
)
def test_a_changed_setting_runs_the_steps_that_read_it(tiny: Tiny, text: str, changed: str, steps: set[str]) -> None:
    run_training(load_project(tiny(text=text)))

    again = run_training(load_project(tiny(text=changed)))

    assert steps <= ran(again)


def test_an_unchanged_repeat_runs_nothing(tiny: Tiny) -> None:
    folder = tiny(text=SEARCHED)
    run_training(load_project(folder))

    assert ran(run_training(load_project(folder))) == set()


ANOMALY = """
[goal]
name = "strange"
question = "Is this one strange?"
task = "anomaly"
metric = "f1"
minimum = 0.1
positive = "odd"
max_false_alarm_fraction = 0.05

[data]
source = "rows.csv"
id = "row_id"

[schema]
numbers = ["a", "b"]

[search]
candidates = ["isolation_forest"]
trials = 2
seed = 1
"""


def odd_rows() -> list[str]:
    """600 CSV lines, every fifth row further out."""
    rng = np.random.default_rng(3)
    lines = ["a,b,label,split,row_id"]
    for i in range(600):
        odd = i % 5 == 0
        a, b = rng.normal(1.8 * odd, 1, 2)
        lines.append(f"{a:.5f},{b:.5f},{'odd' if odd else 'usual'},{('train', 'validation', 'test')[i % 3]},row-{i}")
    return lines


def test_a_search_of_detectors_scores_decisions_as_the_gates_judge_them(tiny: Tiny) -> None:
    found = run_training(load_project(tiny(odd_rows(), ANOMALY))).outcomes[0].candidate

    assert found.metric["value"] > 0.5
    assert max(trial["value"] for trial in found.trials) == pytest.approx(found.metric["value"], abs=1e-12)


def test_a_binary_training_may_ask_for_sigmoid_calibration(tiny: Tiny) -> None:
    # The majority baseline answers one probability to every row, and must not stop the training.
    lines = [line.replace(",z,", ",y,") for line in tiny_rows()]

    training = run_training(load_project(tiny(lines, f'{TINY}\n[gates]\ncalibrate = "sigmoid"\n')))

    assert training.outcomes[0].candidate.decision["calibrator"]["kind"] == "sigmoid"


def test_a_detector_can_follow_a_champion(tiny: Tiny) -> None:
    project = load_project(tiny(odd_rows(), ANOMALY.replace("trials = 2\n", "")))

    again = run_training(project, champion=run_training(project).package.folder)

    assert {gate.gate: gate.verdict for gate in again.outcomes[0].candidate.gates}["G7"] == "pass"


def test_a_champion_of_the_other_positive_class_is_compared_about_one_class(tiny: Tiny) -> None:
    # Its scores rank the other class: compared as they come, the AUC of an equal model is turned round.
    lines = [line.replace(",z,", ",y,") for line in tiny_rows()]
    text = TINY.replace("minimum = 0.6", 'metric = "auc"\nminimum = 0.6\npositive = "{}"')
    champion = run_training(load_project(tiny(lines, text.replace("{}", "x")))).package.folder

    again = run_training(load_project(tiny(lines, text.replace("{}", "y"))), champion=champion)

    gate = next(gate for gate in again.outcomes[0].candidate.gates if gate.gate == "G7")
    assert gate.verdict == "pass"
    assert gate.value == pytest.approx(0.0, abs=1e-9)


def test_the_package_names_the_commit_of_its_project(tiny: Tiny) -> None:
    folder = tiny()
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    (folder / ".gitignore").write_text("runs\n")
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "rows"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, timeout=60)
    commit = (
        subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, timeout=60).stdout.decode().strip()
    )

    clean = run_training(load_project(folder)).package
    (folder / "note.txt").write_text("not committed")
    dirty = run_training(load_project(folder)).package

    assert [json.loads(package.read("provenance.json"))["git_commit"] for package in (clean, dirty)] == [commit, f"{commit}-dirty"]
