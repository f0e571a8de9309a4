"""Packages with cleaning steps: the bundle takes raw rows, in one file with the model, and answers as the original behind its steps."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converter import convert
from converter.cleaned import cleaned_inputs, may_be_missing
from converter.conversion import Conversion, Wishes, convert_with_report
from converter.originals import load_estimator
from device_agent.scorer import Scorer
from edgefleet.errors import VerdictError
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage, Rows, write_package
from edgefleet.reference import build_reference
from edgefleet.steps import Steps
from tests.unit.trainer.cleaning_cases import ENCODED, INPUTS, ROWS, hard_rows, step
from trainer.cleaning import compile_steps
from trainer.settings import Cleaning, CleaningStep, Window

FULL = ROWS["everything"]
X = hard_rows(1600, seed=3)
LABEL = ((np.nan_to_num(X[:, 0]) > 0).astype(np.int64) + (np.nan_to_num(X[:, 4]) == 1)).astype(np.int64)
CLASSES = ["low", "high", "both"]


def cleaning(declared: list[CleaningStep]) -> Steps:
    return compile_steps(Cleaning(steps=declared), INPUTS, X[:1000])


def package(folder: Path, steps: Steps, model: str, content: bytes, family: str, kind: str, **changes: Any) -> ModelPackage:
    from edgefleet.package import PackageIndex

    def rows(first: int, stop: int) -> bytes:
        ids = np.arange(first, stop).astype(str)
        return Rows(X[first:stop], LABEL[first:stop], np.full(stop - first, "all"), ids).to_bytes()

    files = {
        model: content,
        "steps.json": steps.to_json(),
        "schema.json": msgspec.json.encode(INPUTS),
        "reference.npz": build_reference(X[:1000], INPUTS, block_rows=20).to_bytes(),
        "rows/golden.npz": rows(1000, 1032),
        "rows/parity.npz": rows(1000, 1600),
        "rows/calibration.npz": rows(0, 300),
        "rows/background.npz": rows(300, 316),
        "evaluation.json": b"{}\n",
        "gates.json": b"[]\n",
        "provenance.json": msgspec.json.encode({"project": changes.pop("project", {})}),
        "card.md": b"# pump\n",
    }
    index = PackageIndex(
        format_version=1, project="pump", task="classification", model=model, family=family, margin_kind=kind,
        classes=CLASSES, shape=[len(INPUTS)], overrides=[], files={}, **changes,
    )  # fmt: skip
    return write_package(folder, index, files)


def trees(folder: Path, family: str, declared: list[CleaningStep], **changes: Any) -> ModelPackage:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    steps = cleaning(declared)
    forest = RandomForestClassifier(20, max_depth=6, random_state=0)
    model = forest if family == "forest" else HistGradientBoostingClassifier(max_iter=20, random_state=0)
    model.fit(steps.run(X[:1000]).astype(np.float64), LABEL[:1000])
    kind = "mean leaf probability" if family == "forest" else "log-odds"
    return package(folder, steps, "model.skops", skops.io.dumps(model), family, kind, **changes)


@pytest.mark.parametrize("family", [pytest.param("forest", marks=pytest.mark.conversions), "boosting"])
def test_trees_behind_their_steps_answer_raw_rows_exactly(family: str, tmp_path: Path) -> None:
    opened = trees(tmp_path / "package", family, FULL)
    (report,) = convert_with_report(opened, Wishes(["onnx-fp32"], tmp_path / "bundle")).reports
    want = load_estimator(opened).predict_proba(opened.steps().run(X[1000:]).astype(np.float64))

    with Scorer.open(tmp_path / "bundle", "onnx-fp32") as scorer:
        batch, single = scorer.score_batch(X[1000:]), scorer.score(X[1007], explain=True)

    assert np.isnan(X[1000:]).any()
    assert (report.verdict, report.reason) == ("pass", "")
    assert np.abs(batch.probabilities - want).max() < 1e-6
    assert single.explanation is not None
    assert single.explanation.method == "treeshap"
    assert abs(single.explanation.gap) < 1e-5
    assert list(single.explanation.names) == [column.name for column in INPUTS]


@pytest.mark.conversions
def test_the_same_package_gives_the_same_bundle(tmp_path: Path) -> None:
    opened = trees(tmp_path / "package", "boosting", FULL)

    assert convert(opened, ["onnx-fp32"], tmp_path / "one").digest == convert(opened, ["onnx-fp32"], tmp_path / "two").digest


@pytest.mark.conversions
def test_a_forest_whose_steps_leave_gaps_sends_them_where_the_original_does(tmp_path: Path) -> None:
    opened = trees(tmp_path / "left", "forest", [step("impute", "load", "flow"), step("drop", "size", "colour")])
    assert "pressure" in may_be_missing(opened.steps(), INPUTS)

    (report,) = convert_with_report(opened, Wishes(["onnx-fp32"], tmp_path / "bundle")).reports

    assert (report.verdict, report.reason) == ("pass", "")


def windows(folder: Path) -> ModelPackage:
    """Histogram boosting over what windows of four rows say."""
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    rows = X.reshape(400, 4, 6)
    label = LABEL.reshape(400, 4)[:, -1]
    steps = compile_steps(Cleaning(window=Window(rows=4, features=["last", "missing_count"])), INPUTS, rows[:250])
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0)
    model.fit(steps.run(rows[:250]).reshape(250, -1).astype(np.float64), label[:250])
    flat = package(folder / "flat", steps, "model.skops", skops.io.dumps(model), "hist_boosting", "log-odds", window_rows=4)

    def row_set(where: slice) -> bytes:
        ids = np.arange(where.start, where.stop).astype(str)
        return Rows(rows[where], label[where], np.full(len(ids), "all"), ids).to_bytes()

    sets = {"golden": slice(250, 282), "parity": slice(250, 400), "calibration": slice(0, 250), "background": slice(0, 16)}
    files = {name: flat.read(name) for name in flat.index.files} | {f"rows/{name}.npz": row_set(where) for name, where in sets.items()}
    return write_package(folder / "windows", msgspec.structs.replace(flat.index, files={}), files)


def test_windows_are_scored_as_windows_and_explained_by_input(tmp_path: Path) -> None:
    opened = windows(tmp_path)

    done = convert_with_report(opened, Wishes(["onnx-fp32"], tmp_path / "bundle"))

    assert (done.reports[0].verdict, done.reports[0].reason) == ("pass", "")
    assert done.bundle.manifest.window_rows == 4
    with Scorer.open(done.bundle) as scorer:
        score = scorer.score(opened.rows("parity").x[0], explain=True)
    assert score.explanation is not None
    assert list(score.explanation.names) == [column.name for column in INPUTS]
    assert abs(score.explanation.gap) < 1e-4


def test_a_damaged_calibrator_is_refused_by_its_name(tmp_path: Path) -> None:
    opened = trees(tmp_path / "package", "boosting", FULL)
    files = {name: opened.read(name) for name in opened.index.files} | {"calibrator.json": b"{}"}
    calibrated = write_package(tmp_path / "calibrated", msgspec.structs.replace(opened.index, files={}), files)

    with pytest.raises(VerdictError, match=r"calibrator\.json is damaged"):
        convert(calibrated, ["onnx-fp32"], tmp_path / "bundle")


@pytest.mark.parametrize(
    ("declared", "missing"),
    [
        ([], ["load", "flow", "pressure", "colour", "size"]),
        ([step("impute"), step("one_hot")], []),
        ([step("impute"), step("ordinal")], ["colour", "size"]),
        ([step("indicator", "load"), step("impute", "flow"), step("drop", "colour", "size")], ["load", "pressure"]),
    ],
)
def test_which_cleaned_columns_may_be_missing_is_found_by_looking(declared: list[CleaningStep], missing: list[str]) -> None:
    steps = cleaning(declared)

    assert may_be_missing(steps, INPUTS) == missing
    assert [column.name for column in cleaned_inputs(steps, INPUTS) if column.missing] == missing


def test_an_unseen_category_shows_a_gap_although_the_schema_allows_none() -> None:
    inputs = [Input(name="k", kind="category", categories=["x", "y"])]
    steps = compile_steps(Cleaning(steps=[step("ordinal")]), inputs, np.array([[0], [1]], np.float32))

    assert may_be_missing(steps, inputs) == ["k"]


MAKE = """
import sys
import keras, numpy as np
keras.utils.set_random_seed(0)
z, y = np.load(sys.argv[1] + "/z.npy"), np.load(sys.argv[1] + "/y.npy")
inputs = keras.Input((z.shape[1],), name="inputs")
hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Dense(32, activation="relu")(inputs))
model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
model.fit(z, y, epochs=20, verbose=0)
model.save(sys.argv[1] + "/model.keras")
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPackage, Conversion]:
    folder = tmp_path_factory.mktemp("network")
    # Clipped to its quantiles, because 32 units trained for a second do not forgive columns with values of 1e6.
    steps = cleaning([*ENCODED, step("clip", "load", "flow", low=0.1, high=0.9, quantile=True), step("scale", "load", "flow", "pressure")])
    np.save(folder / "z.npy", steps.run(X[:1000]))
    np.save(folder / "y.npy", LABEL[:1000])
    done = subprocess.run([sys.executable, "-c", MAKE, str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    opened = package(folder / "package", steps, "model.keras", (folder / "model.keras").read_bytes(), "keras", "logit")
    targets = ["onnx-fp32", "tflite-fp32", "tflite-int8", "tflite-int8-weights"]
    return opened, convert_with_report(opened, Wishes(targets, folder / "bundle"))


@pytest.mark.keras
@pytest.mark.slow
def test_a_network_and_its_steps_are_one_file_in_every_format(network: tuple[ModelPackage, Conversion]) -> None:
    _, conversion = network

    # The steps fill every gap before the integers, so that the device need not refuse missing values.
    assert conversion.bundle.variant("tflite-int8").takes_missing
    found = {report.name: (report.verdict, report.found.max_error) for report in conversion.reports if report.found is not None}
    assert {name: verdict for name, (verdict, _) in found.items() if "fp32" in name} == {"onnx-fp32": "pass", "tflite-fp32": "pass"}
    assert found["onnx-fp32"][1] < 1e-5
    assert found["tflite-fp32"][1] < 1e-5
    assert found["tflite-int8-weights"][1] < 0.15


@pytest.mark.keras
@pytest.mark.slow
def test_the_networks_files_answer_raw_rows_with_missing_values_alike(network: tuple[ModelPackage, Conversion]) -> None:
    _, conversion = network
    with Scorer.open(conversion.bundle, "onnx-fp32") as first, Scorer.open(conversion.bundle, "tflite-fp32") as second:
        one, two = first.score_batch(X[1000:]), second.score_batch(X[1000:])

    assert np.abs(one.probabilities - two.probabilities).max() < 1e-5


@pytest.mark.keras
@pytest.mark.slow
def test_integers_stand_behind_the_steps_only_so_that_large_columns_and_gaps_do_no_harm(
    network: tuple[ModelPackage, Conversion],
) -> None:
    _, conversion = network
    with Scorer.open(conversion.bundle, "onnx-fp32") as exact, Scorer.open(conversion.bundle, "tflite-int8") as integer:
        one, two = exact.score_batch(X[1000:]).probabilities, integer.score_batch(X[1000:]).probabilities

    assert np.isfinite(two).all()
    assert np.abs(one - two).max() < 0.15
    assert np.mean(one.argmax(1) == two.argmax(1)) > 0.98
