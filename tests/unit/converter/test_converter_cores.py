"""Cores: the same model as plain arrays, in float64; what has none is refused by name."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.covariance import ShrunkCovariance
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from converter.cores import Core
from converter.cores.exactness import rows_off
from converter.cores.reading import core_of_estimator
from converter.cores.running import margins_of
from edgefleet.errors import VerdictError


def training() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5)).astype(np.float32)
    return x, np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [-0.7, 0.7]).astype(np.int64)


def scaled(model: Any) -> Pipeline:
    return Pipeline([("scale", StandardScaler()), ("svm", model)])


def probabilities_of(core: Core, x: NDArray[np.float32]) -> NDArray[np.float64]:
    margin = margins_of(core, x)
    if core.link == "shares":
        return margin
    if core.link == "softmax":
        powers = np.exp(margin - margin.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    each = 1 / (1 + np.exp(-margin))
    return np.hstack([1 - each, each]) if core.link == "logistic" else np.asarray(each / each.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    "model",
    [
        DummyClassifier(strategy="prior"),
        LogisticRegression(),
        SGDClassifier(loss="log_loss", random_state=0),
        DecisionTreeClassifier(max_depth=5, random_state=0),
        RandomForestClassifier(10, random_state=0),
        GradientBoostingClassifier(n_estimators=10, random_state=0),
        GradientBoostingClassifier(n_estimators=10, init="zero", random_state=0),
        HistGradientBoostingClassifier(max_iter=10, random_state=0),
        MLPClassifier((8,), max_iter=20, random_state=0),
        scaled(CalibratedClassifierCV(SVC(), cv=3, ensemble=False)),
        scaled(CalibratedClassifierCV(SVC(C=50, gamma=2.0), cv=3, ensemble=False)),
        scaled(CalibratedClassifierCV(LinearSVC(), cv=3, ensemble=False)),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_classifiers_core_has_its_probabilities(model: Any, classes: int) -> None:
    x, y = training()
    model.fit(x, np.minimum(y, classes - 1))

    core = core_of_estimator(model)

    assert (core.classes, core.margins) == (classes, 1 if core.link == "logistic" else classes)
    assert rows_off(model.predict_proba(x.astype(np.float64)), probabilities_of(core, x), limit=1e-12).off == 0


@pytest.mark.parametrize(
    "model",
    [
        DummyRegressor(),
        Ridge(),
        DecisionTreeRegressor(max_depth=5, random_state=0),
        RandomForestRegressor(10, random_state=0),
        GradientBoostingRegressor(n_estimators=10, loss="huber", random_state=0),
        HistGradientBoostingRegressor(max_iter=10, random_state=0),
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=20, random_state=0),
        scaled(SVR()),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_regressors_core_has_its_values(model: Any) -> None:
    x, _ = training()
    model.fit(x, 100 + x[:, 0] * x[:, 1])

    core = core_of_estimator(model, task="regression")

    assert (core.classes, core.margins, core.link) == (0, 1, "none")
    assert rows_off(np.ravel(model.predict(x.astype(np.float64)))[:, None], margins_of(core, x), limit=1e-10).off == 0


def test_a_detectors_core_scores_strange_rows_higher() -> None:
    x, _ = training()
    forest = IsolationForest(n_estimators=20, random_state=0).fit(x)
    distance = scaled(ShrunkCovariance()).fit(x)

    scores = [margins_of(core_of_estimator(model, task="anomaly"), x)[:, 0] for model in (forest, distance)]

    assert np.abs(scores[0] + forest.score_samples(x)).max() < 1e-12
    assert np.abs(scores[1] - np.sqrt(distance[-1].mahalanobis(distance[0].transform(x.astype(np.float64))))).max() < 1e-12


def refused(model: Any, *, regression: bool = False) -> Any:
    x, y = training()
    model.fit(x, x[:, 0] ** 2 if regression else np.minimum(y, 1))
    return core_of_estimator(model, task="regression" if regression else "classification")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            GradientBoostingClassifier(loss="exponential", n_estimators=2),
            r"loss='exponential' is not converted",
        ),
        (GradientBoostingClassifier(init=LogisticRegression(), n_estimators=2), r"start model of its own"),
        (scaled(CalibratedClassifierCV(SVC(), cv=2, ensemble=True)), r"averages 2 machines.*train with ensemble=False"),
        (
            scaled(CalibratedClassifierCV(SVC(), cv=2, ensemble=False, method="isotonic")),
            r"CalibratedClassifierCV of SVC with method='isotonic'",
        ),
        (
            scaled(CalibratedClassifierCV(SVC(kernel="poly"), cv=2, ensemble=False)),
            r"kernel='poly' is not converted",
        ),
        (scaled(SVC()), r"wrap it in CalibratedClassifierCV"),
        (SGDClassifier(loss="hinge"), r"SGDClassifier with loss='hinge'"),
        (DummyClassifier(strategy="stratified"), r"strategy='stratified'"),
    ],
)
def test_a_classifier_without_a_core_is_refused_with_the_option(model: Any, reason: str) -> None:
    with pytest.raises(VerdictError, match=reason):
        refused(model)


def test_a_regressor_behind_an_exponential_is_refused() -> None:
    with pytest.raises(VerdictError, match=r"HistGradientBoostingRegressor with loss='poisson' answers an exponential"):
        refused(HistGradientBoostingRegressor(loss="poisson", max_iter=2), regression=True)


def test_several_targets_are_refused() -> None:
    x, _ = training()
    with pytest.raises(VerdictError, match="a tree with 2 outputs is not converted"):
        core_of_estimator(RandomForestRegressor(2).fit(x, x[:, :2]), task="regression")
    with pytest.raises(VerdictError, match="Ridge with 2 targets"):
        core_of_estimator(Ridge().fit(x, x[:, :2]), task="regression")


def test_a_classifier_for_a_regression_is_refused() -> None:
    x, y = training()
    with pytest.raises(VerdictError, match="LogisticRegression does not answer regression"):
        core_of_estimator(LogisticRegression().fit(x, y), task="regression")


def test_categories_as_texts_are_refused() -> None:
    import pandas

    table = pandas.DataFrame({"a": pandas.Categorical(["u", "v"] * 50), "b": np.arange(100.0)})
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype").fit(table, [0, 1] * 50)

    with pytest.raises(VerdictError, match="categories as texts"):
        core_of_estimator(model)
