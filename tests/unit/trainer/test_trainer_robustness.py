from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgefleet.manifest import Input
from tests.unit.trainer.judged import Wanted, some_rows
from trainer.answers import Answers
from trainer.dataset import DataSet
from trainer.gates.robustness import judge_robustness
from trainer.robustness import measure_robustness
from trainer.settings import Gates, Goal

Model = Callable[[np.ndarray], Answers]
INPUTS = [Input(name="a", missing=True), Input(name="b"), Input(name="c", kind="category", categories=["x", "y"])]


def rows() -> DataSet:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=1000), rng.normal(size=1000), rng.integers(2, size=1000)], axis=1).astype(np.float32)
    return some_rows((3 * x[:, 0] + x[:, 1] + rng.normal(size=1000) > 0).astype(np.int64), x=x)


def linear(x: np.ndarray) -> Answers:
    odds = 3 * np.nan_to_num(x[..., 0]).astype(np.float64) + x[..., 1]
    shown = 1 / (1 + np.exp(-odds))
    return Answers(probabilities=np.stack([1 - shown, shown], axis=1))


def measured(model: Model = linear, inputs: list[Input] = INPUTS, metric: str = "accuracy", **limits: float) -> dict[str, dict[str, Any]]:
    wanted = Wanted(goal=Goal(question="q", metric=metric), gates=Gates(robustness_drop=limits), inputs=inputs)  # type: ignore[arg-type]
    some = rows()
    return {one["kind"]: one for one in measure_robustness(wanted, some, model(some.x), model)}


def test_every_disturbance_that_fits_is_measured_once() -> None:
    assert sorted(measured()) == ["dead_sensor", "float32", "missing_20", "missing_5", "noise"]


def test_values_are_only_lost_where_they_may_be_missing() -> None:
    seen: list[np.ndarray] = []

    def model(x: np.ndarray) -> Answers:
        seen.append(np.isnan(x).mean(axis=0))
        return linear(x)

    measured(model)

    assert [share.tolist() for share in seen if share[0] > 0.1] == [[pytest.approx(0.2, abs=0.03), 0.0, 0.0]]
    assert sum(share[0] > 0 for share in seen) == 2
    assert "missing_5" not in measured(inputs=[Input(name="a"), *INPUTS[1:]])


def test_the_worst_dead_sensor_is_named() -> None:
    dead = measured()["dead_sensor"]

    assert dead["what"].startswith("a stuck at ")
    assert dead["value"] > 0.2
    assert dead["verdict"] == "shown"
    assert dead["value"] == dead["drop"]


def test_more_of_a_loss_is_a_drop() -> None:
    assert measured(metric="log_loss")["dead_sensor"]["value"] > 0.2


def test_a_disturbance_within_its_limit_passes_and_one_beyond_fails() -> None:
    found = measured(noise=0.05, dead_sensor=0.05)

    assert (found["noise"]["verdict"], found["dead_sensor"]["verdict"]) == ("pass", "fail")
    assert found["missing_5"]["limit"] is None


def test_noise_is_a_tenth_of_a_deviation_and_stays_in_refused_ranges() -> None:
    seen: list[np.ndarray] = []

    def model(x: np.ndarray) -> Answers:
        seen.append(x)
        return linear(x)

    measured(model, [Input(name="a", low=-1.0, high=1.0, range_policy="reject"), *INPUTS[1:]])
    clean, noisy = seen[0], seen[1]

    assert np.std(noisy[:, 1] - clean[:, 1]) == pytest.approx(0.1 * clean[:, 1].std(), rel=0.1)
    assert np.abs(noisy[:, 0]).max() == 1.0
    assert (noisy[:, 2] == clean[:, 2]).all()  # categories are no numbers


def test_the_last_bit_of_float32_moves_every_number_one_step() -> None:
    seen: list[np.ndarray] = []

    def model(x: np.ndarray) -> Answers:
        seen.append(x)
        return linear(x)

    measured(model, [Input(name="a"), *INPUTS[1:]])
    clean, moved = seen[0], seen[2]

    assert (moved[:, 0] != clean[:, 0]).all()
    assert (np.abs(moved[:, 0] - clean[:, 0]) <= np.spacing(np.abs(clean[:, 0]))).all()


def test_a_model_that_hangs_on_the_last_bit_fails() -> None:
    truth = rows()
    by_value = dict(zip(truth.x[:, 0].tolist(), truth.label.tolist(), strict=True))

    def by_heart(x: np.ndarray) -> Answers:
        return Answers(probabilities=np.eye(2)[[by_value.get(value, 0) for value in x[:, 0].tolist()]])

    assert measured(by_heart, float32=0.01)["float32"]["verdict"] == "fail"


def test_answers_that_become_no_numbers_fail_where_there_is_a_limit() -> None:
    def model(x: np.ndarray) -> Answers:
        shares = linear(x).probabilities
        assert shares is not None
        return Answers(probabilities=np.where(np.isnan(x[:, :1]), np.nan, shares))

    found = measured(model, missing_5=0.5)

    assert (found["missing_5"]["verdict"], found["missing_5"]["value"]) == ("fail", None)
    assert "answers are not finite numbers" in found["missing_5"]["reason"]
    assert found["missing_20"]["verdict"] == "shown"


def test_windows_are_disturbed_over_all_their_rows() -> None:
    some = rows()
    windows = some_rows(some.label, x=np.repeat(some.x[:, None], 4, axis=1))
    wanted = Wanted(inputs=INPUTS)

    def model(x: np.ndarray) -> Answers:
        return linear(x.mean(axis=1, dtype=np.float64))

    found = {one["kind"]: one for one in measure_robustness(wanted, windows, model(windows.x), model)}

    assert found["dead_sensor"]["what"].startswith("a stuck at ")
    assert found["dead_sensor"]["value"] > 0.2


def test_of_many_inputs_the_one_that_matters_is_found() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 100)).astype(np.float32)
    some = some_rows((x[:, 73] > 0).astype(np.int64), x=x)
    inputs = [Input(name=f"i{j}") for j in range(100)]

    def model(x: np.ndarray) -> Answers:
        return Answers(probabilities=np.eye(2)[(x[:, 73] > 0).astype(int)])

    found = {one["kind"]: one for one in measure_robustness(Wanted(inputs=inputs), some, model(x), model)}

    assert found["dead_sensor"]["what"].startswith("i73 stuck at")


def g8(found: dict[str, dict[str, Any]], **limits: float) -> tuple[str, str]:
    gate = judge_robustness(Wanted(gates=Gates(robustness_drop=limits)), list(found.values()), 1000)
    return gate.verdict, gate.sentence


def test_g8_is_the_worst_verdict_of_those_with_a_limit() -> None:
    limits: dict[str, Any] = {"noise": 0.05, "dead_sensor": 0.05}

    verdict, sentence = g8(measured(**limits), **limits)

    assert verdict == "fail"
    assert "Worst of 2 disturbances with a limit (a stuck at " in sentence


def test_g8_without_limits_is_skipped_and_tells_the_largest_drop() -> None:
    verdict, sentence = g8(measured())

    assert verdict == "skipped"
    assert "Largest drop: +0." in sentence


def test_g8_says_which_limit_does_not_apply() -> None:
    inputs = [Input(name="a"), *INPUTS[1:]]
    limits: dict[str, Any] = {"noise": 0.05, "missing_5": 0.05}

    verdict, sentence = g8(measured(inputs=inputs, **limits), **limits)

    assert verdict == "pass"
    assert "Does not apply to these inputs: missing_5" in sentence
    assert g8(measured(inputs=inputs, missing_5=0.1), missing_5=0.1)[0] == "skipped"
