"""Time segments that do not point where the variant's own do stay out of the bundle; the channels that they add up to go in."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

from converter.beside import Explainer
from converter.building import Built, build
from converter.conversion import Conversion, prove
from converter.gates import Limits
from converter.planning import Plan
from converter.recipes import RECIPES
from device_agent.scorer import Scorer
from edgefleet.manifest import ExplainMethod
from edgefleet.package import npz_bytes, read_npz
from edgefleet.players import by_segment
from tests.unit.converter.converter_combinations import Combination

pytestmark = pytest.mark.conversions
TARGET = "onnx-fp32"


def plan_of(folder: Path, explain: ExplainMethod) -> Plan:
    def make() -> MLPRegressor:
        return MLPRegressor(hidden_layer_sizes=(16,), learning_rate_init=5e-3, max_iter=400, tol=0.5, random_state=0)

    package = Combination("MLP regressor", "windows", "mlp", make, "regression").package(folder / "package")
    (folder / "work").mkdir()
    return Plan(package, [RECIPES[TARGET]], explain, 0, folder / "work", lambda what, how: None)


def x4(done: Conversion) -> list[str]:
    return [gate.verdict for gate in done.reports[0].gates if gate.gate == "X4"]


def confused(content: bytes) -> bytes:
    """A student that gives to the oldest segment of each channel what it takes from the newest; the channels stay as they are."""
    arrays = read_npz(content, (), "explainer")
    parts = by_segment(arrays["second_bias"], arrays["players"].shape[1]).copy()
    parts[:, 0] += 30
    parts[:, -1] -= 30
    arrays["second_bias"] = parts.reshape(arrays["second_bias"].shape)
    return npz_bytes(arrays)


def test_a_student_that_confuses_segments_explains_whole_channels_in_the_bundle(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "amortised")
    built = build(plan)
    right, _ = _proven(plan, built, tmp_path / "right")

    assert built.explainer is not None
    other = replace(built, explainer=Explainer(confused(built.explainer.content), "amortised"))
    wrong, rows_back = _proven(plan, other, tmp_path / "wrong")

    assert x4(right) == ["pass", "pass"]
    assert x4(wrong) == ["fail", "fail"]
    assert rows_back == ()
    assert wrong.reports[0].explained
    assert wrong.bundle.variant(TARGET).explain_method == "amortised"
    with Scorer.open(tmp_path / "right", TARGET) as one, Scorer.open(tmp_path / "wrong", TARGET) as two:
        for row in plan.package.rows("golden").x:
            told, plain = one.score(row, explain=True).explanation, two.score(row, explain=True).explanation
            assert told is not None
            assert plain is not None
            assert told.segments is not None
            assert plain.segments is None
            np.testing.assert_allclose(plain.contributions, told.contributions, atol=1e-3)


def test_sampled_segments_are_proven_too(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "sampled")

    done, rows_back = _proven(plan, build(plan), tmp_path / "bundle")

    assert x4(done) == ["pass", "pass"]
    assert len(rows_back) == 4
    figures = done.reports[0].cost.fidelity if done.reports[0].cost is not None else None
    assert figures is not None
    assert "cosine_low" not in figures  # contributions of sampling show their own bars


def _proven(plan: Plan, built: Built, folder: Path) -> tuple[Conversion, tuple[tuple[int, int], ...]]:
    done = prove(plan, built, folder, Limits())
    with Scorer.open(folder, TARGET) as scorer:
        return done, scorer.segment_rows_back
