"""Trees are explained exactly: against shap, against sums over all coalitions, behind cleaning steps, and as an ONNX graph."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from converter.cores.running import leaves_of as reached
from converter.ensembles import ensemble_of
from converter.explain.behind import cleaned
from converter.explain.treeshap import compile_leaves, compile_treeshap, merged_widths, treeshap_bytes
from converter.explain.treeshap_onnx import treeshap_to_onnx
from device_agent.explain import open_explainer
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace
from tests.unit.converter.tree_oracle import coalition_value, shapley_by_definition

Matrix = NDArray[np.float32]


def rows(n: int, columns: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def contributions(content: bytes, x: Matrix, columns: int) -> NDArray[np.float64]:
    """[n, F, K] by the device's own code."""
    explainer = open_explainer(content, "treeshap", tuple(f"x{i}" for i in range(x.shape[-1])), columns)
    index = [1] if columns == 1 else list(range(columns))
    return np.stack([[explainer.explain(row, k, 0.0, lambda r: r).contributions for k in index] for row in x]).transpose(0, 2, 1)


def onnx_contributions(graph: bytes, x: Matrix) -> NDArray[np.float64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(["contributions"], {"inputs": x})[0], np.float64)
    return found[..., None] if found.ndim == 2 else found


def shap_values(model: Any, x: Matrix) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        # shap looks for optional packages and numpy aliases when imported; nothing of it concerns the values.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"shap|tqdm")
        import shap

        found = np.asarray(shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(x, check_additivity=False))
    return found[..., None] if found.ndim == 2 else found


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(20, max_depth=7, random_state=0),
        GradientBoostingRegressor(n_estimators=30, random_state=0),
        HistGradientBoostingRegressor(max_iter=30, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_regressors_contributions_equal_those_of_shap(model: Any) -> None:
    x = rows(600, 6)
    fitted = model.fit(x, 300 + 40 * x[:, 0] * x[:, 1] + x[:, 2])

    content = compile_treeshap(ensemble_of(fitted))
    theirs = shap_values(fitted, x[:30])

    # Targets of hundreds: relative to the largest contribution, as float32 products are.
    assert np.abs(contributions(content, x[:30], 1) - theirs).max() <= 2e-6 * np.abs(theirs).max()


def test_splits_by_sets_of_categories_equal_the_sum_over_all_coalitions() -> None:
    rng = np.random.default_rng(3)
    x = np.column_stack([rng.integers(0, 9, 900), rng.normal(size=900), rng.integers(0, 5, 900), rng.normal(size=900)]).astype(np.float32)
    y = np.isin(x[:, 0], [1, 4, 7]) ^ (x[:, 1] > 0.3) ^ (x[:, 2] == 2)
    x[rng.random(900) < 0.1, 0] = np.nan
    model = HistGradientBoostingClassifier(max_iter=8, max_leaf_nodes=9, categorical_features=[0, 2], random_state=0).fit(x, y)
    ensemble = ensemble_of(model)
    assert any(tree.categories for tree in ensemble.trees)
    strange = np.array([[np.nan, 0.5, 2, 0], [77, 0.5, -1, np.nan], [4, -9, 3.5, 1]], np.float32)
    asked = np.concatenate([x[:12], strange])

    compiled = compile_leaves(ensemble)
    mine = contributions(treeshap_bytes(compiled), asked, 1)

    wanted = np.stack([shapley_by_definition(ensemble, row) for row in asked])
    assert np.abs(mine - wanted).max() <= 2e-6 * np.abs(wanted).max()
    assert np.abs(onnx_contributions(treeshap_to_onnx(compiled, 4), asked) - wanted).max() <= 2e-6 * np.abs(wanted).max()


def test_several_classes_of_boosting_equal_the_sum_over_all_coalitions() -> None:
    x = rows(400, 4)
    model = GradientBoostingClassifier(n_estimators=6, random_state=0).fit(x, np.digitize(x[:, 0] + x[:, 1], [-0.5, 0.5]))
    ensemble = ensemble_of(model)

    mine = contributions(compile_treeshap(ensemble), x[:10], 3)

    wanted = np.stack([shapley_by_definition(ensemble, row) for row in x[:10]])
    assert np.abs(mine - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (RandomForestClassifier(15, random_state=0), 2),
        (RandomForestClassifier(15, max_depth=5, random_state=0), 3),
        (HistGradientBoostingClassifier(max_iter=20, random_state=0), 1),
        (HistGradientBoostingClassifier(max_iter=10, random_state=0), 3),
    ],
    ids=["two-classes", "three-classes", "boosted", "boosted-three"],
)
def test_the_graph_says_what_the_arrays_say_row_by_row_and_as_a_batch(model: Any, columns: int) -> None:
    x = rows(500, 5)
    x[np.random.default_rng(1).random(x.shape) < 0.1] = np.nan
    label = np.digitize(np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]), [0.0] if columns < 3 else [-0.5, 0.5])
    compiled = compile_leaves(ensemble_of(model.fit(x, label)))
    asked = np.concatenate([x[:30], np.full((1, 5), -np.inf, np.float32), np.full((1, 5), np.inf, np.float32)])

    graph = treeshap_to_onnx(compiled, 5)
    whole = onnx_contributions(graph, asked)
    single = np.concatenate([onnx_contributions(graph, row[None]) for row in asked])

    mine = contributions(treeshap_bytes(compiled), asked, columns)
    assert np.abs(whole - mine).max() <= 2e-6 * np.abs(mine).max()
    assert np.abs(single - mine).max() <= 2e-6 * np.abs(mine).max()


def test_the_graph_names_the_base_and_uses_operators_of_the_standard_only() -> None:
    import onnx
    import onnxruntime

    x = rows(300, 4)
    compiled = compile_leaves(ensemble_of(RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 0)))
    graph = treeshap_to_onnx(compiled, 4)

    base = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["base"], {"inputs": x[:1]})[0]

    np.testing.assert_allclose(base, compiled.base, rtol=1e-6)
    assert {entry.domain for entry in onnx.load_from_string(graph).opset_import} == {""}
    assert graph == treeshap_to_onnx(compiled, 4)


def cleaning() -> Steps:
    """Three raw inputs become: the first with its gaps filled, whether it was missing, and four flags of the second, then the third."""
    trace = Trace((3,))
    first = trace.take(0, [0])
    filled = trace.where(trace.isnan(first), np.float32(0.25), first)
    flags = [trace.f32(trace.eq(trace.take(0, [1]), np.float32(code))) for code in range(4)]
    last = trace.concat([filled, trace.f32(trace.isnan(first)), *flags, trace.take(0, [2])])
    assert last == len(trace.ops) - 1
    return Steps(tuple(trace.ops), ("a", "a missing", "b0", "b1", "b2", "b3", "c"), (0, 0, 1, 1, 1, 1, 2))


def test_behind_cleaning_steps_the_derived_columns_are_summed_into_their_raw_input() -> None:
    rng = np.random.default_rng(2)
    x = np.column_stack([rng.normal(size=500), rng.integers(0, 4, 500), rng.normal(size=500)]).astype(np.float32)
    x[rng.random(500) < 0.2, 0] = np.nan
    steps = cleaning()
    z = steps.run(x)
    model = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(z, (z[:, 0] > 0) ^ (z[:, 3] > 0) ^ (z[:, 1] > 0))
    compiled = compile_leaves(ensemble_of(model))

    raw = contributions(treeshap_bytes(compiled, steps), x[:40], 1)
    columns = contributions(treeshap_bytes(compiled), z[:40], 1)

    summed = np.stack([columns[:, :2].sum(axis=1), columns[:, 2:6].sum(axis=1), columns[:, 6]], axis=1)
    np.testing.assert_allclose(raw, summed, atol=1e-12)
    margin = model.decision_function(z[:40].astype(np.float64))
    assert np.abs(compiled.base + raw.sum(axis=1)[:, 0] - margin).max() < 1e-5
    assert np.abs(onnx_contributions(treeshap_to_onnx(compiled, 3, steps), x[:40]) - raw).max() <= 2e-6 * np.abs(raw).max()


def test_a_pipelines_own_steps_stand_behind_the_packages() -> None:
    x = rows(300, 3)
    first, second = Trace((3,)), Trace((3,))
    first.take(0, [2, 0, 1])
    second.mul(0, np.array([2, 3, 4], np.float32))
    steps = [Steps(tuple(first.ops), ("c", "a", "b"), (2, 0, 1)), Steps(tuple(second.ops), ("c", "a", "b"), (0, 1, 2))]
    z = cleaned(steps, x)
    ensemble = ensemble_of(RandomForestRegressor(5, random_state=0).fit(z, z[:, 1] - z[:, 0]))

    raw = contributions(compile_treeshap(ensemble, 500_000, *steps), x[:20], 1)

    columns = contributions(compile_treeshap(ensemble), z[:20], 1)
    np.testing.assert_allclose(raw, columns[:, [1, 2, 0]], atol=1e-12)


def test_a_windows_values_are_summed_into_their_channel() -> None:
    x = np.random.default_rng(5).normal(size=(400, 4, 2)).astype(np.float32)
    trace = Trace((4, 2))
    trace.reshape(trace.rows(0, 1, 4), (6,))
    steps = Steps(tuple(trace.ops), tuple(f"v{i}" for i in range(6)), (0, 1) * 3)
    z = steps.run(x)
    ensemble = ensemble_of(RandomForestRegressor(5, random_state=0).fit(z, z[:, 0] + z[:, 5]))
    explainer = open_explainer(compile_treeshap(ensemble, 500_000, steps), "treeshap", ("a", "b"), 1)

    found = explainer.explain(x[0], None, 0.0, lambda r: r).contributions

    columns = contributions(compile_treeshap(ensemble), z[:1], 1)[0, :, 0]
    np.testing.assert_allclose(found, [columns[0::2].sum(), columns[1::2].sum()], atol=1e-12)


def test_pure_leaves_of_a_forest_cost_nothing() -> None:
    x = rows(600, 5)
    ensemble = ensemble_of(RandomForestClassifier(10, random_state=0).fit(x, x[:, 0] * x[:, 1] > 0))
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)

    kept = sum(len(bucket.feat) for bucket in compile_leaves(ensemble).buckets)

    assert kept < 0.6 * leaves


def test_many_short_paths_are_not_padded_to_the_longest() -> None:
    assert merged_widths({3: 100_000, 12: 50}) == [[3], [12]]
    assert merged_widths({1: 3, 2: 4, 5: 60}) == [[1, 2, 5]]


def test_the_oracle_reaches_the_leaf_that_the_model_reaches() -> None:
    x = rows(200, 4)
    tree = ensemble_of(RandomForestRegressor(1, random_state=0).fit(x, x[:, 0])).trees[0]

    value = coalition_value(tree, 0, x[7], frozenset(range(4)))

    np.testing.assert_array_equal(value, tree.value[reached(tree, x[7:8].astype(np.float64))[0]])


def test_the_graph_takes_windows_that_no_step_flattens() -> None:
    x = np.random.default_rng(6).normal(size=(300, 3, 2)).astype(np.float32)
    steps = Steps.identity((3, 2))
    flat = x.reshape(300, 6)
    compiled = compile_leaves(ensemble_of(RandomForestRegressor(4, random_state=0).fit(flat, flat[:, 1] * flat[:, 4])))

    graph = onnx_contributions(treeshap_to_onnx(compiled, 2, steps), x[:9])

    explainer = open_explainer(treeshap_bytes(compiled, steps), "treeshap", ("a", "b"), 1)
    mine = np.stack([explainer.explain(row, None, 0.0, lambda r: r).contributions for row in x[:9]])
    assert np.abs(graph[..., 0] - mine).max() <= 2e-6 * np.abs(mine).max()
