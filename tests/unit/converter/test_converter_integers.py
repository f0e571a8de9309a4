"""Small variants of a network of scikit-learn: proven on the device's scorer, smaller, reproducible, and refused where they cannot be."""

from pathlib import Path

import msgspec
import pytest

from converter import Conversion, Wishes, convert_with_report
from converter.isolate import ChildFailed, run_isolated
from converter.quantize.make import why_not
from converter.targets import Job
from edgefleet.package import ModelPackage
from tests.unit.converter.converter_packages import candidate_package

ONNX = ["onnx-fp32", "onnx-fp16", "onnx-int8", "onnx-int8-dynamic"]
TFLITE = ["tflite-fp32", "tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights"]
pytestmark = pytest.mark.keras  # TensorFlow writes the float TFLite file


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return candidate_package(tmp_path_factory.mktemp("mlp") / "package", "mlp", "classification", 2, features=60, rows=3000)


@pytest.fixture(scope="module")
def done(network: ModelPackage) -> Conversion:
    return convert_with_report(network, Wishes([*ONNX, *TFLITE], network.folder.parent / "bundle"))


def test_no_variant_is_wrong_and_every_small_one_is_smaller(done: Conversion) -> None:
    reports = {report.name: report for report in done.reports}

    for name, report in reports.items():
        assert report.verdict in ("pass", "inconclusive") or "too small" in report.reason, (name, report.reason)
    for name in ("onnx-fp16", "onnx-int8", "tflite-int8", "tflite-int8-weights"):
        float_bytes = reports[f"{name.split('-')[0]}-fp32"].size_bytes
        assert 0 < reports[name].size_bytes < float_bytes, name


def test_a_static_variant_tells_which_rows_it_was_calibrated_on(done: Conversion) -> None:
    facts = next(report.facts for report in done.reports if report.name == "onnx-int8")

    assert facts is not None
    assert facts["calibration"]["rows"] >= 16
    assert facts["calibration"]["inputs_covered"] == 60


@pytest.mark.conversions
def test_the_same_package_gives_the_same_integers(network: ModelPackage, done: Conversion, tmp_path: Path) -> None:
    again = convert_with_report(network, Wishes(["onnx-int8", "tflite-int8"], tmp_path / "bundle"))

    for name in ("onnx-int8", "tflite-int8"):
        assert again.bundle.variant(name).model_digest == done.bundle.variant(name).model_digest


def job(network: ModelPackage, done: Conversion, folder: Path, **changes: object) -> Job:
    source = str(done.folder / "onnx-fp32.onnx")
    plain = Job(package=str(network.folder), target="onnx-int8", result=str(folder / "graph"), source=source, folder=str(folder))
    return msgspec.structs.replace(plain, **changes)


def test_layers_are_sorted_by_the_damage_that_integers_do_to_them_and_can_stay_float(
    network: ModelPackage, done: Conversion, tmp_path: Path
) -> None:
    asked = job(network, done, tmp_path)

    layers = run_isolated("converter.quantize.mixed:sensitivity", msgspec.to_builtins(asked), timeout_s=120)["layers"]
    assert len(layers) == 2
    assert [layer["error"] for layer in layers] == sorted((layer["error"] for layer in layers), reverse=True)

    made, refused = [], []
    for layer in layers:
        kept = msgspec.structs.replace(asked, keep_float=[layer["name"]])
        try:
            made.append(run_isolated("converter.quantize.make:make", msgspec.to_builtins(kept), timeout_s=120)["facts"])
        except ChildFailed as err:
            refused.append(err.reason)

    # With the larger layer as float nothing is left that is worth it.
    assert [(facts["quantized_layers"], len(facts["float_layers"])) for facts in made] == [(1, 1)]
    assert "the layers are too small; keep the float one" in str(refused)


def test_too_few_calibration_rows_are_refused_with_their_number(network: ModelPackage, done: Conversion, tmp_path: Path) -> None:
    asked = job(network, done, tmp_path, calibration_rows=9)

    with pytest.raises(ChildFailed, match="9 calibration rows are too few, at least 16 are needed"):
        run_isolated("converter.quantize.make:make", msgspec.to_builtins(asked), timeout_s=120)


def test_what_cannot_be_quantized_is_said_without_opening_the_model(tmp_path: Path) -> None:
    forest = candidate_package(tmp_path / "forest", "forest", "classification", 2, rows=90)
    constant = candidate_package(tmp_path / "constant", "majority", "classification", 2, rows=90)

    assert str(why_not(forest, "onnx-int8")).startswith("trees are not quantized")
    assert str(why_not(constant, "tflite-int8")).startswith("a constant has no weights")
