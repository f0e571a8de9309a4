"""Networks to ONNX, TFLite and int8: the whole way with TensorFlow in child processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import convert
from converter.conversion import Conversion, Wishes, convert_with_report
from device_agent.runtime import open_runtime
from device_agent.scorer import Scorer
from edgefleet.bundle import Bundle
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage
from tests.unit.converter.converter_packages import PARITY, digits, package

pytestmark = [pytest.mark.keras, pytest.mark.conversions]

# In a process of its own: TensorFlow warns when imported, and its threads would stay for all other tests.
MAKE = """
import sys
import keras, tensorflow as tf
from sklearn.datasets import load_digits
tf.config.threading.set_intra_op_parallelism_threads(1)
keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
layers = keras.layers
inputs = keras.Input((64,), name="inputs")
image = layers.Reshape((8, 8, 1))(layers.Rescaling(1 / 16)(inputs))

def trained(model, steps=12):
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1000].astype("float32"), y[:1000], epochs=steps, verbose=0)
    return model

hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
hidden = layers.Flatten()(layers.MaxPooling2D()(hidden))
margin = layers.Dense(10, name="margin")(hidden)
conv = trained(keras.Model(inputs, layers.Softmax(name="probabilities")(margin)))
keras.Model(inputs, {"margin": margin, "probabilities": conv.output}).save(sys.argv[1] + "/conv.keras")
keras.Sequential([inputs, layers.Rescaling(1 / 16), layers.Dense(10, activation="softmax")]).save(sys.argv[1] + "/fused.keras")
rows = layers.Reshape((8, 8))(inputs)
keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.LSTM(4)(rows))).save(sys.argv[1] + "/recurrent.keras")
bent = keras.ops.arctan(layers.Dense(6)(layers.Rescaling(1 / 16)(inputs)))
keras.Model(inputs, layers.Dense(10, activation="softmax")(bent)).save(sys.argv[1] + "/arctan.keras")
keras.Model(inputs, layers.Dense(10, activation="relu")(hidden)).save(sys.argv[1] + "/relu.keras")
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    done = subprocess.run([sys.executable, "-c", MAKE, str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def network(models: Path, name: str, **changes: Any) -> ModelPackage:
    return package(models / f"package-{name}", "model.keras", (models / f"{name}.keras").read_bytes(), "keras", "logit", **changes)


@pytest.fixture(scope="module")
def conv(models: Path) -> Conversion:
    targets = ["onnx-fp32", "tflite-fp32", "tflite-int8", "tflite-int8-weights"]
    return convert_with_report(network(models, "conv", project={"explain": {"method": "sampled"}}), Wishes(targets, models / "bundle"))


def test_every_variant_of_a_small_network_passes_its_gates(conv: Conversion) -> None:
    assert {report.name: (report.verdict, report.reason) for report in conv.reports} == {
        "onnx-fp32": ("pass", ""),
        "tflite-fp32": ("pass", ""),
        "tflite-int8": ("pass", ""),
        "tflite-int8-weights": ("pass", ""),
    }


def test_fp32_variants_are_exact_and_int8_ones_are_smaller(conv: Conversion) -> None:
    reports = {report.name: report for report in conv.reports}

    for name in ("onnx-fp32", "tflite-fp32"):
        assert (found := reports[name].found) is not None
        assert found.max_error < 1e-5
        assert found.agreed == found.n == 797
    for name in ("tflite-int8", "tflite-int8-weights"):
        assert reports[name].size_bytes < 0.75 * reports["tflite-fp32"].size_bytes


def test_int8_keeps_a_float_interface_with_names_and_a_dynamic_batch(conv: Conversion) -> None:
    x, _ = digits()
    session = open_runtime("litert", conv.bundle.read("tflite-int8.tflite"))

    (details,) = session.raw.get_input_details()
    names = session.raw.get_signature_list()["serving_default"]
    margin, probabilities = session.run(x[:5])

    assert details["dtype"] == np.float32
    assert list(details["shape_signature"]) == [-1, 64]
    assert (names["inputs"], sorted(names["outputs"])) == (["inputs"], ["margin", "probabilities"])
    assert (str(margin.dtype), margin.shape, probabilities.shape) == ("float32", (5, 10), (5, 10))
    assert any(tensor["dtype"] == np.int8 for tensor in session.raw.get_tensor_details())


def test_margins_of_all_variants_are_the_logits(conv: Conversion) -> None:
    x, _ = digits()
    with Scorer.open(conv.bundle, "onnx-fp32") as exact, Scorer.open(conv.bundle, "tflite-int8") as small:
        reference, integer = exact.score_batch(x[PARITY]), small.score_batch(x[PARITY])

    shifted = np.exp(reference.margins - reference.margins.max(axis=1, keepdims=True))
    assert np.allclose(shifted / shifted.sum(axis=1, keepdims=True), reference.probabilities, atol=1e-6)
    # One part in 255 of the range is one step of int8; errors of the layers before add up, the wrong tensor would be off by the range.
    assert np.abs(integer.margins - reference.margins).max() < 0.1 * np.ptp(reference.margins)


def test_networks_are_explained_by_sampling_on_background_rows(conv: Conversion) -> None:
    x, _ = digits()
    with Scorer.open(conv.bundle, "tflite-int8") as scorer:
        explanation = scorer.score(x[1000], explain=True).explanation

    assert explanation is not None
    assert explanation.method == "sampled"
    assert abs(explanation.gap) < 1e-3


def test_the_same_network_gives_the_same_bytes_and_the_command_keeps_stdout_for_its_json(conv: Conversion, models: Path) -> None:
    targets = [argument for report in conv.reports for argument in ("--target", report.name)]
    command = [
        sys.executable,
        "-m",
        "edgefleet",
        "convert",
        str(models / "package-conv"),
        *targets,
        "--output",
        str(models / "again"),
        "--json",
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    document, again = json.loads(done.stdout), Bundle.open(models / "again")
    assert [name for name in again.manifest.files if again.read(name) != (conv.folder / name).read_bytes()] == []
    assert document["digest"] == again.digest == conv.bundle.digest
    assert [(variant["name"], variant["kept"]) for variant in document["variants"]] == [(report.name, True) for report in conv.reports]


def test_a_network_that_ends_in_a_fused_softmax_is_split_into_margin_and_probabilities(models: Path) -> None:
    bundle = convert(network(models, "fused"), ["tflite-fp32"], models / "fused-bundle")

    margin, probabilities = open_runtime("litert", bundle.read("tflite-fp32.tflite")).run(digits()[0][:3])
    shifted = np.exp(margin - margin.max(axis=1, keepdims=True))
    assert np.allclose(shifted / shifted.sum(axis=1, keepdims=True), probabilities, atol=1e-6)
    assert bundle.manifest.mlflow is not None
    assert "MLmodel" not in bundle.manifest.files


def test_a_target_that_fails_says_why_and_does_not_take_the_others_with_it(models: Path) -> None:
    done = convert_with_report(
        network(models, "arctan"), Wishes(["onnx-fp32", "tflite-fp32", "tflite-int8-weights"], models / "arctan-bundle")
    )

    reasons = {report.name: (report.kept, report.reason) for report in done.reports}
    missing = "LiteRT has no operator Atan; use other layers"
    assert reasons == {
        "onnx-fp32": (True, ""),
        "tflite-fp32": (False, f"not converted: {missing}"),
        "tflite-int8-weights": (False, f"not converted: there is no tflite-fp32 to start from: {missing}"),
    }
    assert [variant.name for variant in done.bundle.manifest.variants] == ["onnx-fp32"]


def test_a_recurrent_network_runs_on_both_runtimes(models: Path) -> None:
    done = convert_with_report(network(models, "recurrent"), Wishes(["onnx-fp32", "tflite-fp32"], models / "recurrent-bundle"))

    assert {report.name: (report.kept, report.reason) for report in done.reports} == {"onnx-fp32": (True, ""), "tflite-fp32": (True, "")}
    x, _ = digits()
    with Scorer.open(done.bundle, "onnx-fp32") as one, Scorer.open(done.bundle, "tflite-fp32") as other:
        assert np.abs(one.score_batch(x[PARITY]).probabilities - other.score_batch(x[PARITY]).probabilities).max() < 1e-5


def test_a_network_without_a_margin_is_refused_by_its_last_layer(models: Path) -> None:
    with pytest.raises(VerdictError, match="last layer is Dense with activation 'relu'"):
        convert(network(models, "relu"), None, models / "relu-bundle")
    assert not (models / "relu-bundle").exists()
