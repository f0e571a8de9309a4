"""ONNX graphs of trees answer as scikit-learn does, row by row, on rows made to show the difference; other models to 1e-6."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.covariance import ShrunkCovariance
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from converter.cores import Core, Layers, Trees
from converter.cores.dense import centered
from converter.cores.exactness import Off, hard_rows, rows_off
from converter.cores.reading import core_of_estimator
from converter.ensembles import ensemble_of
from converter.to_onnx.core import core_to_onnx
from converter.to_onnx.foreign import by_skl2onnx

ROWS = 100_000


def run(graph: bytes, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    answers: list[NDArray[np.float32]] = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(
        None, {"inputs": x}
    )
    return answers


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    # Histogram boosting lets its threads meet after every tree: beside other work that takes seconds.
    with threadpool_limits(1, "openmp"):
        yield


def training(*, missing: bool = False, categories: bool = False) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    # Two decimals that float32 does not hold: the hard case of a model that was fitted elsewhere.
    rng = np.random.default_rng(2)
    x = np.round(rng.normal(size=(2000, 6)) * 20, 2)
    if categories:
        x[:, 3] = rng.integers(-1, 12, len(x)) * 1.5
        x[:, 5] = rng.integers(0, 150, len(x))
    y = np.digitize(x[:, 0] + x[:, 1] * x[:, 2] / 20 + 8 * (x[:, 3] % 4 < 2) - 6 * (x[:, 5] % 7 < 3), [-10, 10]).astype(np.int64)
    if missing:
        x[rng.random(x.shape) < 0.15] = np.nan
    return x, y


FORESTS = [RandomForestClassifier(30, max_depth=8, random_state=0), ExtraTreesClassifier(30, max_depth=8, random_state=0)]
BOOSTINGS = [
    GradientBoostingClassifier(n_estimators=30, random_state=0),
    HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=0),
]
MISSING = [*FORESTS, BOOSTINGS[1]]


def compared(model: Any, rows: NDArray[np.float32]) -> Off:
    _, probabilities = run(core_to_onnx(core_of_estimator(model)), rows)
    return rows_off(model.predict_proba(rows.astype(np.float64)), probabilities)


@pytest.mark.parametrize("model", [*FORESTS, *BOOSTINGS], ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("classes", [2, 3])
def test_no_row_on_or_beside_a_threshold_is_answered_otherwise(model: Any, classes: int) -> None:
    x, y = training()
    model.fit(x, np.minimum(y, classes - 1))

    found = compared(model, hard_rows(ensemble_of(model), ROWS, 1))

    assert (found.rows, found.off) == (ROWS, 0)


@pytest.mark.parametrize("model", MISSING, ids=lambda model: type(model).__name__)
def test_missing_values_take_the_side_that_the_model_learnt(model: Any) -> None:
    x, y = training(missing=True)
    model.fit(x, y)

    found = compared(model, hard_rows(ensemble_of(model), ROWS, 1, missing=True))

    assert (found.rows, found.off) == (ROWS, 0)


def test_skl2onnx_answers_a_forest_with_missing_values_wrongly_where_our_node_does_not() -> None:
    x, y = training(missing=True)
    model = RandomForestClassifier(30, max_depth=8, random_state=0).fit(x, y)
    rows = hard_rows(ensemble_of(model), 3000, 1, missing=True)

    theirs = run(by_skl2onnx(model, 6, 3), rows)[-1]

    assert rows_off(model.predict_proba(rows.astype(np.float64)), theirs).off > 300
    assert compared(model, rows).off == 0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
def test_splits_by_categories_are_exact_for_known_unknown_negative_and_missing_values(classes: int, missing: bool) -> None:
    x, y = training(missing=missing, categories=True)
    model = HistGradientBoostingClassifier(max_iter=30, categorical_features=[3, 5], early_stopping=False, random_state=0)
    model.fit(x, np.minimum(y, classes - 1))
    rows = hard_rows(ensemble_of(model), ROWS, 1, missing=True)
    rows[:2000, 3], rows[2000:4000, 5], rows[4000:6000, 5] = -7, 500, 3.5

    found = compared(model, rows)

    assert sum(len(tree.categories or {}) for tree in ensemble_of(model).trees) > 50
    assert (found.rows, found.off) == (ROWS, 0)


def test_a_category_that_float32_cannot_hold_matches_no_row() -> None:
    x, y = training(categories=True)
    x[:, 3] = np.where(x[:, 3] > 4, 0.1, x[:, 3])
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features=[3], early_stopping=False, random_state=0).fit(x, y)

    found = compared(model, x.astype(np.float32))  # 0.1 becomes another number, which the model never saw

    assert found.off == 0


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(20, max_depth=8, random_state=0),
        ExtraTreesRegressor(20, max_depth=8, random_state=0),
        GradientBoostingRegressor(n_estimators=30, random_state=0),
        HistGradientBoostingRegressor(max_iter=30, early_stopping=False, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_values_of_regressors_are_exact_relative_to_their_size(model: Any) -> None:
    x, _ = training()
    y = 500 + 3 * x[:, 0] + x[:, 1] * x[:, 2]
    model.fit(x, y)
    core = core_of_estimator(model, task="regression")
    rows = hard_rows(ensemble_of(model), ROWS, 1)

    (margin,) = run(core_to_onnx(core), rows)

    wanted = model.predict(rows.astype(np.float64))[:, None]
    assert rows_off(wanted, margin, scale=float(np.abs(wanted).max())).off == 0


def test_a_constant_answers_whatever_it_is_given() -> None:
    from sklearn.dummy import DummyClassifier

    model = DummyClassifier(strategy="prior").fit(np.zeros((6, 1)), [0, 0, 0, 1, 1, 2])
    core = core_of_estimator(model)
    assert isinstance(core.head, Trees)

    margin, probabilities = run(core_to_onnx(core.__class__(**{**core.__dict__, "features": 2})), np.full((3, 2), np.nan, np.float32))

    # onnxruntime would add base values to the first class only: the offset must not be one.
    assert np.abs(probabilities - [[1 / 2, 1 / 3, 1 / 6]]).max() < 1e-7
    assert np.abs(margin - np.log([[1 / 2, 1 / 3, 1 / 6]])).max() < 1e-6


def scaled(model: Any) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("model", model)])


ACTIVATIONS = ("identity", "relu", "tanh", "logistic")
CALIBRATED = {"cv": 3, "ensemble": False, "method": "sigmoid"}


@pytest.mark.parametrize(
    "model",
    [
        scaled(LogisticRegression(C=10)),
        *(
            scaled(MLPClassifier((12, 8), activation=kind, max_iter=30, random_state=0))
            for kind in ("identity", "relu", "tanh", "logistic")
        ),
        scaled(CalibratedClassifierCV(SVC(gamma=0.2), **CALIBRATED)),
        scaled(CalibratedClassifierCV(SVC(gamma=5.0, C=100.0), **CALIBRATED)),
    ],
    ids=lambda model: f"{type(model[-1]).__name__}",
)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_probabilities_of_other_models_are_within_a_millionth(model: Any, classes: int) -> None:
    x, y = training()
    model.fit(x, np.minimum(y, classes - 1))
    rows = np.concatenate([x, x[::-1] * 1.3]).astype(np.float32)

    _, probabilities = run(core_to_onnx(core_of_estimator(model)), rows)

    assert rows_off(model.predict_proba(rows.astype(np.float64)), probabilities).off == 0


@pytest.mark.parametrize(
    "model",
    [
        scaled(Ridge()),
        scaled(MLPRegressor(hidden_layer_sizes=(12,), max_iter=30, random_state=0)),
        scaled(SVR(C=30)),
        scaled(SVR(kernel="linear")),
    ],
    ids=lambda model: f"{type(model[-1]).__name__}",
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_values_of_other_models_are_within_a_hundred_thousandth_of_their_spread(model: Any) -> None:
    x, _ = training()
    y = 3 * x[:, 0] + x[:, 1] * x[:, 2] / 20
    model.fit(x, y)
    rows = x.astype(np.float32)

    (margin,) = run(core_to_onnx(core_of_estimator(model, task="regression")), rows)

    wanted = model.predict(rows.astype(np.float64))[:, None]
    assert rows_off(wanted, margin, scale=float(wanted.std()), limit=1e-5).off == 0


@pytest.mark.parametrize("missing", [False, True])
def test_scores_of_an_isolation_forest_are_exact_with_and_without_missing_values(missing: bool) -> None:
    x, _ = training(missing=missing)
    model = IsolationForest(n_estimators=50, max_features=0.7, random_state=0).fit(x)
    core = core_of_estimator(model, "isolation_forest", "anomaly")
    assert isinstance(core.head, Trees)
    rows = hard_rows(core.head.ensemble, 20_000, 1, missing=missing)

    (margin,) = run(core_to_onnx(core), rows)

    assert rows_off(-model.score_samples(rows.astype(np.float64))[:, None], margin).off == 0


def test_distances_are_exact_far_from_zero_too() -> None:
    x, _ = training()
    x = x + 1e5  # spread 20: float32 holds the rows to 1/256 of a unit, and the distance of what it holds is meant
    model = scaled(ShrunkCovariance(shrinkage=0.05)).fit(x)
    rows = x.astype(np.float32)

    (margin,) = run(core_to_onnx(core_of_estimator(model, "mahalanobis", "anomaly")), rows)

    wanted = np.sqrt(model[-1].mahalanobis(model[0].transform(rows.astype(np.float64))))[:, None]
    assert rows_off(wanted, margin, limit=1e-5).off == 0


def test_a_linear_model_of_large_numbers_needs_its_centre() -> None:
    x, y = training()
    rows = (x + 1e5).astype(np.float32)
    model = scaled(LogisticRegression()).fit(rows, np.minimum(y, 1))
    core = core_of_estimator(model)
    assert isinstance(core.head, Layers)
    wanted = model.predict_proba(rows.astype(np.float64))

    with_center = run(core_to_onnx(Core(centered(core.head, rows), 6, 1, 2, "logistic")), rows)[1]
    without = run(core_to_onnx(core), rows)[1]

    assert rows_off(wanted, with_center).off == 0
    assert rows_off(wanted, without, limit=1e-5).off > 1000


@pytest.mark.parametrize("model", [*FORESTS[:1], *BOOSTINGS], ids=lambda model: type(model).__name__)
def test_equal_models_give_equal_bytes_of_old_operators_only(model: Any) -> None:
    import onnx

    x, y = training()
    graphs = [core_to_onnx(core_of_estimator(model.fit(x, y))) for _ in range(2)]

    loaded = onnx.load_from_string(graphs[0])
    assert graphs[0] == graphs[1]
    assert {entry.domain: entry.version for entry in loaded.opset_import} == {"": 17, "ai.onnx.ml": 3}
    assert loaded.ir_version == 8
