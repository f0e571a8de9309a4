"""The compiled explanation is TreeSHAP: equal to shap's own, and adding up to the margin that the graph answers."""

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from converter.ensembles import ensemble_of
from converter.explain.treeshap import compile_treeshap
from device_agent.explain import open_explainer
from edgefleet.errors import VerdictError


def shap_values(model: Any, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """[n, F, K] of the reference implementation."""
    with warnings.catch_warnings():
        # shap looks for optional packages and numpy aliases when imported; nothing of it concerns the values.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"shap|tqdm")
        import shap

        found = np.asarray(shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(rows, check_additivity=False))
    return found[..., None] if found.ndim == 2 else found


def contributions(model: Any, rows: NDArray[np.float32], columns: int) -> NDArray[np.float64]:
    """[n, F, K] as a device computes them."""
    names = tuple(f"x{i}" for i in range(rows.shape[1]))
    explainer = open_explainer(compile_treeshap(ensemble_of(model)), "treeshap", names, columns)
    index = [1] if columns == 1 else list(range(columns))
    return np.stack([[explainer.explain(row, k, 0.0, lambda x: x).contributions for k in index] for row in rows]).transpose(0, 2, 1)


CASES = [
    (load_breast_cancer, RandomForestClassifier(30, max_depth=6, random_state=0), 2),
    (load_wine, RandomForestClassifier(20, random_state=0), 3),
    (load_wine, DecisionTreeClassifier(random_state=0), 3),
    (load_breast_cancer, GradientBoostingClassifier(n_estimators=40, random_state=0), 1),
    (load_breast_cancer, HistGradientBoostingClassifier(max_iter=40, random_state=0), 1),
    (load_wine, HistGradientBoostingClassifier(max_iter=20, random_state=0), 3),
]


@pytest.mark.parametrize(("load", "model", "columns"), CASES, ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "")
def test_contributions_equal_those_of_shap(load: Any, model: Any, columns: int) -> None:
    x, y = load(return_X_y=True)
    rows = x.astype(np.float32)
    fitted = model.fit(rows.astype(np.float64), y)
    explained = rows[:20]

    mine, theirs = contributions(fitted, explained, columns), shap_values(fitted, explained)

    # Float32 products: 8e-7 relative was seen over 20 models, the bound leaves ten times that.
    assert np.abs(mine - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(("load", "model", "columns"), CASES, ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "")
def test_base_and_contributions_add_up_to_the_margin(load: Any, model: Any, columns: int) -> None:
    x, y = load(return_X_y=True)
    rows = x.astype(np.float32)[::9]
    fitted = model.fit(x.astype(np.float32).astype(np.float64), y)
    margin = fitted.predict_proba(rows) if columns > 1 and not hasattr(fitted, "decision_function") else None
    margin = fitted.predict_proba(rows) if isinstance(fitted, RandomForestClassifier | DecisionTreeClassifier) else margin
    margin = fitted.decision_function(rows).reshape(len(rows), -1) if margin is None else margin

    with np.load(BytesIO(compile_treeshap(ensemble_of(fitted))), allow_pickle=False) as stored:
        base = stored["base"]
    total = base + contributions(fitted, rows, columns).sum(axis=1)

    assert np.abs(total - margin).max() <= 1e-5 * max(1.0, np.abs(margin).max())


def test_rows_on_split_values_and_with_missing_values_add_up_too() -> None:
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(800, 5)), 1)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    x[rng.random(x.shape) < 0.1] = np.nan
    rows = x.astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(rows.astype(np.float64), y)

    with np.load(BytesIO(compile_treeshap(ensemble_of(model))), allow_pickle=False) as stored:
        base = stored["base"]
    total = base + contributions(model, rows[:200], 1).sum(axis=1)

    assert np.abs(total[:, 0] - model.decision_function(rows[:200].astype(np.float64))).max() < 1e-5


def test_equal_models_compile_to_equal_bytes() -> None:
    x, y = load_wine(return_X_y=True)
    made = [compile_treeshap(ensemble_of(RandomForestClassifier(5, random_state=0).fit(x, y))) for _ in range(2)]

    assert made[0] == made[1]


def test_an_explanation_larger_than_its_limit_is_refused_with_the_remedy() -> None:
    x, y = load_wine(return_X_y=True)
    ensemble = ensemble_of(RandomForestClassifier(5, random_state=0).fit(x, y))

    with pytest.raises(VerdictError, match=r"more than 100 slots.*fewer or shallower trees"):
        compile_treeshap(ensemble, max_slots=100)
