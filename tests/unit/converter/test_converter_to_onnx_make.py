"""The writer of onnx-fp32 on real packages: steps, calibrator, windows, outlier detector, imported pipelines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from converter.calibrators import calibrate
from converter.cores import Core, Distance, Layers
from converter.cores.core import Dense
from converter.cores.exactness import rows_off
from converter.cores.reading import core_of
from converter.originals import load_estimator
from converter.targets import Made
from converter.to_onnx.core import core_to_onnx
from converter.to_onnx.make import make, make_outlier, why_not_onnx
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps, Trace
from tests.unit.converter.converter_packages import candidate_package, digits, fitted, package, tree_package

CALIBRATORS: dict[int, list[dict[str, Any]]] = {
    2: [
        {"kind": "sigmoid", "slope": 1.7, "intercept": -0.3},
        {"kind": "isotonic", "curves": [{"x": [0.1, 0.3, 0.31, 0.9], "y": [0.0, 0.1, 0.7, 1.0]}]},
        {"kind": "isotonic", "curves": [{"x": [0.5], "y": [0.25]}]},
    ],
    3: [
        {"kind": "temperature", "slope": 0.6},
        {"kind": "isotonic", "curves": [{"x": [0.2, 0.5, 0.8], "y": [0.0, 0.4, 1.0]}] * 3},
    ],
}


def made(opened: ModelPackage, folder: Path, writer: Any = make) -> tuple[bytes, Made]:
    path = folder / "graph.onnx"
    answer = writer({"package": str(opened.folder), "target": "onnx-fp32", "result": str(path), "folder": str(folder)})
    return path.read_bytes(), msgspec.convert(answer, Made)


def run(graph: bytes, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    answers: list[NDArray[np.float32]] = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"inputs": x})
    return answers


@pytest.mark.parametrize("name", ["logistic", "forest", "boosting", "svm"])
@pytest.mark.parametrize(("classes", "calibrator"), [(n, one) for n, some in CALIBRATORS.items() for one in some])
def test_probabilities_are_calibrated_inside_the_graph(tmp_path: Path, name: str, classes: int, calibrator: dict[str, Any]) -> None:
    opened = candidate_package(tmp_path / "package", name, "classification", classes, calibrator=calibrator)
    x = opened.rows("parity").x

    graph, _ = made(opened, tmp_path)

    margin, probabilities = run(graph, x)
    plain = load_estimator(opened).predict_proba(x.astype(np.float64))
    # A segment of a rising curve multiplies the last bit of a probability by its steepness, here up to 60.
    limit = 2e-5 if calibrator["kind"] == "isotonic" else 3e-6
    assert rows_off(calibrate(calibrator, plain), probabilities, limit=limit).off == 0
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-5
    assert margin.shape[1] == core_of(opened).margins


def test_the_answer_says_operators_opset_and_missing_values(tmp_path: Path) -> None:
    _, forest = made(candidate_package(tmp_path / "f", "forest", "classification", 2, missing=0.2), tmp_path)
    _, logistic = made(candidate_package(tmp_path / "l", "logistic", "classification", 2), tmp_path)

    assert (forest.operators, forest.opset, forest.takes_missing) == (["Identity", "TreeEnsembleRegressor"], 17, True)
    assert (logistic.operators, logistic.takes_missing) == (["Concat", "Gemm", "Mul", "Neg", "Softmax"], True)


def test_a_model_that_cannot_take_what_the_schema_allows_says_so(tmp_path: Path) -> None:
    model = fitted(LogisticRegression(max_iter=20, tol=1.0))
    inputs = [Input(name=f"p{i}", missing=i == 3) for i in range(64)]
    opened = tree_package(tmp_path / "package", model, "linear", inputs=inputs)

    assert made(opened, tmp_path)[1].takes_missing is False


def test_equal_packages_give_equal_bytes(tmp_path: Path) -> None:
    graphs = [made(candidate_package(tmp_path / name, "hist_boosting", "classification", 3), tmp_path)[0] for name in "ab"]

    assert graphs[0] == graphs[1]


def test_windows_are_flattened_behind_their_steps() -> None:
    trace = Trace((3, 2))
    trace.sub(0, np.float32(1.0))
    steps = Steps(tuple(trace.ops), ("a", "b"), (0, 1))
    weight = np.arange(6.0)[:, None]
    core = Core(Layers((Dense(weight, np.zeros(1)),)), 6, 1, 0, "none")
    x = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)

    for given, shift in ((steps, 1.0), (Steps.identity((3, 2)), 0.0)):
        (margin,) = run(core_to_onnx(core, given), x)
        assert np.abs(margin - (x.reshape(7, 6) - shift) @ weight).max() < 1e-5


def test_an_outlier_distance_fills_what_is_missing(tmp_path: Path) -> None:
    head = Distance(np.array([1.0, 2.0]), np.eye(2), np.array([1.0, 5.0]))

    (margin,) = run(core_to_onnx(Core(head, 2, 1, 0, "none")), np.array([[4, 6], [np.nan, np.nan]], np.float32))

    assert np.abs(margin[:, 0] - [5.0, 3.0]).max() < 1e-6


def test_a_package_without_a_detector_has_no_outlier_graph(tmp_path: Path) -> None:
    with pytest.raises(VerdictError, match="no outlier detector"):
        made(candidate_package(tmp_path / "package", "tree", "classification", 2), tmp_path, make_outlier)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3, early_stopping=False, random_state=0)),
        make_pipeline(MinMaxScaler(), RandomForestClassifier(10, max_depth=6, random_state=0)),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=50, tol=0.1)),
    ],
    ids=lambda model: type(model[-1]).__name__,
)
def test_an_imported_pipeline_is_exact(tmp_path: Path, model: Any) -> None:
    x, _ = digits()
    trees = not isinstance(model[-1], LogisticRegression)
    opened = tree_package(tmp_path / "package", fitted(model), "pipeline", inputs=[Input(name=f"p{i}", missing=trees) for i in range(64)])
    rows = x[1000:].copy()
    if trees:
        rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan

    graph, told = made(opened, tmp_path)

    assert told.takes_missing
    assert rows_off(model.predict_proba(rows.astype(np.float64)), run(graph, rows)[-1]).off == 0


def test_an_imported_model_without_a_core_goes_through_skl2onnx_and_the_card_says_so(tmp_path: Path) -> None:
    x, _ = digits()
    model = fitted(GaussianNB(var_smoothing=0.1))
    opened = tree_package(tmp_path / "package", model, "pipeline")

    graph, told = made(opened, tmp_path)

    assert told.notes == [
        "Converted by skl2onnx, not node by node: GaussianNB is not a model that is converted; train one of the families "
        "constant, linear, tree, forest, boosting, hist_boosting, svm, mlp, isolation_forest, mahalanobis, pipeline."
    ]
    # Log-densities in float32, summed over 64 columns.
    assert rows_off(model.predict_proba(x[1000:].astype(np.float64)), run(graph, x[1000:])[-1], limit=2e-5).off == 0


def test_what_cannot_become_onnx_has_a_reason(tmp_path: Path) -> None:
    opened = candidate_package(tmp_path / "package", "tree", "classification", 2)

    def reason(**changes: Any) -> str | None:
        return why_not_onnx(replace(opened, index=msgspec.structs.replace(opened.index, **changes)))

    assert reason() is None
    assert reason(family="keras", model="model.keras") is None
    assert "a .tflite file is not turned into ONNX" in str(reason(family="tflite", model="model.tflite"))
    assert "the family 'magic' is not converted" in str(reason(family="magic"))
    assert "not the .skops file" in str(reason(model="model.bin"))


def test_a_model_of_other_columns_or_classes_than_its_package_is_damaged(tmp_path: Path) -> None:
    import skops.io

    x, y = digits()
    narrow = LogisticRegression(max_iter=5, tol=1.0).fit(x[:1000, :10], y[:1000])
    opened = package(tmp_path / "package", "model.skops", skops.io.dumps(narrow), "linear", "log-odds")
    with pytest.raises(ArtifactError, match="takes 10 columns, the package's rows have 64"):
        core_of(opened)

    few = LogisticRegression(max_iter=5, tol=1.0).fit(x[:1000], y[:1000] > 4)
    opened = package(tmp_path / "other", "model.skops", skops.io.dumps(few), "linear", "log-odds")
    with pytest.raises(ArtifactError, match=r"answers 2 classes, package\.json names 10"):
        core_of(opened)


def test_a_damaged_calibrator_is_named(tmp_path: Path) -> None:
    opened = candidate_package(tmp_path / "package", "tree", "classification", 2, calibrator={"kind": "sigmoid", "slope": "steep"})

    with pytest.raises(ArtifactError, match=r"calibrator\.json is damaged"):
        made(opened, tmp_path)
