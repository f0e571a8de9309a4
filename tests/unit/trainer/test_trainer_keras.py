import json
from pathlib import Path

import numpy as np
import pytest

from edgefleet.errors import ArtifactError
from tests.unit.trainer.conftest import DIGITS
from trainer import Training, load_project, run_training
from trainer.candidates import Problem, open_model
from trainer.candidates.keras_files import import_keras
from trainer.opened import open_predict

pytestmark = [pytest.mark.keras, pytest.mark.slow]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return run_training(load_project(DIGITS), runs_dir=tmp_path_factory.mktemp("keras"))


def test_the_network_wins_and_both_candidates_are_packaged(both: Training) -> None:
    accuracy = {outcome.name: outcome.candidate.metric["value"] for outcome in both.outcomes}

    assert both.winner == "conv"
    assert accuracy["conv"] >= 0.96
    assert accuracy["forest"] >= 0.90
    assert all(outcome.package is not None for outcome in both.outcomes)
    assert both.package.index.family == "keras"
    assert both.package.index.margin_kind == "logit"


def test_only_the_winner_saw_the_test_rows(both: Training) -> None:
    tests = {o.name: json.loads(o.package.read("evaluation.json"))["test"] for o in both.outcomes if o.package is not None}

    assert tests["forest"] is None
    assert tests["conv"]["metrics"]["accuracy"]["n"] == 708


def test_the_file_loads_with_two_named_outputs_that_agree(both: Training) -> None:
    keras = import_keras()
    rows = both.package.rows("golden")

    model = keras.saving.load_model(both.package.folder / "model.keras", compile=False)
    outputs = {name: tensor.numpy() for name, tensor in model(rows.x, training=False).items()}

    assert model.input_shape == (None, 64)
    assert [tensor.name for tensor in model.inputs] == ["inputs"]
    assert set(outputs) == {"margin", "probabilities"}
    exponent = np.exp(outputs["margin"] - outputs["margin"].max(axis=1, keepdims=True))
    # float32 softmax against numpy's: a few units in the last place of values up to 1.
    assert np.abs(exponent / exponent.sum(axis=1, keepdims=True) - outputs["probabilities"]).max() < 1e-6


def test_the_packaged_network_answers_as_validated(both: Training) -> None:
    parity = both.package.rows("parity")
    validated = next(outcome.candidate for outcome in both.outcomes if outcome.name == "conv")

    answers, expected = open_predict(both.package)(parity.x).probabilities, validated.answers.probabilities
    assert answers is not None
    assert expected is not None
    assert np.array_equal(answers, expected)


def test_equal_training_gives_equal_bytes(both: Training, tmp_path: Path) -> None:
    again = run_training(load_project(DIGITS), candidates=["conv"], runs_dir=tmp_path)

    assert again.package.read("model.keras") == both.package.read("model.keras")
    assert again.package.digest == both.package.digest


@pytest.mark.conversions
def test_a_camera_fault_costs_many_points_and_retraining_wins_them_back(both: Training, tmp_path: Path) -> None:
    from examples.digits import scans

    x, labels = scans.traffic(1, 0, 1, 600, "camera-fault")
    project = load_project(DIGITS, ['data.arguments.situations=["normal", "camera-fault"]'])

    retrained = run_training(project, candidates=["conv"], champion=both.package.folder, runs_dir=tmp_path)

    before = (open_predict(both.package)(x).answers().astype(str) == labels).mean()
    after = (open_predict(retrained.package)(x).answers().astype(str) == labels).mean()
    gates = {gate.gate: gate.verdict for gate in retrained.outcomes[0].candidate.gates}
    assert before < 0.6
    assert after > 0.9
    assert gates["G5"] == "pass"
    assert gates["G7"] == "pass"


def test_a_damaged_network_is_refused() -> None:
    problem = Problem(task="classification", classes=10, shape=(8, 8), seed=1)

    with pytest.raises(ArtifactError, match="no readable Keras model"):
        open_model(b"not a zip", "model.keras", problem)
