"""Each model gets the best explanation that it can have, a named method that cannot explain it is refused, and students are judged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import Wishes, convert_with_report
from converter.cores.reading import core_of
from converter.cores.running import margins_of
from converter.explain.agreement import agreement
from converter.explain.building import explainer_for, make
from converter.explain.fidelity import fidelity, judge_fidelity, measure_explanation, reference_of
from device_agent.explain import open_explainer
from device_agent.scorer import Scorer
from edgefleet.errors import VerdictError
from edgefleet.manifest import Task
from tests.unit.converter.converter_packages import candidate_package


def job(package: Any, folder: Path, method: str = "auto") -> dict[str, Any]:
    return {"package": str(package.folder), "method": method, "graph": "", "runtime": "", "folder": str(folder)}


@pytest.mark.parametrize(
    ("name", "task", "method"),
    [
        ("logistic", "classification", "linear"),
        ("ridge", "regression", "linear"),
        ("majority", "classification", "treeshap"),
        ("tree", "classification", "treeshap"),
        ("forest", "regression", "treeshap"),
        ("boosting", "classification", "treeshap"),
        ("hist_boosting", "classification", "treeshap"),
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_linear_models_and_trees_are_explained_exactly(tmp_path: Path, name: str, task: Task, method: str, classes: int) -> None:
    package = candidate_package(tmp_path / "package", name, task, classes)
    core = core_of(package)

    found = explainer_for(core, package)

    assert found.method == method
    assert ("onnxruntime" in found.graphs) == (method == "treeshap")
    explainer = open_explainer(found.content, method, tuple(column.name for column in package.inputs()), core.margins)
    x = package.rows("parity").x[:20]
    for row, margin in zip(x, margins_of(core, package.steps().run(x)), strict=True):
        for column in range(core.margins):
            explained = explainer.explain(row, column if core.margins > 1 else 1, float(margin[column]), lambda r: r)
            assert abs(explained.gap) <= 1e-5 * max(1.0, abs(float(margin[column])))


def test_the_base_of_a_linear_explanation_is_the_mean_margin_of_the_training_rows(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "logistic", "classification", 3)
    core = core_of(package)

    found = open_explainer(explainer_for(core, package).content, "linear", tuple(f"x{i}" for i in range(6)), 3)

    mean = margins_of(core, package.steps().run(package.rows("calibration").x)).mean(axis=0)
    base = [found.explain(package.rows("parity").x[0], k, 0.0, lambda r: r).base for k in range(3)]
    np.testing.assert_allclose(base, mean, atol=1e-6)  # weights are float64, rows were rounded to float32


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("network")
    package = candidate_package(folder / "package", "mlp", "classification", 3)
    return package, make(job(package, folder))


def test_a_network_gets_a_student_whose_figures_are_told(network: tuple[Any, dict[str, Any]]) -> None:
    _, made = network

    assert made["method"] == "amortised"
    assert made["figures"]["cosine_low"] > 0.95
    assert "held-out rows" in made["notes"][0]


def test_a_detectors_score_is_explained_by_a_student_or_by_sampling_never_as_a_sum_of_trees(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "isolation_forest", "anomaly")
    core = core_of(package)

    assert explainer_for(core, package).method == "sampled"
    with pytest.raises(VerdictError, match="no sum of its trees"):
        explainer_for(core, package, "treeshap")


@pytest.mark.parametrize(
    ("name", "method", "reason"),
    [("mlp", "treeshap", "exact for trees"), ("forest", "linear", "explains linear models"), ("forest", "amortised", "float graph")],
)
def test_a_named_method_that_cannot_explain_the_model_is_refused(tmp_path: Path, name: str, method: Any, reason: str) -> None:
    package = candidate_package(tmp_path / "package", name, "classification", 2)

    with pytest.raises(VerdictError, match=reason):
        explainer_for(core_of(package), package, method)


def test_a_model_too_costly_for_a_student_is_sampled_and_the_card_says_why(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "mlp", "classification", 2)

    found = explainer_for(None, package, "auto", lambda x: x[:, :1], products=1e9)

    assert found.method == "sampled"
    assert "multiplications" in found.notes[0]


def test_a_student_that_points_elsewhere_is_not_taken(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "mlp", "classification", 2)

    def noise(x: Any) -> Any:
        return np.modf(np.abs(x.astype(np.float64).sum(axis=1, keepdims=True)) * 1e3)[0]

    found = explainer_for(None, package, "auto", noise, products=5e5)

    assert found.method == "sampled"
    assert "cosine" in found.notes[0]


def test_a_variants_student_is_judged_by_a_long_run_through_that_variant(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "mlp", "classification", 2, explain="amortised")
    convert_with_report(package, Wishes(["onnx-fp32"], tmp_path / "bundle"))
    rows = package.rows("parity").x[:60]

    with Scorer.open(tmp_path / "bundle") as scorer:
        gap, figures = measure_explanation(scorer, rows)
        judged = rows[1::2]
        reference = reference_of(scorer, judged)
        moved = fidelity(scorer, judged, type(reference)(np.roll(reference.values, 1, axis=1), reference.error, reference.players))

    assert figures is not None
    assert all(found.ok for found in judge_fidelity(gap, figures))
    assert figures["rows"] == 30
    assert figures["reference_error"] < 0.05
    assert not all(found.ok for found in judge_fidelity(gap, moved))


def test_the_gates_judge_lower_bounds_and_exact_methods_by_their_sum_alone() -> None:
    assert [(found.gate, found.ok) for found in judge_fidelity(1e-6, None)] == [("X1", True)]
    assert [found.ok for found in judge_fidelity(1e-2, None)] == [False]
    judged = judge_fidelity(0.0, {"cosine": 0.99, "cosine_low": 0.94, "top3": 0.9, "top3_low": 0.85})
    assert [(found.gate, found.name, found.ok) for found in judged] == [
        ("X1", "gap", True), ("X2", "cosine_low", False), ("X2", "top3_low", True),
    ]  # fmt: skip
    assert [found.ok for found in judge_fidelity(float("nan"), None)] == [False]


def test_agreement_of_equal_contributions_is_whole_and_of_opposite_ones_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(40, 6))

    same, opposite = agreement(values, values), agreement(-values, values)

    assert same["cosine"] == pytest.approx(1)
    assert (same["top3"], same["r2"]) == (1.0, 1.0)
    assert opposite["cosine"] == pytest.approx(-1)
    assert agreement(values[:1], values[:1])["cosine_low"] == 0.0


def test_the_child_writes_the_file_and_the_graph(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "boosting", "classification", 2)

    made = make(job(package, tmp_path))

    assert Path(made["file"]).read_bytes()
    assert Path(made["graphs"]["onnxruntime"]).read_bytes()
    assert (list(made["graphs"]), made["reasons"]) == (["onnxruntime"], {})
    assert made["notes"] == []
