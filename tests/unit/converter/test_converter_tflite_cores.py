"""scikit-learn packages as TFLite files: LiteRT answers what scikit-learn answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cores import Trees
from converter.cores.reading import core_of
from converter.cores.running import margins_of
from converter.originals import Original, answers_of, load_estimator
from converter.to_tflite.make import why_not_tflite
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage
from tests.unit.converter.converter_children import call_all, lite
from tests.unit.converter.converter_packages import candidate_package

pytestmark = [pytest.mark.keras, pytest.mark.conversions]

Cell = tuple[str, Task, int, dict[str, Any]]
PLATT = {"calibrator": {"kind": "sigmoid", "slope": 0.7, "intercept": -0.2}}
TEMPERATURE = {"calibrator": {"kind": "temperature", "slope": 0.6}}
CURVE = {"x": [0.0, 0.2, 0.21, 0.5, 0.9], "y": [0.0, 0.1, 0.4, 0.4, 1.0]}
# Of three classes all curves may say 0, and then the row keeps its probabilities.
LATE = {"x": [0.4, 0.41, 0.9], "y": [0.0, 0.5, 0.9]}
CELLS: dict[str, Cell] = {
    "majority": ("majority", "classification", 2, {}),
    "majority-3": ("majority", "classification", 3, {}),
    "mean": ("mean", "regression", 0, {}),
    "logistic": ("logistic", "classification", 2, {}),
    "logistic-3": ("logistic", "classification", 3, {}),
    "ridge": ("ridge", "regression", 0, {}),
    "tree-missing": ("tree", "classification", 3, {"missing": 0.1}),
    "forest": ("forest", "classification", 2, {}),
    "forest-missing": ("forest", "classification", 3, {"missing": 0.1}),
    "forest-value": ("forest", "regression", 0, {}),
    "extra_trees": ("extra_trees", "classification", 3, {}),
    "boosting": ("boosting", "classification", 2, {}),
    "boosting-3": ("boosting", "classification", 3, {}),
    "hist_boosting-missing": ("hist_boosting", "classification", 3, {"missing": 0.1}),
    "hist_boosting-value": ("hist_boosting", "regression", 0, {"missing": 0.1}),
    "svm": ("svm", "classification", 2, {}),
    "svm-3": ("svm", "classification", 3, {}),
    "svm-value": ("svm", "regression", 0, {}),
    "mlp": ("mlp", "classification", 2, {}),
    "mlp-value": ("mlp", "regression", 0, {}),
    "isolation_forest": ("isolation_forest", "anomaly", 0, {}),
    "mahalanobis": ("mahalanobis", "anomaly", 0, {}),
    "platt-of-logits": ("boosting", "classification", 2, PLATT),
    "platt-of-shares": ("forest", "classification", 2, PLATT),
    "temperature": ("forest", "classification", 3, TEMPERATURE),
    "curve": ("logistic", "classification", 2, {"calibrator": {"kind": "isotonic", "curves": [CURVE]}}),
    "curves": ("boosting", "classification", 3, {"calibrator": {"kind": "isotonic", "curves": [LATE, LATE, LATE]}}),
}
# Without the rising curves: their steepest pieces make 5e-6 of the last bit of a probability, whatever the leaf.
TREES = [
    name
    for name, cell in CELLS.items()
    if cell[0] in {"tree", "forest", "extra_trees", "boosting", "hist_boosting"} and not name.startswith("curve")
]
HALVES = ["forest", "boosting-3", "mlp", "svm", "ridge"]


@dataclass(frozen=True)
class Work:
    """What one child made.

    Attributes:
        packages: By cell.
        made: Answer of the writer by (cell, target).
        folder: Where the graphs are.
    """

    packages: dict[str, ModelPackage]
    made: dict[tuple[str, str], dict[str, Any]]
    folder: Path

    def graph(self, name: str, target: str = "tflite-fp32") -> bytes:
        return (self.folder / f"{name}.{target}").read_bytes()


def write(packages: dict[str, ModelPackage], wanted: list[tuple[str, str]], folder: Path) -> Work:
    jobs = [
        {"package": str(packages[name].folder), "target": target, "result": str(folder / f"{name}.{target}")} for name, target in wanted
    ]
    return Work(packages, dict(zip(wanted, call_all("converter.to_tflite.make:make", jobs, folder), strict=True)), folder)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("cores")
    packages = {
        name: candidate_package(folder / f"package-{name}", candidate, task, classes or 2, **changes)
        for name, (candidate, task, classes, changes) in CELLS.items()
    }
    wanted = [(name, "tflite-fp32") for name in CELLS] + [(name, "tflite-fp16") for name in HALVES]
    return write(packages, wanted, folder / "graphs")


def originals(package: ModelPackage, x: Any) -> Original:
    return answers_of(package, load_estimator(package), package.steps(), x)


@pytest.mark.parametrize("name", CELLS)
def test_litert_answers_what_scikit_learn_answers(work: Work, name: str) -> None:
    x = work.packages[name].rows("parity").x
    want = originals(work.packages[name], x)

    got = lite(work.graph(name), x)

    spread = max(1.0, float(np.ptp(want.margin)))
    assert np.abs(got["margin"] - want.margin).max() < 1e-5 * spread
    assert want.probabilities.size == 0 or np.abs(got["probabilities"] - want.probabilities).max() < 1e-5


@pytest.mark.parametrize("name", CELLS)
def test_a_row_alone_is_answered_as_in_a_batch(work: Work, name: str) -> None:
    x = work.packages[name].rows("golden").x

    batch, single = lite(work.graph(name), x), lite(work.graph(name), x, singly=True)

    # Matrix products of one row and of many may add in another order.
    assert all(np.allclose(batch[output], single[output], rtol=2e-6, atol=2e-6) for output in batch)


@pytest.mark.parametrize("name", TREES)
def test_no_row_of_ten_thousand_leaves_its_tree_at_another_leaf(work: Work, name: str) -> None:
    package = work.packages[name]
    rng = np.random.default_rng(11)
    x = rng.normal(0, 1.5, (10_000, 6)).astype(np.float32)
    x[:5000] = x[:5000].round(2)  # the training rows' grid: values on thresholds' neighbours
    if "missing" in name or "hist_boosting" in name:
        x[rng.random(x.shape) < 0.2] = np.nan
    want = originals(package, x)

    got = lite(work.graph(name), x)

    if want.probabilities.size:
        assert int((np.abs(got["probabilities"] - want.probabilities).max(axis=1) > 1e-6).sum()) == 0
    else:
        assert int((np.abs(got["margin"] - want.margin) > 1e-6 * np.abs(want.margin).max()).sum()) == 0


@pytest.mark.parametrize("name", ["forest", "boosting", "boosting-3"])
def test_values_exactly_on_thresholds_and_beside_them_go_the_same_way(work: Work, name: str) -> None:
    package = work.packages[name]
    model = load_estimator(package)
    trees = [tree.tree_ for tree in np.ravel(model.estimators_)]
    thresholds = np.concatenate([tree.threshold[tree.feature >= 0] for tree in trees]).astype(np.float32)
    near = np.concatenate([thresholds, np.nextafter(thresholds, np.float32(-9)), np.nextafter(thresholds, np.float32(9))])
    x = np.random.default_rng(3).choice(near, (3000, 6)).astype(np.float32)

    got = lite(work.graph(name), x)["probabilities"]

    assert np.abs(got - originals(package, x).probabilities).max() < 1e-6


@pytest.mark.parametrize("name", TREES)
def test_infinite_values_reach_the_leaf_that_they_reach_in_the_original(work: Work, name: str) -> None:
    package = work.packages[name]
    core = core_of(package)
    x = np.random.default_rng(4).normal(0, 1.5, (2000, 6)).astype(np.float32)
    x[np.random.default_rng(5).random(x.shape) < 0.3] = np.inf
    x[np.random.default_rng(6).random(x.shape) < 0.3] = -np.inf
    if "missing" in name:
        x[np.random.default_rng(7).random(x.shape) < 0.2] = np.nan

    got = lite(work.graph(name), x)["margin"]

    # numpy reads the trees; most estimators of scikit-learn refuse infinity, and histogram boosting says the same.
    want = margins_of(core, x)
    assert np.abs(got - want).max() < 1e-6 * max(1.0, float(np.abs(want).max()))
    if name.startswith("hist_boosting") and core.classes:
        assert np.abs(originals(package, x).margin - want).max() < 1e-9


@pytest.mark.parametrize("name", ["forest-missing", "hist_boosting-missing"])
def test_models_of_missing_values_have_splits_at_infinity(work: Work, name: str) -> None:
    head = core_of(work.packages[name]).head

    assert isinstance(head, Trees)
    assert sum(int(np.isposinf(tree.threshold[tree.left >= 0]).sum()) for tree in head.ensemble.trees) > 0


def test_every_operator_is_built_in_and_told(work: Work) -> None:
    told = {name: work.made[name, "tflite-fp32"]["operators"] for name in CELLS}

    assert told["forest"] == ["ADD", "CAST", "GATHER", "GREATER", "SUM"]
    assert told["ridge"] == ["FULLY_CONNECTED"]
    assert not [name for names in told.values() for name in names if name.startswith(("custom", "number", "VAR_", "READ_"))]


@pytest.mark.parametrize("name", ["forest", "boosting-3", "mlp", "svm"])
def test_half_precision_is_smaller_and_near(work: Work, name: str) -> None:
    x = work.packages[name].rows("parity").x
    whole, half = lite(work.graph(name), x), lite(work.graph(name, "tflite-fp16"), x)

    assert len(work.graph(name, "tflite-fp16")) < len(work.graph(name))
    assert "DEQUANTIZE" in work.made[name, "tflite-fp16"]["operators"]
    assert 0 < np.abs(half["probabilities"] - whole["probabilities"]).max() < 5e-3


def test_half_precision_moves_no_split(work: Work) -> None:
    x = np.random.default_rng(5).normal(0, 1, (2000, 6)).astype(np.float32).round(2)

    whole, half = (lite(work.graph("forest", target), x)["margin"] for target in ("tflite-fp32", "tflite-fp16"))

    # Every leaf's share is rounded by at most 2^-11 of itself; a moved split would show as the difference of two leaves.
    assert np.abs(half - whole).max() <= 2.0**-11


def test_half_precision_of_a_few_weights_is_refused_with_the_numbers(work: Work) -> None:
    assert "no weights here are large enough; use tflite-fp32" in work.made["ridge", "tflite-fp16"]["refused"]


def test_missing_values_are_taken_by_trees_only(work: Work) -> None:
    assert work.made["forest-missing", "tflite-fp32"]["takes_missing"]
    assert work.made["ridge", "tflite-fp32"]["takes_missing"]  # the schema allows none: the device refuses the row


def test_a_second_process_writes_the_same_bytes(work: Work, tmp_path: Path) -> None:
    wanted = [("hist_boosting-missing", "tflite-fp32"), ("forest", "tflite-fp16"), ("svm-3", "tflite-fp32"), ("curves", "tflite-fp32")]

    again = write(work.packages, wanted, tmp_path / "again")

    assert [name for name, target in wanted if again.graph(name, target) != work.graph(name, target)] == []


def test_what_tflite_cannot_hold_is_said_without_opening_the_model(work: Work, tmp_path: Path) -> None:
    import msgspec

    package = work.packages["forest"]

    def reason(**changes: Any) -> str | None:
        index = msgspec.structs.replace(package.index, **changes)
        return why_not_tflite(ModelPackage(package.folder, index, package.digest))

    assert reason() is None
    assert "import the model that it was made from" in str(reason(family="onnx"))
    assert "not the .keras file" in str(reason(family="keras"))
    assert reason(family="wizardry") == "models of the family 'wizardry' are not converted to TFLite"


def with_detector(folder: Path, features: int) -> tuple[ModelPackage, Any]:
    """A package whose outlier detector is a distance (few features) or an isolation forest (many), and the trainer's score."""
    import msgspec

    from edgefleet.digests import canonical_json
    from edgefleet.package import write_package
    from trainer.outlier import fit_outlier

    package = candidate_package(folder / f"plain-{features}", "tree", "classification", 2, features=features, missing=0.1)
    x = package.rows("calibration").x
    detector = fit_outlier(x, seed=0)
    files = {name: package.read(name) for name in package.index.files}
    files |= detector.files | {"outlier.json": canonical_json(detector.notes(x))}
    index = msgspec.structs.replace(package.index, outlier=detector.file, files={})
    return write_package(folder / f"detector-{features}", index, files), detector.score


def test_outlier_detectors_are_graphs_of_the_same_raw_rows(tmp_path: Path) -> None:
    detectors = [with_detector(tmp_path, features) for features in (6, 70)]
    jobs = [
        {"package": str(package.folder), "target": "outlier.tflite", "result": str(tmp_path / f"{i}.tflite")}
        for i, (package, _) in enumerate(detectors)
    ]

    made = call_all("converter.to_tflite.make:make_outlier", jobs, tmp_path / "jobs")

    assert [package.index.outlier for package, _ in detectors] == ["outlier.npz", "outlier.skops"]
    for i, (package, score) in enumerate(detectors):
        x = package.rows("parity").x.copy()
        x[:40] *= 50
        got, want = lite((tmp_path / f"{i}.tflite").read_bytes(), x)["margin"][:, 0], score(x)
        assert made[i]["takes_missing"]
        assert np.array_equal(np.isinf(got), np.isinf(want))
        finite = np.isfinite(want)
        assert np.abs(got[finite] - want[finite]).max() < 1e-5 * max(1.0, float(want[finite].max()))
