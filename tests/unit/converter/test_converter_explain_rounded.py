"""An integer variant of a linear model is explained by its own integers: contributions add up to the margin that it answers itself."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converter import Wishes, convert_with_report
from converter.conversion import Conversion
from converter.cores import Core, Layers
from converter.cores.reading import core_of
from converter.explain.fidelity import LEAST_COSINE, MAX_GAP, additivity_gap, answer_rounding, fidelity, judge_fidelity, reference_of
from converter.explain.own import explainer_of_integers
from converter.explain.package_rows import steps_in_front
from converter.explain.rounded import RoundedLinear, rounded
from converter.quantize.graphs import answers_of, open_source, quantize
from converter.to_onnx.core import core_to_onnx
from device_agent.explain import open_explainer
from device_agent.scorer import Scorer
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage, npz_bytes, read_npz
from edgefleet.rounding import Rounding
from tests.unit.converter.converter_packages import candidate_package

INPUTS = 80  # smaller layers are not quantized in ONNX


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return candidate_package(tmp_path_factory.mktemp("linear") / "package", "logistic", "classification", 3, features=INPUTS)


@pytest.fixture(scope="module")
def core(package: ModelPackage) -> Core:
    return core_of(package)


def integer_graph(package: ModelPackage, core: Core, target: str) -> bytes:
    source = open_source(core_to_onnx(core, package.steps()), target)
    return quantize(source, source.names, package.rows("calibration").x if target == "onnx-int8" else None)


def one_by_one(graph: bytes, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([answers_of(graph, True, row[None])["margin"] for row in rows])


@pytest.mark.parametrize("target", ["onnx-int8", "onnx-int8-dynamic"])
def test_the_integers_read_from_a_graph_answer_what_the_graph_answers(package: ModelPackage, core: Core, target: str) -> None:
    graph, rows = integer_graph(package, core, target), package.rows("parity").x[:40]

    found = rounded(core, target, graph)

    assert found is not None
    model = RoundedLinear.of(found, core, INPUTS, steps_in_front(core, package))
    exact = answers_of(core_to_onnx(core, package.steps()), True, rows)["margin"]
    answered = one_by_one(graph, rows)
    np.testing.assert_allclose(model.margins(rows), answered, atol=2e-5)
    assert np.abs(answered - exact).max() > 1e-2  # else nothing was rounded


@pytest.mark.parametrize("target", ["onnx-int8", "onnx-int8-dynamic"])
def test_contributions_add_up_to_the_margin_of_the_integers_where_those_of_the_float_model_do_not(
    package: ModelPackage, core: Core, target: str
) -> None:
    graph, rows = integer_graph(package, core, target), package.rows("parity").x[:40]

    content, said = explainer_of_integers(core, package, "linear", target, graph)

    assert said == ""
    assert content is not None
    arrays = read_npz(content, (), "explainer")
    floats = {name: array for name, array in arrays.items() if name not in ("rounding", "grid", "shift", "error")}
    assert isinstance(core.head, Layers)
    floats |= {"weight": core.head.layers[0].weight, "base": arrays["mean"] @ core.head.layers[0].weight + core.head.layers[0].bias}
    names = tuple(column.name for column in package.inputs())
    own, plain = (open_explainer(file, "linear", names, 3) for file in (content, npz_bytes(floats)))
    gaps: dict[str, list[float]] = {"own": [], "plain": []}
    for row, margins in zip(rows, one_by_one(graph, rows), strict=True):
        for name, explainer in (("own", own), ("plain", plain)):
            gaps[name].append(abs(explainer.explain(row, 2, float(margins[2]), lambda x: x).gap))
    assert max(gaps["own"]) < MAX_GAP
    assert max(gaps["plain"]) > 10 * MAX_GAP


def test_bars_are_as_wide_as_the_steps_that_rows_share_make_them(package: ModelPackage, core: Core) -> None:
    fixed, _ = explainer_of_integers(core, package, "linear", "onnx-int8", integer_graph(package, core, "onnx-int8"))
    dynamic, _ = explainer_of_integers(core, package, "linear", "onnx-int8-dynamic", integer_graph(package, core, "onnx-int8-dynamic"))

    assert fixed is not None
    assert dynamic is not None
    # Where calibration decided the steps, each column is rounded for itself: the closed form is exact, as for float weights.
    assert read_npz(fixed, (), "explainer")["error"].max() < 1e-9
    bars = read_npz(dynamic, (), "explainer")["error"]
    assert bars.shape == (3, INPUTS)
    assert (bars > 1e-5).all()
    assert bars.max() < 0.2


def test_a_graph_of_other_weights_is_not_taken_for_this_model(package: ModelPackage, core: Core, tmp_path: Path) -> None:
    other = candidate_package(tmp_path / "other", "logistic", "classification", 3, features=INPUTS, rows=1200)
    graph = integer_graph(package, core, "onnx-int8")

    assert rounded(core_of(other), "onnx-int8", graph) is None
    assert explainer_of_integers(core_of(other), other, "linear", "onnx-int8", graph) == (None, "")
    assert explainer_of_integers(core, package, "treeshap", "onnx-int8", graph) == (None, "")
    assert rounded(core, "onnx-int8", core_to_onnx(core, package.steps())) is None


def test_rounding_of_the_answer_explains_half_a_step_and_everything_beyond_the_ends() -> None:
    answer = Rounding.fixed(0.5, 0, -4, 4)

    assert answer.unexplained(1.0, 1.24) == 0.0
    assert answer.unexplained(1.0, 1.5) == pytest.approx(0.25)
    assert answer.unexplained(2.0, 9.0) == 0.0
    assert answer.unexplained(-2.0, -9.0) == 0.0
    assert answer.unexplained(-2.0, -1.5) == pytest.approx(0.25)
    assert np.isnan(answer.unexplained(1.0, float("nan")))  # which no limit lets pass


def of_integers(done: Conversion, target: str) -> dict[str, str]:
    report = next(report for report in done.reports if report.name == target)
    assert report.kept, report.reason
    return {gate.sentence: gate.verdict for gate in report.gates if gate.gate.startswith("X")}


@pytest.mark.conversions
def test_onnx_integers_of_a_linear_model_are_explained_in_the_bundle(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "logistic", "classification", 3, features=INPUTS, rows=6000, explain="auto")

    done = convert_with_report(package, Wishes(["onnx-fp32", "onnx-int8-dynamic"], tmp_path / "bundle"))

    gates = of_integers(done, "onnx-int8-dynamic")
    assert list(gates.values()) == ["pass", "pass", "pass"]
    assert done.bundle.variant("onnx-int8-dynamic").explain_method == "linear"


@pytest.mark.keras
@pytest.mark.conversions
@pytest.mark.parametrize(
    ("name", "task", "classes"),
    [("logistic", "classification", 2), ("logistic", "classification", 3), ("ridge", "regression", 2)],
    ids=["two classes", "three classes", "values"],
)
def test_tflite_integers_of_a_linear_model_are_explained_in_the_bundle(tmp_path: Path, name: str, task: Task, classes: int) -> None:
    package = candidate_package(tmp_path / "package", name, task, classes, features=24, rows=6000, explain="auto")
    targets = ["tflite-fp32", "tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights", "tflite-int16x8"]

    done = convert_with_report(package, Wishes(targets, tmp_path / "bundle"))

    kept = [report.name for report in done.reports if report.kept and "int" in report.name]
    assert {"tflite-int8-dynamic", "tflite-int8-weights"} <= set(kept)
    for target in kept:
        assert set(of_integers(done, target).values()) == {"pass"}
        assert done.bundle.variant(target).explain_method == "linear"
        with Scorer.open(tmp_path / "bundle", target) as scorer:
            rows, answer = package.rows("parity").x[:60], answer_rounding(scorer)
            assert additivity_gap(scorer, list(rows), answer) < MAX_GAP
            if target == "tflite-int8":
                assert answer is not None
                assert additivity_gap(scorer, list(rows)) > MAX_GAP  # the steps of the answer, which the gap returns
                assert f"steps of {answer.step:.2g}" in next(iter(of_integers(done, target)))
            elif not target.endswith("weights"):
                figures = fidelity(scorer, rows[:20], reference_of(scorer, rows[:20]))
                assert figures["cosine_low"] >= LEAST_COSINE
            else:
                assert judge_fidelity(additivity_gap(scorer, list(rows)), None)[0].ok
