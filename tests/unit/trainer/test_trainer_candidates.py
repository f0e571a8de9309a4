"""The candidates of scikit-learn: what they learn, what they refuse, and that their files are what answers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from edgefleet.errors import ArtifactError, ConfigError, InputError, MissingPartError
from edgefleet.manifest import Task
from trainer.candidates import CANDIDATES, Problem, check_candidates, defaults, describe, fit, open_model, suggest
from trainer.candidates.backends import parallel
from trainer.candidates.scikit import TRUSTED_TYPES
from trainer.candidates.spaces import SPACES

CLASSES: dict[Task, int] = {"classification": 3, "regression": 0, "anomaly": 0}
SCIKIT = [name for name, candidate in CANDIDATES.items() if candidate.library == "sklearn"]
EVERY = [pytest.param(name, task, id=f"{name}-{task}") for name in SCIKIT for task in CANDIDATES[name].tasks]
FAST: dict[str, dict[str, Any]] = {
    "forest": {"n_estimators": 8},
    "extra_trees": {"n_estimators": 8},
    "boosting": {"n_estimators": 15},
    "hist_boosting": {"max_iter": 15},
    "isolation_forest": {"n_estimators": 20},
    "mlp": {"hidden": 16, "max_iter": 200},
}
Sides = tuple[NDArray[np.float32], NDArray[Any], NDArray[np.float32], NDArray[Any]]


def problem(task: Task, classes: int | None = None, features: int = 5) -> Problem:
    return Problem(task=task, classes=CLASSES[task] if classes is None else classes, shape=(features,), seed=4)


def rows(task: Task) -> Sides:
    """(z, label) of 400 training and 200 validation rows, of inputs of very different sizes."""
    rng = np.random.default_rng(7)
    plain = rng.normal(size=(600, 5))
    label: NDArray[Any] = np.digitize(plain[:, 0] + plain[:, 3], [-0.5, 0.8]).astype(np.int64)
    if task == "regression":
        label = 1000 + 40 * plain[:, 0] + 25 * plain[:, 1]
    if task == "anomaly":
        label = np.zeros(600, np.int64)
        label[::20] = 1
        plain[::20, 2] += 9
    z = (plain * [1, 100, 0.01, 1, 1] + [0, 5000, 0, 1, 2]).astype(np.float32)
    return z[:400], label[:400], z[400:], label[400:]


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_a_reloaded_file_answers_as_fitted_and_does_not_depend_on_jobs(name: str, task: Task) -> None:
    z, label, z_validation, validation = rows(task)
    weight = np.linspace(0.5, 1.5, len(z))

    one = fit(name, z, label, problem(task), parameters=FAST.get(name), weight=weight, validation=(z_validation, validation))
    two = fit(
        name, z, label, replace(problem(task), jobs=2), parameters=FAST.get(name), weight=weight, validation=(z_validation, validation)
    )

    reopened = open_model(one.content, one.model, problem(task))(z_validation)
    assert one.content == two.content
    assert np.array_equal(reopened, one.predict(z_validation))
    assert reopened.dtype == np.float64
    assert reopened.shape == ((200, 3) if task == "classification" else (200,))
    assert one.size_bytes > 0
    assert one.latency_us > 0
    assert one.family == CANDIDATES[name].family


@pytest.mark.parametrize("name", [name for name in SCIKIT if "classification" in CANDIDATES[name].tasks])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers_answer_probabilities_that_beat_the_shares(name: str, classes: int) -> None:
    z, label, z_validation, validation = rows("classification")
    label, validation = np.minimum(label, classes - 1), np.minimum(validation, classes - 1)

    fitted = fit(name, z, label, problem("classification", classes), parameters=FAST.get(name))

    probabilities = fitted.predict(z_validation)
    right = (probabilities.argmax(axis=1) == validation).mean()
    shares = np.bincount(validation).max() / len(validation)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    assert probabilities.min() >= 0
    assert right > shares + 0.15 if not CANDIDATES[name].baseline else right <= shares


@pytest.mark.parametrize("name", [name for name in SCIKIT if "regression" in CANDIDATES[name].tasks and name != "mean"])
def test_regressors_explain_most_of_the_target(name: str) -> None:
    z, label, z_validation, validation = rows("regression")

    fitted = fit(name, z, label, problem("regression"), parameters=FAST.get(name))

    assert np.square(fitted.predict(z_validation) - validation).mean() < 0.35 * validation.var()


@pytest.mark.parametrize("name", [name for name in SCIKIT if "anomaly" in CANDIDATES[name].tasks])
def test_strange_rows_score_higher_and_are_not_learnt_from(name: str) -> None:
    z, label, z_validation, validation = rows("anomaly")

    fitted = fit(name, z, label, problem("anomaly"), parameters=FAST.get(name))
    without = fit(name, z[label == 0], label[label == 0], problem("anomaly"), parameters=FAST.get(name))

    score = fitted.predict(z_validation)
    assert np.median(score[validation == 1]) > np.quantile(score[validation == 0], 0.9)
    assert fitted.content == without.content


def test_linear_models_are_those_of_standardised_inputs_written_for_raw_ones() -> None:
    z, label, z_validation, _ = rows("classification")
    mean, deviation = z.mean(axis=0, dtype=np.float64), z.std(axis=0, dtype=np.float64)
    by_hand = LogisticRegression(max_iter=1000).fit((z - mean) / deviation, label)
    target = rows("regression")[1]
    ridge = Ridge(solver="cholesky").fit((z - mean) / deviation, target)

    logistic = fit("logistic", z, label, problem("classification"))
    regression = fit("ridge", z, target, problem("regression"))

    # Moving the scale into the weights reorders float64 sums: a few units in the last place of terms around 50.
    expected = by_hand.predict_proba((z_validation - mean) / deviation)
    assert np.abs(logistic.predict(z_validation) - expected).max() < 1e-9
    assert np.abs(regression.predict(z_validation) - ridge.predict((z_validation - mean) / deviation)).max() < 1e-8
    assert list(vars(skops.io.loads(logistic.content))["coef_"].shape) == [3, 5]


def test_weights_change_what_is_learnt() -> None:
    z, label, z_validation, _ = rows("classification")
    weight = np.where(label == 0, 20.0, 1.0)

    plain = fit("logistic", z, label, problem("classification")).predict(z_validation)
    weighted = fit("logistic", z, label, problem("classification"), weight=weight).predict(z_validation)

    assert weighted[:, 0].mean() > plain[:, 0].mean() + 0.03


@pytest.mark.parametrize("name", [name for name in SCIKIT if not CANDIDATES[name].missing])
def test_missing_values_are_refused_with_the_remedy(name: str) -> None:
    task = CANDIDATES[name].tasks[0]
    z, label, _, _ = rows(task)
    z[7, 1] = np.nan

    with pytest.raises(ConfigError, match=r"cannot take missing values, 1 of 400 rows have some; add the cleaning step `impute`"):
        fit(name, z, label, problem(task))


@pytest.mark.parametrize("name", [name for name in SCIKIT if CANDIDATES[name].missing])
def test_missing_values_are_taken_where_the_table_says_so(name: str) -> None:
    task = CANDIDATES[name].tasks[0]
    z, label, z_validation, _ = rows(task)
    z[::3, 1] = np.nan
    z_validation[::2, 0] = np.nan

    fitted = fit(name, z, label, problem(task), parameters=FAST.get(name))

    assert np.isfinite(fitted.predict(z_validation)).all()


def test_a_forest_over_dask_is_the_serial_forest() -> None:
    z, label, _, _ = rows("classification")

    serial = fit("forest", z, label, problem("classification"))
    with parallel("dask", 2):
        spread = fit("forest", z, label, replace(problem("classification"), jobs=2))

    assert spread.content == serial.content


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_a_forest_over_a_local_backend_is_the_serial_forest(backend: Any) -> None:
    z, label, _, _ = rows("classification")

    serial = fit("forest", z, label, problem("classification"))
    with parallel(backend, 2):
        spread = fit("forest", z, label, replace(problem("classification"), jobs=2))

    assert spread.content == serial.content


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray.util.joblib")])
def test_a_backend_that_is_not_installed_is_named(backend: Any, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)

    with pytest.raises(MissingPartError, match=f'search.backend = "{backend}" needs .*pip install'), parallel(backend, 2):
        pass


def test_jobs_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"search.jobs = 0: expected at least 1"), parallel("loky", 0):
        pass


def test_histogram_boosting_stops_where_the_validation_loss_stops_falling() -> None:
    z, label, z_validation, validation = rows("classification")

    fitted = fit("hist_boosting", z, label, problem("classification"), validation=(z_validation, validation))

    losses = [entry["validation"] for entry in fitted.curve]
    assert len(losses) < defaults("hist_boosting", problem("classification"))["max_iter"]
    assert int(np.argmin(losses)) < len(losses) - 5
    assert losses[0] > min(losses)


def test_boosting_reports_its_loss_in_stages_and_ends_when_told() -> None:
    z, label, z_validation, validation = rows("regression")
    heard: list[tuple[int, float]] = []

    def go_on(step: int, loss: float) -> bool:
        heard.append((step, loss))
        return step < 30

    fitted = fit("boosting", z, label, problem("regression"), validation=(z_validation, validation), progress=go_on)
    by_hand = GradientBoostingRegressor(n_estimators=30, min_samples_leaf=5, random_state=4).fit(z, label)

    assert [step for step, _ in heard] == [10, 20, 30]
    assert heard[-1][1] == pytest.approx(np.square(by_hand.predict(z_validation) - validation).mean(), rel=1e-12)
    assert np.array_equal(fitted.predict(z_validation), by_hand.predict(z_validation))


@pytest.mark.parametrize("name", ["boosting", "hist_boosting"])
def test_a_fit_that_is_watched_answers_as_one_that_is_not(name: str) -> None:
    z, label, z_validation, validation = rows("classification")
    settings = {"n_estimators": 25} if name == "boosting" else {"max_iter": 25}

    plain = fit(name, z, label, problem("classification"), parameters=settings, validation=(z_validation, validation))
    watched = fit(
        name, z, label, problem("classification"), parameters=settings, validation=(z_validation, validation), progress=lambda _, __: True
    )

    assert np.array_equal(plain.predict(z_validation), watched.predict(z_validation))


@pytest.mark.parametrize(
    ("names", "task", "message"),
    [
        (["forst"], "classification", "'forst' is unknown; did you mean 'forest'"),
        (["logistic"], "regression", "'logistic' learns classification, not regression; for it there are mean, ridge"),
        (["forest", "forest"], "classification", "name at least one, each once"),
        ([], "classification", "name at least one"),
    ],
)
def test_wrong_names_are_refused(names: list[str], task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_candidates(names, task)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_dept": 3}, r"no such setting; did you mean 'max_depth'"),
        ({"max_depth": 2.5}, r"search.parameters.forest.max_depth = 2.5: expected a whole number"),
        ({"max_depth": True}, r"expected a whole number"),
        ({"max_depth": 0}, r"expected at least 1"),
        ({"max_features": "most"}, r"expected one of sqrt, half, all"),
    ],
)
def test_wrong_settings_are_refused(parameters: dict[str, Any], message: str) -> None:
    z, label, _, _ = rows("classification")

    with pytest.raises(ConfigError, match=message):
        fit("forest", z, label, problem("classification"), parameters=parameters)


def test_rows_that_nothing_can_learn_from_are_refused() -> None:
    z, label, _, _ = rows("classification")
    infinite = z.copy()
    infinite[3, 0] = np.inf

    with pytest.raises(InputError, match="class 2 of 3 has no training rows"):
        fit("forest", z, np.minimum(label, 1), problem("classification"))
    with pytest.raises(InputError, match="one class only"):
        fit("forest", z, np.zeros(len(z), np.int64), problem("classification", 1))
    with pytest.raises(InputError, match="1 cleaned rows hold infinite values; add a clip step"):
        fit("forest", infinite, label, problem("classification"))
    with pytest.raises(InputError, match="none of 400 training rows is normal"):
        fit("isolation_forest", z, np.ones(len(z), np.int64), problem("anomaly"))
    with pytest.raises(InputError, match="1 targets are missing"):
        fit("ridge", z, np.where(np.arange(len(z)) == 5, np.nan, 1.0), problem("regression"))
    with pytest.raises(InputError, match="399 labels for 400 rows"):
        fit("forest", z, label[1:], problem("classification"))


def test_an_svm_needs_two_rows_of_each_class() -> None:
    z, label = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), np.array([0] * 29 + [1])

    with pytest.raises(InputError, match="a class has 1 training row, 2 are needed"):
        fit("svm", z, label, problem("classification", 2))


def test_shapes_that_a_candidate_cannot_take_are_refused() -> None:
    z, label, _, _ = rows("classification")
    windows = np.zeros((400, 4, 5), np.float32)

    with pytest.raises(ConfigError, match=r"'forest' takes flat rows.*window\.features"):
        fit("forest", windows, label, replace(problem("classification"), shape=(4, 5)))
    with pytest.raises(ConfigError, match="'conv' needs images"):
        fit("conv", z, label, problem("classification"))
    with pytest.raises(ConfigError, match="'gru' needs windows"):
        fit("gru", z, label, problem("classification"))
    with pytest.raises(ConfigError, match="'svm' takes at most 20000 training rows, these are 20001; use 'hist_boosting'"):
        fit("svm", np.zeros((20_001, 5), np.float32), np.zeros(20_001, np.int64), problem("classification"))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 but nothing behind it"])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="no readable model"):
        open_model(content, "model.skops", problem("classification"))


def test_a_file_of_another_kind_task_or_class_count_is_refused() -> None:
    z, label, _, _ = rows("classification")
    tree = fit("tree", z, label, problem("classification")).content
    foreign = skops.io.dumps({"estimator": RandomForestClassifier(2).fit(z, label), "path": __import__("pathlib").Path("x")})

    with pytest.raises(ArtifactError, match="expected 0 to 1"):
        open_model(tree, "model.skops", problem("classification", 2))
    with pytest.raises(ArtifactError, match="does not answer regression"):
        open_model(tree, "model.skops", problem("regression"))
    with pytest.raises(ArtifactError, match="does not answer anomaly"):
        open_model(tree, "model.skops", problem("anomaly"))
    with pytest.raises(ArtifactError, match="no readable model"):
        open_model(foreign, "model.skops", problem("classification"))
    with pytest.raises(ArtifactError, match=r"cannot run 'model.pkl'"):
        open_model(tree, "model.pkl", problem("classification"))


@pytest.mark.parametrize(("name", "task"), EVERY)
def test_a_file_names_only_the_types_that_its_family_needs(name: str, task: Task) -> None:
    z, label, _, _ = rows(task)

    fitted = fit(name, z, label, problem(task), parameters=FAST.get(name))

    assert set(skops.io.get_untrusted_types(data=fitted.content)) <= set(TRUSTED_TYPES[fitted.family])


@pytest.mark.parametrize("name", ["logistic", "tree", "forest", "extra_trees", "boosting"])
def test_importance_finds_the_two_inputs_that_matter(name: str) -> None:
    z, label, _, _ = rows("classification")

    importance = fit(name, z, label, problem("classification"), parameters=FAST.get(name)).importance

    assert importance is not None
    assert importance.sum() == pytest.approx(1)
    assert set(np.argsort(importance)[-2:]) == {0, 3}


def test_constant_inputs_do_not_disturb_scaled_candidates() -> None:
    z, label, z_validation, _ = rows("classification")
    for side in (z, z_validation):
        side[:, 4] = 123.456

    for name in ("logistic", "svm", "mlp"):
        assert np.isfinite(fit(name, z, label, problem("classification"), parameters=FAST.get(name)).predict(z_validation)).all()


def test_every_candidate_has_a_space_whose_defaults_a_trial_can_draw() -> None:
    class Widest:
        """A trial that answers with the upper end of every range."""

        def suggest_int(self, name: str, low: int, high: int, log: bool) -> int:
            assert 1 <= low < high
            return high

        def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
            assert low < high
            return high

        def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any:
            return choices[-1]

    assert set(SPACES) == set(CANDIDATES)
    for name, candidate in CANDIDATES.items():
        for task in candidate.tasks:
            assert set(suggest(name, Widest(), problem(task))) == set(defaults(name, problem(task)))


def test_the_list_of_candidates_names_each_once_with_what_it_takes() -> None:
    listed = {row["name"]: row for row in describe()}

    assert list(listed) == list(CANDIDATES)
    assert listed["forest"]["missing values"] == "taken"
    assert listed["gru"]["rows"] == "windows"
    assert listed["conv"]["rows"] == "images"
    assert listed["ridge"]["learns"] == "regression"


def test_cost_estimates_grow_with_the_model() -> None:
    z, label, _, _ = rows("classification")

    small = fit("forest", z, label, problem("classification"), parameters={"n_estimators": 5, "max_depth": 3})
    large = fit("forest", z, label, problem("classification"), parameters={"n_estimators": 20, "max_depth": 3})
    line = fit("logistic", z, label, problem("classification"))

    assert line.size_bytes == 4 * (3 * 5 + 3)
    assert small.size_bytes < large.size_bytes
    assert small.latency_us == pytest.approx(3 + 0.01 * 5 * 3)
    assert large.latency_us == pytest.approx(3 + 0.01 * 20 * 3)
