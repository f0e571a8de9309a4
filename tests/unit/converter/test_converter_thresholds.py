"""Rounding thresholds down to float32 changes no decision about a float32 row; any other rounding would."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from converter.cores.reading import core_of_estimator
from converter.ensembles import ensemble_of, round_down
from converter.to_onnx.core import core_to_onnx


def test_every_float32_neighbour_of_a_threshold_is_decided_as_before() -> None:
    rng = np.random.default_rng(0)
    thresholds = rng.normal(size=50_000) * 10.0 ** rng.integers(-6, 9, 50_000)
    near = thresholds.astype(np.float32)
    rows = np.concatenate([near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))])

    exact = rows.astype(np.float64) <= np.tile(thresholds, 3)

    assert np.array_equal(rows <= np.tile(round_down(thresholds), 3), exact)
    assert not np.array_equal(rows <= np.tile(near, 3), exact)  # rounding to nearest does change decisions: the test can see it


def test_thresholds_that_float32_can_hold_stay_as_they_are() -> None:
    held = np.array([0.5, -0.0, 3.25, -1e-3, np.inf], np.float32)

    assert np.array_equal(round_down(held.astype(np.float64)), held)


def hard_rows(model: Any, columns: int) -> NDArray[np.float32]:
    """Rows whose values lie on split values and on their float32 neighbours."""
    ensemble = ensemble_of(model)
    rng = np.random.default_rng(1)
    cuts = [
        np.concatenate([t.threshold[(t.left >= 0) & (t.feature == f)] for t in ensemble.trees] + [np.zeros(1, np.float32)])
        for f in range(columns)
    ]
    rows = np.stack([rng.choice(cut, 3000) for cut in cuts], axis=1)
    step = rng.integers(-1, 2, rows.shape)
    moved = np.nextafter(rows, np.where(step > 0, np.float32(np.inf), np.float32(-np.inf)))
    return np.where(step == 0, rows, moved).astype(np.float32)


def training(columns: int = 6) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    # Values of two decimals, not rounded to float32 before fitting, as a foreign model would have been: the hard case.
    rng = np.random.default_rng(2)
    x = np.round(rng.normal(size=(1500, columns)) * 20, 2)
    return x, (np.digitize(x[:, 0] + x[:, 1] * x[:, 2] / 20, [-10, 10])).astype(np.int64)


def graph_of(model: Any) -> bytes:
    return core_to_onnx(core_of_estimator(model))


def answers(graph: bytes, rows: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    margin, probabilities = session.run(["margin", "probabilities"], {"inputs": rows})
    return margin, probabilities


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(25, max_depth=7, random_state=0),
        ExtraTreesClassifier(25, max_depth=7, random_state=0),
        DecisionTreeClassifier(max_depth=7, random_state=0),
        GradientBoostingClassifier(n_estimators=15, random_state=0),
        HistGradientBoostingClassifier(max_iter=25, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("classes", [2, 3])
def test_graphs_of_trees_answer_rows_on_split_values_as_scikit_learn_does(model: Any, classes: int) -> None:
    x, y = training()
    fitted = model.fit(x, np.minimum(y, classes - 1))
    rows = hard_rows(fitted, 6)

    margin, probabilities = answers(graph_of(fitted), rows)

    # 25 summands in float32: a last bit each; one wrong side of a split would be a thousand times more.
    assert np.abs(probabilities - fitted.predict_proba(rows.astype(np.float64))).max() < 2e-6
    if hasattr(fitted, "decision_function"):
        wanted = fitted.decision_function(rows.astype(np.float64)).reshape(len(rows), -1)
        assert np.abs(margin - wanted).max() < 2e-5
    else:
        assert np.array_equal(margin, probabilities)
