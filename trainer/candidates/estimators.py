"""scikit-learn estimators from settings, and the inputs' scale moved into their weights.

Linear models and networks are fitted on standardised inputs and then take the scale into their own weights, so that the file holds a
plain estimator of raw rows. An RBF kernel has one width for all inputs: there the scaler stays in front, as a pipeline.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.candidates.fitted import Problem

_MAX_FEATURES: Final = {"sqrt": "sqrt", "half": 0.5, "all": 1.0}
MARGIN_KINDS: Final = {"tree": "mean leaf probability", "forest": "mean leaf probability", "mlp": "logit"}
CALIBRATION_FOLDS: Final = 3


def build(name: str, settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    """An unfitted estimator."""
    return _BUILDERS[name](settings, problem, label, z)


def margin_kind(family: str, problem: Problem) -> str:
    """What the margin of the family's graph is (see `Manifest.margin_kind`)."""
    if problem.task == "regression":
        return "target unit"
    return "anomaly score" if problem.task == "anomaly" else MARGIN_KINDS.get(family, "log-odds")


class Scale:
    """Mean and deviation of each input, [features] float64; a constant input keeps its unit."""

    def __init__(self, z: NDArray[np.float32]) -> None:
        self.mean = z.mean(axis=0, dtype=np.float64)
        deviation = z.std(axis=0, dtype=np.float64)
        # Summing equal float32 values leaves a rest of about 1e-16 of their size: that is no spread.
        self.deviation = np.where(deviation > 1e-12 * np.maximum(np.abs(self.mean), 1e-300), deviation, 1.0)

    def apply(self, z: NDArray[np.float32]) -> NDArray[np.float64]:
        """Standardised rows [n, features] float64."""
        scaled: NDArray[np.float64] = (z - self.mean) / self.deviation
        return scaled

    def into_linear(self, model: Any) -> None:
        """Make a linear model of standardised inputs one of raw inputs."""
        model.coef_ = model.coef_ / self.deviation
        model.intercept_ = model.intercept_ - model.coef_ @ self.mean

    def into_network(self, model: Any) -> None:
        """Make an MLP of standardised inputs one of raw inputs."""
        model.coefs_[0] = model.coefs_[0] / self.deviation[:, None]
        model.intercepts_[0] = model.intercepts_[0] - self.mean @ model.coefs_[0]


def _kind(problem: Problem, classifier: Any, regressor: Any) -> Any:
    return classifier if problem.task == "classification" else regressor


def _majority(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="prior")


def _mean(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.dummy import DummyRegressor

    return DummyRegressor(strategy="mean")


def _mahalanobis(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.covariance import ShrunkCovariance
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # Shrinking pulls towards one variance for all inputs, which means something only when they are standardised first.
    return Pipeline([("scale", StandardScaler()), ("mahalanobis", ShrunkCovariance(shrinkage=settings["shrinkage"]))])


def _logistic(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=settings["C"], max_iter=settings["max_iter"], random_state=problem.seed)


def _ridge(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.linear_model import Ridge

    return Ridge(alpha=settings["alpha"], solver="cholesky", random_state=problem.seed)


def _tree(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return _kind(problem, DecisionTreeClassifier, DecisionTreeRegressor)(**settings, random_state=problem.seed)


def _trees(settings: dict[str, Any], problem: Problem, classifier: Any, regressor: Any) -> Any:
    share = _MAX_FEATURES[settings["max_features"]]
    return _kind(problem, classifier, regressor)(**{**settings, "max_features": share}, random_state=problem.seed, n_jobs=problem.jobs)


def _forest(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    return _trees(settings, problem, RandomForestClassifier, RandomForestRegressor)


def _extra_trees(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

    return _trees(settings, problem, ExtraTreesClassifier, ExtraTreesRegressor)


def _boosting(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    return _kind(problem, GradientBoostingClassifier, GradientBoostingRegressor)(**settings, random_state=problem.seed)


def _hist_boosting(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    known = {key: value for key, value in settings.items() if key != "patience"}
    kind = _kind(problem, HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    return kind(**known, n_iter_no_change=settings["patience"], early_stopping=False, random_state=problem.seed)


def _svm(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, SVR

    gamma = settings["gamma_factor"] / z.shape[1]
    if problem.task == "regression":
        spread = float(label.std()) or 1.0  # C and epsilon are in units of the target
        model = SVR(C=settings["C"] * spread, epsilon=settings["epsilon"] * spread, gamma=gamma)
    else:
        folds = min(CALIBRATION_FOLDS, int(np.bincount(label).min()))
        draw = StratifiedKFold(folds, shuffle=True, random_state=problem.seed)
        model = CalibratedClassifierCV(SVC(C=settings["C"], gamma=gamma), method="sigmoid", cv=draw, ensemble=False, n_jobs=problem.jobs)
    return Pipeline([("scale", StandardScaler()), ("svm", model)])


def _mlp(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return _kind(problem, MLPClassifier, MLPRegressor)(
        hidden_layer_sizes=(settings["hidden"],) * settings["layers"],
        alpha=settings["alpha"],
        learning_rate_init=settings["learning_rate"],
        max_iter=settings["max_iter"],
        random_state=problem.seed,
    )


def _isolation_forest(settings: dict[str, Any], problem: Problem, label: NDArray[Any], z: NDArray[np.float32]) -> Any:
    from sklearn.ensemble import IsolationForest

    samples = min(settings["max_samples"], len(z))
    return IsolationForest(n_estimators=settings["n_estimators"], max_samples=samples, random_state=problem.seed, n_jobs=problem.jobs)


_BUILDERS: Final[dict[str, Callable[..., Any]]] = {
    "majority": _majority,
    "mean": _mean,
    "mahalanobis": _mahalanobis,
    "logistic": _logistic,
    "ridge": _ridge,
    "tree": _tree,
    "forest": _forest,
    "extra_trees": _extra_trees,
    "boosting": _boosting,
    "hist_boosting": _hist_boosting,
    "svm": _svm,
    "mlp": _mlp,
    "isolation_forest": _isolation_forest,
}
