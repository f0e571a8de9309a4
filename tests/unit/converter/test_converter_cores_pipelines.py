"""Imported scikit-learn pipelines: transformers in front of trees become splits of the raw columns, others steps and weights."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, QuantileTransformer, RobustScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from converter.cores.exactness import rows_off
from converter.cores.pipelines import pipeline_core
from converter.to_onnx.core import core_to_onnx
from converter.to_onnx.foreign import estimator_to_onnx
from edgefleet.errors import VerdictError


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1, "openmp"):
        yield


def training() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Few distinct values of two decimals, a fifth of them missing: imputed constants and scaled values lie exactly on splits.
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(2000, 5)) * [1, 5, 1, 100, 1] + [0, 0, 3, 1000, 0], 2).astype(np.float32)
    x[:, 4] = rng.integers(0, 4, len(x))
    y = np.digitize(x[:, 0] + 0.2 * x[:, 1] * (x[:, 2] - 3) + (x[:, 4] == 2), [-1, 1]).astype(np.int64)
    x[rng.random(x.shape) < 0.2] = np.nan
    return x, y


def rows_of(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """20,000 rows of values that occur, mixed anew, and an unknown category."""
    rng = np.random.default_rng(1)
    rows = np.stack([rng.choice(column, 20_000) for column in x.T], axis=1)
    rows[:300, 4] = 7
    return rows


def columns(*, indicator: bool = False) -> ColumnTransformer:
    categories = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    return ColumnTransformer(
        [("numbers", SimpleImputer(strategy="median", add_indicator=indicator), [0, 1, 2, 3]), ("categories", categories, [4])],
        sparse_threshold=0,
    )


FRONTS = {
    "impute, standard": lambda: make_pipeline(SimpleImputer(), StandardScaler()),
    "impute, min-max": lambda: make_pipeline(SimpleImputer(strategy="median"), MinMaxScaler()),
    "columns, indicator, robust": lambda: make_pipeline(columns(indicator=True), RobustScaler()),
    "missing as category, first dropped": lambda: ColumnTransformer(
        [("c", OneHotEncoder(handle_unknown="ignore", drop="first"), [4]), ("n", make_pipeline(SimpleImputer(), StandardScaler()), [3, 1])],
        sparse_threshold=0,
    ),
}
HEADS = [
    HistGradientBoostingClassifier(max_iter=15, early_stopping=False, random_state=0),
    RandomForestClassifier(15, max_depth=8, random_state=0),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    LogisticRegression(max_iter=2000),
]


def compared(model: Any, graph: bytes, rows: NDArray[np.float32]) -> int:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"inputs": rows})
    return rows_off(model.predict_proba(rows.astype(np.float64)), probabilities).off


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
@pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning")
def test_a_pipeline_of_simple_transformers_is_exact_on_raw_rows(front: str, head: Any) -> None:
    x, y = training()
    model = Pipeline([("front", FRONTS[front]()), ("head", clone(head))]).fit(x, y)

    graph = core_to_onnx(pipeline_core(model, 5))

    assert compared(model, graph, rows_of(x)) == 0


@pytest.mark.parametrize("head", HEADS[:2], ids=lambda head: type(head).__name__)
def test_an_ordinal_encoder_in_front_of_trees_is_exact(head: Any) -> None:
    x, y = training()
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1)
    front = ColumnTransformer([("o", encoder, [4])], remainder=SimpleImputer())
    model = Pipeline([("front", front), ("head", clone(head))]).fit(x, y)

    assert compared(model, core_to_onnx(pipeline_core(model, 5)), rows_of(x)) == 0


def test_texts_are_known_by_their_place_among_the_categories() -> None:
    words = ["red", "green", "blue"]
    text = np.array([[words[i % 3]] for i in range(300)], object)
    text[::7] = np.nan
    fill = SimpleImputer(strategy="constant", fill_value="none")
    front = make_pipeline(fill, OneHotEncoder(handle_unknown="ignore", sparse_output=False))
    y = np.array([i % 3 == 1 or i % 7 == 0 for i in range(300)]).astype(int)
    model = Pipeline([("front", front), ("head", DecisionTreeClassifier(random_state=0))]).fit(text, y)
    # The schema names them in another order than the encoder does; -1 is a text that it does not know.
    place = {"green": 0.0, "blue": 1.0, "red": 2.0}
    raw = np.array([[place.get(value, np.nan)] for value in text[:, 0]] + [[-1.0]], np.float32)

    graph = core_to_onnx(pipeline_core(model, 1, [["green", "blue", "red"]]))

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"inputs": raw})
    wanted = model.predict_proba(np.vstack([text, np.array([["violet"]], object)]))
    assert np.array_equal(probabilities, wanted.astype(np.float32))


@pytest.mark.parametrize(
    ("front", "reason"),
    [
        (OneHotEncoder(min_frequency=5, handle_unknown="ignore", sparse_output=False), "rare categories put together"),
        (MinMaxScaler(clip=True), "MinMaxScaler with clip=True"),
        (PCA(2), "the transformer PCA has no form as plain columns"),
    ],
)
def test_a_transformer_without_a_form_is_named(front: Any, reason: str) -> None:
    x, y = training()
    model = Pipeline([("front", front), ("head", DecisionTreeClassifier(max_depth=3))]).fit(np.nan_to_num(x), y)

    with pytest.raises(VerdictError, match=reason):
        pipeline_core(model, 5)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(PCA(3), RandomForestClassifier(10, random_state=0)),
        make_pipeline(PCA(3), StandardScaler(), LogisticRegression()),
        GaussianNB(),
        VotingClassifier([("tree", DecisionTreeClassifier(max_depth=4, random_state=0)), ("bayes", GaussianNB())], voting="soft"),
    ],
    ids=["trees behind PCA", "linear behind PCA", "naive Bayes", "voting"],
)
def test_other_models_go_through_skl2onnx_with_our_outputs(model: Any) -> None:
    x, y = training()
    rows = np.nan_to_num(x)
    model.fit(rows.astype(np.float64), y)  # as float32, PCA would round otherwise than its graph, and no graph can repair that

    graphs = [estimator_to_onnx(model, 5, 3) for _ in range(2)]

    session = onnxruntime.InferenceSession(graphs[0], providers=["CPUExecutionProvider"])
    margin, probabilities = session.run(None, {"inputs": rows})
    assert graphs[0] == graphs[1]
    assert margin.shape == probabilities.shape == (2000, 3)
    assert rows_off(model.predict_proba(rows.astype(np.float64)), probabilities, limit=5e-6).off == 0


def test_what_skl2onnx_converts_wrongly_in_silence_is_refused_by_name() -> None:
    x, y = training()
    whole = np.nan_to_num(x)
    bayes = ("bayes", GaussianNB())
    by_categories = HistGradientBoostingClassifier(max_iter=2, categorical_features=[4])
    cases = [
        (VotingClassifier([("boosting", by_categories), bayes], voting="soft"), "HistGradientBoostingClassifier with categorical_features"),
        (VotingClassifier([("forest", RandomForestClassifier(2)), bayes], voting="soft"), "inside another model is not converted where"),
        (KNeighborsClassifier(), "KNeighborsClassifier is not converted to ONNX"),
        (make_pipeline(QuantileTransformer(n_quantiles=20), DecisionTreeClassifier()), "trees behind QuantileTransformer"),
    ]
    for model, reason in cases:
        with pytest.raises(VerdictError, match=reason):
            estimator_to_onnx(model.fit(whole, y), 5, 3, may_be_missing="inside" in reason)


def test_a_support_vector_machine_behind_a_scaler_keeps_its_own_width() -> None:
    from sklearn.calibration import CalibratedClassifierCV

    x, y = training()
    machine = CalibratedClassifierCV(SVC(), cv=2, ensemble=False)
    model = make_pipeline(SimpleImputer(), StandardScaler(), machine).fit(x[:600], np.minimum(y[:600], 1))

    assert compared(model, core_to_onnx(pipeline_core(model, 5)), rows_of(x)[:3000]) == 0
