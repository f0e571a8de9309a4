"""The networks of Keras on small rows: what they learn, their named outputs, and that their files are what answers."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, ConfigError
from edgefleet.manifest import Task
from trainer.candidates import CANDIDATES, Problem, fit, open_model
from trainer.candidates.keras_files import import_keras
from trainer.search import search
from trainer.settings import Search

pytestmark = [pytest.mark.keras, pytest.mark.slow]

WINDOW = (6, 4)
WINDOWED = ["dense", "conv1d", "lstm", "gru"]
SHORT: dict[str, Any] = {"steps": 300, "learning_rate": 0.01}
Sides = tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32], NDArray[Any]]


def problem(task: Task, classes: int = 0, shape: tuple[int, ...] = WINDOW) -> Problem:
    return Problem(task=task, classes=classes, shape=shape, seed=3)


def windows(task: Task, classes: int = 2) -> Sides:
    """400 training and 200 validation windows, of inputs of very different sizes; the answer is a trend and a last value."""
    rng = np.random.default_rng(1)
    plain = rng.normal(size=(600, *WINDOW))
    signal = plain[:, :, 0].mean(axis=1) * 2 + plain[:, -1, 2]
    label: NDArray[Any] = np.digitize(signal, [0.0] if classes == 2 else [-0.6, 0.6]).astype(np.int64)
    if task == "regression":
        label = 500 + 20 * signal
    if task == "anomaly":
        label = np.zeros(600, np.int64)
        label[::15] = 1
        # Normal rows repeat themselves: the second half of each window is the first again, up to noise.
        plain[:, 3:] = plain[:, :3] + rng.normal(0, 0.1, (600, 3, 4))
        plain[::15, 3:] = rng.normal(size=(40, 3, 4))
    z = (plain * [1, 50, 0.1, 1] + [0, 3000, 0, 2]).astype(np.float32)
    return z[:400], label[:400], z[400:], label[400:]


def images(classes: int) -> Sides:
    """200 training and 100 validation flat images of 8 x 8; the class is the bright quarter."""
    rng = np.random.default_rng(2)
    label = rng.integers(0, classes, 300)
    z = rng.uniform(0, 8, (300, 8, 8))
    for row, quarter in enumerate(label):
        z[row, 4 * (quarter // 2) :, 4 * (quarter % 2) :][:4, :4] += 6
    flat = z.reshape(300, 64).astype(np.float32)
    return flat[:200], label[:200], flat[200:], label[200:]


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("classes", [2, 3])
def test_networks_learn_classes_from_windows(name: str, classes: int) -> None:
    z, label, z_validation, validation = windows("classification", classes)

    fitted = fit(name, z, label, problem("classification", classes), parameters=SHORT, validation=(z_validation, validation))

    probabilities = fitted.predict(z_validation)
    assert probabilities.shape == (200, classes)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)  # a float32 softmax
    assert (probabilities.argmax(axis=1) == validation).mean() > np.bincount(validation).max() / 200 + 0.2
    assert fitted.family == "keras"
    assert fitted.margin_kind == "logit"
    assert set(fitted.curve[-1]) == {"step", "loss", "validation"}


@pytest.mark.parametrize("name", WINDOWED)
def test_networks_learn_values_in_the_units_of_the_target(name: str) -> None:
    z, label, z_validation, validation = windows("regression")

    fitted = fit(name, z, label, problem("regression"), parameters=SHORT, validation=(z_validation, validation))

    assert fitted.predict(z_validation).shape == (200,)
    assert np.square(fitted.predict(z_validation) - validation).mean() < 0.5 * validation.var()
    assert fitted.margin_kind == "target unit"


def test_an_autoencoder_scores_strange_windows_higher_and_learns_from_normal_ones_only() -> None:
    z, label, z_validation, validation = windows("anomaly")
    settings = {"steps": 1500, "learning_rate": 0.01, "code_fraction": 0.5}

    fitted = fit("autoencoder", z, label, problem("anomaly"), parameters=settings, validation=(z_validation, validation))
    normal = (z_validation[validation == 0], validation[validation == 0])
    without = fit("autoencoder", z[label == 0], label[label == 0], problem("anomaly"), parameters=settings, validation=normal)

    score = fitted.predict(z_validation)
    assert np.median(score[validation == 1]) > 1.5 * np.median(score[validation == 0])
    assert fitted.margin_kind == "anomaly score"
    assert fitted.content == without.content


def test_the_score_of_an_autoencoder_is_the_mean_squared_error_of_its_repetition() -> None:
    z, label, z_validation, _ = windows("anomaly")
    fitted = fit("autoencoder", z, label, problem("anomaly"), parameters=SHORT)
    keras = import_keras()

    model = _model(fitted.content)
    inner = keras.Model(model.inputs[0], [model.get_layer("flatten").output, model.get_layer("repeated").output])
    scaled, repeated = (tensor.numpy() for tensor in inner(z_validation, training=False))

    # float32 sums of 24 squares in another order.
    assert np.allclose(fitted.predict(z_validation), np.square(scaled - repeated).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_conv_learns_images_from_flat_rows(classes: int) -> None:
    z, label, z_validation, validation = images(classes)

    fitted = fit("conv", z, label, problem("classification", classes, (8, 8)), parameters=SHORT)

    assert (fitted.predict(z_validation).argmax(axis=1) == validation).mean() > 0.9
    assert _model(fitted.content).input_shape == (None, 64)


def test_conv_learns_a_value() -> None:
    z, label, z_validation, validation = images(4)

    fitted = fit("conv", z, label.astype(np.float64), problem("regression", 0, (8, 8)), parameters=SHORT)

    assert np.square(fitted.predict(z_validation) - validation).mean() < 0.3 * validation.var()


@pytest.mark.parametrize(("name", "task", "outputs"), [
    ("dense", "classification", {"margin": 1, "probabilities": 2}),
    ("gru", "regression", {"value": 1}),
    ("autoencoder", "anomaly", {"score": 1}),
])  # fmt: skip
def test_outputs_have_their_names_and_widths(name: str, task: Task, outputs: dict[str, int]) -> None:
    z, label, _, _ = windows(task)

    model = _model(fit(name, z, label, problem(task, 2 if task == "classification" else 0), parameters={"steps": 10}).content)

    assert {name: tensor.shape[-1] for name, tensor in zip(model.output_names, model.outputs, strict=True)} == outputs
    assert [tensor.name for tensor in model.inputs] == ["inputs"]


def test_two_classes_have_one_margin_the_logit_of_the_second() -> None:
    z, label, z_validation, _ = windows("classification")
    fitted = fit("dense", z, label, problem("classification", 2), parameters=SHORT)

    outputs = {name: tensor.numpy() for name, tensor in _model(fitted.content)(z_validation, training=False).items()}

    # float32: a few units in the last place of values up to 1.
    assert np.abs(1 / (1 + np.exp(-outputs["margin"][:, 0])) - outputs["probabilities"][:, 1]).max() < 1e-6


@pytest.mark.parametrize("name", [name for name, candidate in CANDIDATES.items() if candidate.library == "keras"])
def test_equal_training_gives_equal_bytes_and_the_file_answers(name: str) -> None:
    task = CANDIDATES[name].tasks[0]
    z, label, z_validation, _ = images(4) if name == "conv" else windows(task)
    asked = problem("classification", 4, (8, 8)) if name == "conv" else problem(task, 2 if task == "classification" else 0)

    one, two = (fit(name, z, label, asked, parameters={"steps": 30}) for _ in range(2))

    assert one.content == two.content
    assert np.array_equal(open_model(two.content, "model.keras", asked)(z_validation), one.predict(z_validation))
    assert one.size_bytes == 4 * one.parameters["weights"]
    assert one.latency_us > 3


@pytest.mark.parametrize("name", ["conv1d", "gru"])
def test_flat_windows_are_taken_in_the_problem_s_shape(name: str) -> None:
    z, label, z_validation, _ = windows("classification")

    whole = fit(name, z, label, problem("classification", 2), parameters={"steps": 30})
    flat = fit(name, z.reshape(400, -1), label, problem("classification", 2), parameters={"steps": 30})

    assert np.array_equal(whole.predict(z_validation), flat.predict(z_validation.reshape(200, -1)))


@pytest.mark.parametrize(("name", "task"), [("majority", "classification"), ("mean", "regression"), ("mahalanobis", "anomaly")])
def test_a_baseline_takes_whole_windows_so_that_networks_have_something_to_beat(name: str, task: Task) -> None:
    z, label, z_validation, _ = windows(task)
    classes = 2 if task == "classification" else 0

    whole = fit(name, z, label, problem(task, classes))
    flat = fit(name, z.reshape(400, -1), label, problem(task, classes, (24,)))

    assert np.array_equal(whole.predict(z_validation), flat.predict(z_validation.reshape(200, -1)))


def test_training_stops_where_the_validation_loss_stops_falling_and_keeps_the_best_weights() -> None:
    z, label, z_validation, _ = windows("classification")
    noise = np.random.default_rng(0).integers(0, 2, 200)
    settings = {"steps": 3000, "patience": 3, "learning_rate": 0.01}

    fitted = fit("dense", z, label, problem("classification", 2), parameters=settings, validation=(z_validation, noise))

    losses = [entry["validation"] for entry in fitted.curve]
    answered = fitted.predict(z_validation)[np.arange(200), noise]
    assert len(losses) == int(np.argmin(losses)) + 1 + 3
    assert len(losses) < 60
    # The epoch's loss is a float32 mean over batches, ours one of float64.
    assert -np.log(answered).mean() == pytest.approx(min(losses), rel=1e-4)


def test_weights_of_rows_change_what_is_learnt() -> None:
    z, label, z_validation, _ = windows("classification")
    weight = np.where(label == 1, 20.0, 1.0)

    plain = fit("dense", z, label, problem("classification", 2), parameters=SHORT).predict(z_validation)
    weighted = fit("dense", z, label, problem("classification", 2), parameters=SHORT, weight=weight).predict(z_validation)

    assert weighted[:, 1].mean() > plain[:, 1].mean()


def test_a_training_ends_when_it_is_told_to() -> None:
    z, label, z_validation, validation = windows("classification")

    fitted = fit(
        "dense",
        z,
        label,
        problem("classification", 2),
        parameters=SHORT,
        validation=(z_validation, validation),
        progress=lambda step, _: step < 4,
    )

    assert len(fitted.curve) == 4


@pytest.mark.conversions
def test_a_search_prunes_networks_that_fall_behind(tmp_path: Any) -> None:
    z, label, z_validation, validation = windows("classification")
    fixed = {"dense": {"steps": 100, "layers": 1, "dropout": 0.0}}

    result = search(
        "dense",
        (z, label, None),
        (z_validation, validation),
        problem("classification", 2),
        Search(candidates=["dense"], trials=10, seed=1, parameters=fixed),
        lambda predict: float((predict(z_validation).argmax(axis=1) == validation).mean()),
        True,
        f"sqlite:///{tmp_path}/search.db",
        "dense",
    )

    states = [trial["state"] for trial in result.trials]
    assert states[:5] == ["complete"] * 5
    assert "pruned" in states
    assert result.value == max(trial["value"] for trial in result.trials if trial["state"] == "complete")


def test_what_a_network_cannot_take_is_refused() -> None:
    z, label, _, _ = windows("classification")
    z[3, 2, 1] = np.nan

    with pytest.raises(ConfigError, match="'gru' cannot take missing values, 1 of 400 rows have some; add the cleaning step `impute`"):
        fit("gru", z, label, problem("classification", 2))
    with pytest.raises(ConfigError, match="'lstm' needs windows"):
        fit("lstm", z.reshape(400, -1), label, problem("classification", 2, (24,)))


def test_a_damaged_network_or_one_for_another_problem_is_refused() -> None:
    z, label, _, _ = windows("classification")
    content = fit("dense", z, label, problem("classification", 2), parameters={"steps": 10}).content

    with pytest.raises(ArtifactError, match="no readable Keras model"):
        open_model(b"not a zip", "model.keras", problem("classification", 2))
    with pytest.raises(ArtifactError, match="no readable Keras model"):
        open_model(content[: len(content) // 2], "model.keras", problem("classification", 2))
    with pytest.raises(ArtifactError, match="answers 2 classes, expected 3"):
        open_model(content, "model.keras", problem("classification", 3))
    with pytest.raises(ArtifactError, match="expected one named 'value'"):
        open_model(content, "model.keras", problem("regression"))


def _model(content: bytes) -> Any:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        return import_keras().saving.load_model(path, compile=False)
