"""A half-precision variant is explained by the numbers that it holds: base + contributions are its own margin."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import Wishes, convert_with_report
from converter.cores.reading import core_of
from converter.explain.fidelity import MAX_GAP, additivity_gap
from converter.explain.halved import halved, in_half
from device_agent.explain import open_explainer
from device_agent.scorer import Scorer
from edgefleet.manifest import Task
from tests.unit.converter.converter_packages import candidate_package


def converted(folder: Path, targets: list[str], name: str, task: Task, classes: int, **changes: Any) -> Path:
    package = candidate_package(folder / "package", name, task, classes, explain="auto", **changes)
    convert_with_report(package, Wishes(targets, folder / "bundle"))
    return folder / "bundle"


def gaps(bundle: Path, target: str) -> tuple[float, float]:
    """(gap of the variant with its own explainer, with the float variant's)."""
    with Scorer.open(bundle, target) as scorer:
        rows = np.load(bundle / "golden.npz")["x"]
        own = additivity_gap(scorer, list(rows))
        content = (bundle / f"explain-{target.partition('-')[0]}-fp32.npz").read_bytes()
        names = tuple(column.name for column in scorer.bundle.manifest.inputs)
        columns = scorer.score_batch(rows[:1]).margins.shape[1]
        floats = open_explainer(content, scorer.variant.explain_method or "", names, columns)
        scores = [scorer.score(row) for row in rows]
        others = [
            floats.explain(row, score.index, score.margin, lambda x: x).gap / max(1.0, abs(score.margin))
            for row, score in zip(rows, scores, strict=True)
        ]
    return own, float(np.abs(others).max())


@pytest.mark.conversions
def test_a_linear_model_in_half_precision_adds_up_to_its_own_margin(tmp_path: Path) -> None:
    bundle = converted(tmp_path, ["onnx-fp32", "onnx-fp16"], "logistic", "classification", 3, features=80)

    own, floats = gaps(bundle, "onnx-fp16")

    assert own < 1e-5
    assert floats > MAX_GAP


@pytest.mark.keras
@pytest.mark.conversions
@pytest.mark.parametrize(
    ("name", "task", "classes", "changes"),
    [
        ("boosting", "classification", 3, {}),
        ("forest", "classification", 2, {"missing": 0.1}),
        ("forest", "regression", 2, {}),
        ("logistic", "classification", 3, {"features": 80}),
    ],
    ids=["boosting", "forest of shares", "forest of values", "linear"],
)
def test_a_tflite_model_in_half_precision_adds_up_to_its_own_margin(
    tmp_path: Path, name: str, task: Task, classes: int, changes: dict[str, Any]
) -> None:
    bundle = converted(tmp_path, ["tflite-fp32", "tflite-fp16"], name, task, classes, **changes)

    own, floats = gaps(bundle, "tflite-fp16")

    assert own < 1e-5
    assert own < floats / 10
    assert (bundle / "explain-tflite-fp16.tflite").exists() == (name != "logistic")


def test_trees_in_onnx_and_tables_too_small_to_halve_are_explained_as_they_are(tmp_path: Path) -> None:
    forest = core_of(candidate_package(tmp_path / "forest", "forest", "classification", 2))
    small = core_of(candidate_package(tmp_path / "small", "logistic", "classification", 2))

    assert halved(forest, "onnx-fp16") is None
    assert halved(forest, "tflite-fp32") is None
    assert halved(forest, "tflite-fp16") is not None
    assert halved(small, "onnx-fp16") is None


def test_no_threshold_moves_in_half_precision(tmp_path: Path) -> None:
    core = core_of(candidate_package(tmp_path / "boosting", "boosting", "classification", 3))
    rounded = halved(core, "tflite-fp16")

    assert rounded is not None
    for one, other in zip(core.head.ensemble.trees, rounded.head.ensemble.trees, strict=True):  # type: ignore[union-attr]  # trees
        assert np.array_equal(one.threshold, other.threshold)
        assert np.array_equal(in_half(one.value), other.value)
