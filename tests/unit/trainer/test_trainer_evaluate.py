import json
import subprocess
import sys

import numpy as np
import pytest

from edgefleet.errors import InputError
from edgefleet.manifest import Input
from tests.unit.trainer.judged import Wanted, right_and_wrong, right_answers, some_rows
from trainer.answers import Answers
from trainer.evaluate import evaluate
from trainer.metrics import METRICS
from trainer.settings import Gates, Goal

REGRESSION = Wanted(goal=Goal(question="q", task="regression", metric="rmse"))
ANOMALY = Wanted(goal=Goal(question="q", task="anomaly", metric="auc"))


def classified() -> tuple[np.ndarray, Answers]:
    return right_answers(np.random.default_rng(0).random(300) < 0.8)


def test_every_metric_of_the_task_has_an_interval() -> None:
    label, answers = classified()

    found = evaluate(Wanted(), some_rows(label), answers)["metrics"]

    assert set(found) == {"accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "log_loss", "brier", "mean_cost"}
    for name, one in found.items():
        assert one["value"] == pytest.approx(METRICS[name](label, answers, ["no", "yes"]), abs=1e-12), name
        assert one["low"] < one["value"] < one["high"], name
        assert (one["n"], one["reason"]) == (300, ""), name


@pytest.mark.parametrize("task", ["classification", "regression", "anomaly", "one class", "one group", "one row"])
def test_an_evaluation_is_plain_json_without_nan(task: str) -> None:
    label, answers = classified()
    wanted, rows = Wanted(), some_rows(label, slices={"s": np.array(["a", "b"] * 150)})
    if task == "regression":
        label = np.random.default_rng(1).normal(size=300)
        wanted, rows, answers = REGRESSION, some_rows(label, []), Answers(value=label + 1)
    if task == "anomaly":
        wanted, answers = ANOMALY, Answers(value=answers.probabilities[:, 1] if answers.probabilities is not None else None)
    if task == "one class":
        rows = some_rows(np.zeros(300, np.int64))
    if task == "one group":
        rows = some_rows(label, group=np.full(300, "g"))
    if task == "one row":
        rows, answers = some_rows(label[:1]), answers.take(np.arange(1))

    found = evaluate(wanted, rows, answers)

    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_metric_that_is_not_defined_has_no_value_and_says_why() -> None:
    found = evaluate(Wanted(), some_rows(np.zeros(300, np.int64)), classified()[1])["metrics"]["auc"]

    assert found["value"] is None
    assert found["reason"] == "the rarest class has 0 rows, fewer than 50"


def test_the_confusion_counts_true_by_answered() -> None:
    label = np.array([0, 0, 0, 1, 1, 2])
    answers = Answers(probabilities=np.eye(3)[[0, 0, 1, 1, 2, 0]])

    found = evaluate(Wanted(), some_rows(label, ["a", "b", "c"]), answers)["confusion"]

    assert found == {"classes": ["a", "b", "c"], "counts": [[2, 1, 0], [0, 1, 1], [1, 0, 0]]}


def test_the_worst_errors_come_first_with_their_inputs_in_words() -> None:
    label = np.array([0, 1, 0, 1])
    answers = Answers(probabilities=np.array([[0.4, 0.6], [0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]))
    x = np.array([[1.5, 0], [np.nan, 1], [0, 0], [0, -1]], np.float32)
    wanted = Wanted(inputs=[Input(name="n", missing=True), Input(name="c", kind="category", categories=["red", "blue"])])

    found = evaluate(wanted, some_rows(label, x=x), answers)["errors"]

    assert found == [
        {"row_id": "r1", "label": "yes", "answer": "no", "score": 0.9, "inputs": {"n": None, "c": "blue"}},
        {"row_id": "r0", "label": "no", "answer": "yes", "score": 0.6, "inputs": {"n": 1.5, "c": "red"}},
    ]


def test_at_most_twelve_errors_and_five_hundred_residuals_are_kept() -> None:
    label = np.random.default_rng(2).normal(size=2000)
    error = np.random.default_rng(3).normal(size=2000)

    found = evaluate(REGRESSION, some_rows(label, []), Answers(value=label + error))

    assert [one["score"] for one in found["errors"]] == pytest.approx(np.sort(np.abs(error))[::-1][:12])
    assert len(found["residuals"]["predicted"]) == len(found["residuals"]["actual"]) == 500
    assert (found["confusion"], found["calibration"]) == ({}, {})


def test_a_detector_without_threshold_is_ranked_and_decides_nothing() -> None:
    label = (np.arange(200) < 60).astype(np.int64)
    score = np.random.default_rng(4).random(200) + label
    score[0] = -1.0

    found = evaluate(ANOMALY, some_rows(label, ["normal", "strange"]), Answers(value=score))

    assert set(found["metrics"]) == {"auc", "average_precision"}
    assert (found["confusion"], found["slices"]) == ({}, [])
    assert (found["errors"][0]["row_id"], found["errors"][0]["answer"]) == ("r0", "undecided")


def test_a_threshold_decides() -> None:
    label = (np.arange(200) < 60).astype(np.int64)
    answers = Answers(value=np.random.default_rng(5).random(200) + label, threshold=0.9)

    found = evaluate(ANOMALY, some_rows(label, ["normal", "strange"]), answers)

    assert sum(map(sum, found["confusion"]["counts"])) == 200
    assert {one["answer"] for one in found["errors"]} <= {"normal", "strange"}


def test_slices_carry_the_verdict_of_their_limit() -> None:
    label, answers = right_answers(np.concatenate([right_and_wrong(98, 2), right_and_wrong(50, 50)]))
    rows = some_rows(label, slices={"time": np.repeat(["day", "night"], 100)})

    without = evaluate(Wanted(), rows, answers)["slices"]
    judged = evaluate(Wanted(gates=Gates(slice_minimum=0.8)), rows, answers)["slices"]

    assert [one["verdict"] for one in without[:2]] == ["", ""]
    assert [(one["name"], one["verdict"]) for one in judged[:2]] == [("day", "pass"), ("night", "fail")]


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="3 of 3 answers are not finite"):
        evaluate(REGRESSION, some_rows(np.zeros(3), []), Answers(value=np.full(3, np.nan)))


def test_judging_imports_no_heavy_library() -> None:
    program = "import sys, trainer.evaluate, trainer.gates, trainer.threshold; print({'sklearn', 'scipy', 'pandas'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
