"""Every candidate of the trainer from package to bundle: answered by the device's scorer as scikit-learn answers."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converter import Wishes, convert_with_report
from device_agent.scorer import Scorer
from edgefleet.manifest import Task
from tests.unit.converter.converter_packages import candidate_package

# One of each form in every run; the others in the second stage.
FIRST: list[tuple[str, Task, int]] = [
    ("logistic", "classification", 2),
    ("forest", "classification", 2),
    ("boosting", "classification", 3),
    ("mlp", "regression", 0),
    ("isolation_forest", "anomaly", 0),
]
OTHERS: list[tuple[str, Task, int]] = [
    ("majority", "classification", 2),
    ("logistic", "classification", 3),
    ("tree", "classification", 3),
    ("extra_trees", "classification", 3),
    ("boosting", "classification", 2),
    ("hist_boosting", "classification", 3),
    ("svm", "classification", 2),
    ("svm", "classification", 3),
    ("mlp", "classification", 3),
    ("mean", "regression", 0),
    ("ridge", "regression", 0),
    ("tree", "regression", 0),
    ("forest", "regression", 0),
    ("boosting", "regression", 0),
    ("hist_boosting", "regression", 0),
    ("svm", "regression", 0),
    ("mahalanobis", "anomaly", 0),
]
CELLS = [pytest.param(*cell) for cell in FIRST] + [pytest.param(*cell, marks=pytest.mark.conversions) for cell in OTHERS]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Histogram boosting lets its threads meet after every tree: beside other work that takes seconds."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    with threadpool_limits(1, user_api="openmp"):
        yield


@pytest.mark.parametrize(("name", "task", "classes"), CELLS)
def test_an_onnx_variant_is_the_same_model(tmp_path: Path, name: str, task: Task, classes: int) -> None:
    package = candidate_package(tmp_path / "package", name, task, classes)

    (report,) = convert_with_report(package, Wishes(["onnx-fp32"], tmp_path / "bundle")).reports

    assert (report.verdict, report.reason) == ("pass", "")
    assert report.found is not None
    assert report.found.n == 600
    assert report.found.max_error < 1e-5


@pytest.mark.conversions
@pytest.mark.parametrize("name", ["tree", "forest", "extra_trees", "hist_boosting"])
def test_missing_values_go_where_the_trees_send_them(tmp_path: Path, name: str) -> None:
    package = candidate_package(tmp_path / "package", name, "classification", 2, missing=0.2)
    assert np.isnan(package.rows("parity").x).any()

    (report,) = convert_with_report(package, Wishes(["onnx-fp32"], tmp_path / "bundle")).reports

    assert (report.verdict, report.reason) == ("pass", "")


@pytest.mark.parametrize(
    "calibrator",
    [
        {"kind": "sigmoid", "slope": 1.7, "intercept": -0.3},
        {"kind": "isotonic", "curves": [{"x": [0.0, 0.3, 0.6, 1.0], "y": [0.0, 0.1, 0.8, 1.0]}]},
    ],
    ids=["sigmoid", "isotonic"],
)
def test_calibrated_probabilities_and_the_threshold_travel_with_the_bundle(tmp_path: Path, calibrator: dict[str, object]) -> None:
    package = candidate_package(tmp_path / "package", "boosting", "classification", 2, calibrator=calibrator, threshold=0.3)

    done = convert_with_report(package, Wishes(["onnx-fp32"], tmp_path / "bundle"))

    assert done.reports[0].reason == ""
    assert (done.bundle.manifest.threshold, done.bundle.manifest.positive) == (0.3, "c1")
    with Scorer.open(done.bundle) as scorer:
        scores = [scorer.score(row) for row in package.rows("parity").x[:200]]
    answered = [score.label for score in scores]
    assert answered == ["c1" if score.probabilities is not None and score.probabilities[1] >= 0.3 else "c0" for score in scores]
    assert 0 < answered.count("c1") < 200
