"""What each step of a training depends on: a setting that its outcome reads is part of its key."""

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


def test_a_search_of_detectors_scores_decisions_as_the_gates_judge_them(tiny: Tiny) -> None:
    rng = np.random.default_rng(3)
    lines = ["a,b,label,split,row_id"]
    for i in range(600):
        odd = i % 5 == 0
        a, b = rng.normal(1.8 * odd, 1, 2)
        lines.append(f"{a:.5f},{b:.5f},{'odd' if odd else 'usual'},{('train', 'validation', 'test')[i % 3]},row-{i}")

    found = run_training(load_project(tiny(lines, ANOMALY))).outcomes[0].candidate

    assert found.metric["value"] > 0.5
    assert max(trial["value"] for trial in found.trials) == pytest.approx(found.metric["value"], abs=1e-12)


def test_a_binary_training_may_ask_for_sigmoid_calibration(tiny: Tiny) -> None:
    # The majority baseline answers one probability to every row, and must not stop the training.
    lines = [line.replace(",z,", ",y,") for line in tiny_rows()]

    training = run_training(load_project(tiny(lines, f'{TINY}\n[gates]\ncalibrate = "sigmoid"\n')))

    assert training.outcomes[0].candidate.decision["calibrator"]["kind"] == "sigmoid"
