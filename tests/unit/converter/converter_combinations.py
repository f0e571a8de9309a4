"""Model packages of every kind of model behind every kind of cleaning: what the parity table of docs/conversion.md is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.manifest import Input, Task
from edgefleet.package import ModelPackage, PackageIndex, Rows, write_package
from edgefleet.reference import build_reference
from edgefleet.steps import Steps
from trainer.cleaning import compile_steps
from trainer.settings import Cleaning, CleaningStep, Window

Matrix = NDArray[np.float32]
TRAINING: Final = slice(0, 900)
# So many that a half-precision variant with some other answers is still shown to agree on 99.5 %.
PARITY: Final = slice(900, 2400)
_NUMBERS: Final = 4
_WINDOW_ROWS: Final = 8


def _step(kind: Any, *columns: str, **settings: Any) -> CleaningStep:
    return CleaningStep(step=kind, columns=list(columns) or ["*"], **settings)


# Name in the table: (kind of rows, cleaning).
CLEANINGS: Final[dict[str, tuple[str, Cleaning]]] = {
    "none": ("numbers", Cleaning()),
    "none, missing values": ("gaps", Cleaning()),
    "none, categories": ("mixed", Cleaning()),
    "impute": ("gaps", Cleaning(steps=[_step("impute")])),
    "impute, scale": ("gaps", Cleaning(steps=[_step("impute"), _step("scale")])),
    "impute, one-hot, scale": (
        "mixed",
        Cleaning(steps=[_step("impute"), _step("one_hot"), _step("scale", *(f"x{i}" for i in range(_NUMBERS)))]),
    ),
    "category map, impute": ("mixed", Cleaning(steps=[_step("ordinal"), _step("impute")])),
    "clip, log, scale": ("numbers", Cleaning(steps=[_step("clip", "x3", low=0.0, high=1e4), _step("log", "x3"), _step("scale")])),
    "windows, lags": (
        "windows",
        Cleaning(steps=[_step("impute")], window=Window(rows=_WINDOW_ROWS, features=["last", "mean", "variance", "difference"], lags=[3])),
    ),
    "windows": ("windows", Cleaning(steps=[_step("impute"), _step("scale")], window=Window(rows=_WINDOW_ROWS))),
    "image": ("image", Cleaning()),
    "its own": ("mixed", Cleaning()),
    "its own, no categories": ("gaps", Cleaning()),
}


@dataclass(frozen=True)
class Combination:
    """One line of the table.

    Attributes:
        model: What it is.
        cleaning: A name of `CLEANINGS`.
        family: As in package.json.
        make: An unfitted scikit-learn estimator, or for the family keras the trainer's candidate.
        task: What it answers.
        classes: How many.
    """

    model: str
    cleaning: str
    family: str
    make: Callable[[], Any]
    task: Task = "classification"
    classes: int = 2

    @property
    def name(self) -> str:
        """Name in the table and in tests."""
        return f"{self.model} / {self.cleaning}"

    def package(self, folder: Path) -> ModelPackage:
        """Fit it and write its package."""
        kind, cleaning = CLEANINGS[self.cleaning]
        x, inputs, signal = _rows(kind)
        label = _label(self, signal, x)
        steps = compile_steps(cleaning, inputs, x[TRAINING])
        z = steps.run(x[TRAINING])
        if self.family == "keras":
            return _written(self, folder, (x, label), inputs, steps, "model.keras", self._network(z, label, kind))
        import skops.io

        model = self.make()
        rows = z.reshape(len(z), -1).astype(np.float64)
        normal = label[TRAINING] == 0 if self.task == "anomaly" else np.ones(len(rows), bool)
        target = None if self.task == "anomaly" else label[TRAINING][normal]
        model.fit(rows[normal], target)
        return _written(self, folder, (x, label), inputs, steps, "model.skops", skops.io.dumps(model))

    def _network(self, z: Matrix, label: NDArray[Any], kind: str) -> bytes:
        from trainer.candidates.fitted import Problem
        from trainer.candidates.networks import fit_network

        shape = (8, 8) if kind == "image" else z.shape[1:]
        problem = Problem(task=self.task, classes=self.classes if self.task == "classification" else 0, shape=shape, seed=0)
        return fit_network(self.make(), z, label[TRAINING], problem, {"steps": 400}).content


def combinations() -> dict[str, Combination]:
    """Every combination by name, in the table's order."""
    return {one.name: one for one in (*_linear(), *_vectors(), *_trees(), *_detectors(), *_imported(), *_networks())}


def _linear() -> list[Combination]:
    from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge, SGDClassifier

    def logistic() -> Any:
        return LogisticRegression(max_iter=1000)

    def descent() -> Any:
        return SGDClassifier(loss="log_loss", random_state=0)

    return [
        Combination("logistic regression", "none", "linear", logistic),
        Combination("logistic regression", "impute, scale", "linear", logistic),
        Combination("logistic regression, 3 classes", "impute, one-hot, scale", "linear", logistic, classes=3),
        Combination("SGD classifier, 3 classes", "clip, log, scale", "linear", descent, classes=3),
        Combination("ridge", "windows, lags", "linear", Ridge, "regression"),
        Combination("elastic net", "impute, scale", "linear", lambda: ElasticNet(alpha=0.01), "regression"),
    ]  # fmt: skip


def _vectors() -> list[Combination]:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC, SVR, LinearSVC

    def calibrated(machine: Any) -> Any:
        return CalibratedClassifierCV(machine, method="sigmoid", ensemble=False, cv=3)

    def network() -> Any:
        return MLPClassifier((32, 32), max_iter=150, random_state=0, tol=0.0, n_iter_no_change=150)

    def values() -> Any:
        return MLPRegressor(
            hidden_layer_sizes=(32, 32), learning_rate_init=5e-3, max_iter=150, random_state=0, tol=0.0, n_iter_no_change=150
        )

    return [
        Combination("linear SVC", "impute, scale", "svm", lambda: calibrated(LinearSVC())),
        Combination("linear SVC, 3 classes", "clip, log, scale", "svm", lambda: calibrated(LinearSVC()), classes=3),
        Combination("SVC, RBF", "impute, scale", "svm", lambda: calibrated(SVC())),
        Combination("SVC, RBF, 3 classes", "clip, log, scale", "svm", lambda: calibrated(SVC()), classes=3),
        Combination("SVR", "impute, scale", "svm", lambda: SVR(C=10.0), "regression"),
        Combination("MLP", "impute, one-hot, scale", "mlp", network),
        Combination("MLP, 3 classes", "clip, log, scale", "mlp", network, classes=3),
        Combination("MLP regressor", "impute, scale", "mlp", values, "regression"),
    ]


def _trees() -> list[Combination]:
    from sklearn.ensemble import ExtraTreesClassifier as Extra
    from sklearn.ensemble import ExtraTreesRegressor as ExtraValues
    from sklearn.ensemble import GradientBoostingClassifier as Boosting
    from sklearn.ensemble import GradientBoostingRegressor as BoostingValues
    from sklearn.ensemble import HistGradientBoostingClassifier as Histogram
    from sklearn.ensemble import HistGradientBoostingRegressor as HistogramValues
    from sklearn.ensemble import RandomForestClassifier as Forest
    from sklearn.ensemble import RandomForestRegressor as ForestValues
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    def some(kind: Any, **more: Any) -> Callable[[], Any]:
        return lambda: kind(n_estimators=25, max_depth=8, random_state=0, **more)

    def histogram(kind: Any = Histogram, **more: Any) -> Callable[[], Any]:
        return lambda: kind(max_iter=25, early_stopping=False, random_state=0, **more)

    def boosting(kind: Any = Boosting) -> Callable[[], Any]:
        return lambda: kind(n_estimators=40, random_state=0)

    sets = histogram(categorical_features=[4, 5])
    values: Task = "regression"
    return [
        Combination("decision tree, 3 classes", "category map, impute", "tree", lambda: DecisionTreeClassifier(max_depth=6), classes=3),
        Combination("decision tree regressor", "none", "tree", lambda: DecisionTreeRegressor(max_depth=6), values),
        Combination("random forest", "none", "forest", some(Forest)),
        Combination("random forest", "none, missing values", "forest", some(Forest)),
        Combination("random forest, 3 classes", "impute", "forest", some(Forest), classes=3),
        Combination("random forest", "windows, lags", "forest", some(Forest)),
        Combination("random forest regressor", "impute, scale", "forest", some(ForestValues), values),
        Combination("extra trees", "none, missing values", "forest", some(Extra)),
        Combination("extra trees, 3 classes", "impute, scale", "forest", some(Extra), classes=3),
        Combination("extra trees regressor", "impute, one-hot, scale", "forest", some(ExtraValues), values),
        Combination("gradient boosting", "impute", "boosting", boosting()),
        Combination("gradient boosting, 3 classes", "clip, log, scale", "boosting", boosting(), classes=3),
        Combination("gradient boosting regressor", "windows, lags", "boosting", boosting(BoostingValues), values),
        Combination("histogram boosting", "none", "hist_boosting", histogram()),
        Combination("histogram boosting", "none, missing values", "hist_boosting", histogram()),
        Combination("histogram boosting, 3 classes", "none, categories", "hist_boosting", sets, classes=3),
        Combination("histogram boosting", "impute, scale", "hist_boosting", histogram()),
        Combination("histogram boosting regressor", "category map, impute", "hist_boosting", histogram(HistogramValues), values),
    ]  # fmt: skip


def _detectors() -> list[Combination]:
    from sklearn.covariance import ShrunkCovariance
    from sklearn.ensemble import IsolationForest
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    def distance() -> Any:
        return Pipeline([("scale", StandardScaler()), ("mahalanobis", ShrunkCovariance(shrinkage=0.05))])

    def forest() -> Any:
        return IsolationForest(n_estimators=30, random_state=0)

    return [
        Combination("isolation forest", "none", "isolation_forest", forest, "anomaly"),
        Combination("isolation forest", "impute", "isolation_forest", forest, "anomaly"),
        Combination("Mahalanobis distance", "impute, scale", "mahalanobis", distance, "anomaly"),
    ]


def _imported() -> list[Combination]:
    from sklearn.compose import ColumnTransformer
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def behind(model: Any) -> Callable[[], Any]:
        numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        columns = [("numbers", numbers, [0, 1, 2, 3]), ("categories", OneHotEncoder(handle_unknown="ignore"), [4, 5])]
        return lambda: make_pipeline(ColumnTransformer(columns, sparse_threshold=0), model)

    def bayes() -> Any:
        return make_pipeline(SimpleImputer(), PCA(4), GaussianNB())

    return [
        Combination("pipeline: impute, scale, one-hot, logistic", "its own", "pipeline", behind(LogisticRegression(max_iter=1000))),
        Combination(
            "pipeline: impute, scale, one-hot, histogram boosting",
            "its own",
            "pipeline",
            behind(HistGradientBoostingClassifier(max_iter=25, early_stopping=False, random_state=0)),
        ),
        Combination("pipeline: impute, PCA, naive Bayes", "its own, no categories", "pipeline", bayes),
    ]


def _networks() -> list[Combination]:
    def network(model: str, cleaning: str, candidate: str, task: Task = "classification", classes: int = 2) -> Combination:
        return Combination(model, cleaning, "keras", lambda: candidate, task, classes)

    return [
        network("Keras dense", "none", "dense"),
        network("Keras dense, 3 classes", "impute, one-hot, scale", "dense", classes=3),
        network("Keras dense regressor", "impute, scale", "dense", "regression"),
        network("Keras Conv1D", "windows", "conv1d"),
        network("Keras Conv2D, 10 classes", "image", "conv", classes=10),
        network("Keras LSTM", "windows", "lstm"),
        network("Keras GRU regressor", "windows", "gru", "regression"),
        network("Keras autoencoder", "impute, scale", "autoencoder", "anomaly"),
    ]


def _rows(kind: str) -> tuple[Matrix, list[Input], NDArray[np.float64]]:
    """Raw rows, their schema, and what the label follows."""
    if kind == "image":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        # As many rows as the others have: the scans once more, moved by a pixel, which are no rows that were seen.
        moved = np.roll(x.reshape(-1, 8, 8), 1, axis=2).reshape(len(x), 64)[: PARITY.stop - len(x)]
        inputs = [Input(name=f"p{i // 8}{i % 8}", low=0.0, high=16.0) for i in range(64)]
        return np.concatenate([x, moved]).astype(np.float32), inputs, np.concatenate([y, y[: len(moved)]]).astype(np.float64)
    rng = np.random.default_rng(3)
    n = PARITY.stop
    noise = 0.1 * rng.normal(size=n)
    if kind == "windows":
        # Sums of steps, so that the last row, the mean and the change of a window all say something.
        x = np.round(np.cumsum(rng.normal(size=(n, _WINDOW_ROWS, 3)), axis=1), 2).astype(np.float32)
        signal = x[:, -1, 0] - x[:, 3, 1] + x.mean(axis=1)[:, 2] + noise
        x[rng.random(x.shape) < 0.05] = np.nan
        return x, [Input(name=f"x{i}", missing=True) for i in range(3)], signal
    # Two decimals: many equal values, so that imputed constants and split values meet.
    x = np.round(rng.normal(size=(n, 6)), 2).astype(np.float32)
    x[:, 3] = np.round(np.exp(1.5 * x[:, 3]), 2)
    signal = x[:, 0] + x[:, 1] * (x[:, 2] > 0) + 0.5 * np.log1p(x[:, 3]) + noise
    if kind == "numbers":
        return x, [Input(name=f"x{i}") for i in range(6)], signal + 0.5 * x[:, 4]
    gaps = rng.random((n, _NUMBERS)) < 0.1
    if kind == "gaps":
        signal = signal + 0.5 * x[:, 4]
        x[:, :_NUMBERS][gaps] = np.nan
        return x, [Input(name=f"x{i}", missing=i < _NUMBERS) for i in range(6)], signal
    x[:, 4], x[:, 5] = rng.integers(0, 3, n), rng.integers(0, 5, n)
    signal = signal + (x[:, 4] == 1) - (x[:, 5] >= 3)
    x[:, :_NUMBERS][gaps] = np.nan
    # Categories that no training row has.
    x[PARITY.start + 10 : PARITY.start + 40, 4] = -1
    numbers = [Input(name=f"x{i}", missing=True) for i in range(_NUMBERS)]
    kinds = [Input(name=name, kind="category", categories=list(texts)) for name, texts in (("colour", "rgb"), ("size", "abcde"))]
    return x, [*numbers, *kinds], signal


def _label(wanted: Combination, signal: NDArray[np.float64], x: Matrix) -> NDArray[Any]:
    if wanted.task == "regression":
        return np.asarray(10 * signal)
    if wanted.task == "anomaly":
        strange = np.arange(len(x)) % 12 == 0
        x[strange] *= 4
        return np.asarray(strange, np.int64)
    if wanted.classes == 10:
        return signal.astype(np.int64)
    cuts = np.quantile(signal, np.linspace(0, 1, wanted.classes + 1)[1:-1])
    return np.asarray(np.digitize(signal, cuts), np.int64)


def _written(
    wanted: Combination, folder: Path, rows: tuple[Matrix, NDArray[Any]], inputs: list[Input], steps: Steps, model: str, content: bytes
) -> ModelPackage:
    x, label = rows
    windows = x.shape[1] if x.ndim == 3 else 1

    def row_set(where: slice) -> bytes:
        ids = np.arange(where.start, where.stop).astype(str)
        return Rows(x[where], label[where], np.full(len(ids), "all"), ids).to_bytes()

    files = {
        model: content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in inputs]),
        "reference.npz": build_reference(x[TRAINING].reshape(-1, len(inputs)), inputs, block_rows=20).to_bytes(),
        "rows/golden.npz": row_set(slice(PARITY.start, PARITY.start + 32)),
        "rows/parity.npz": row_set(PARITY),
        "rows/calibration.npz": row_set(slice(0, 400)),
        "rows/background.npz": row_set(slice(0, 16)),
        "evaluation.json": b"{}\n",
        "gates.json": b"[]\n",
        # What explains a model is proven elsewhere.
        "provenance.json": canonical_json({"project": {"explain": {"method": "none"}}}),
        "card.md": b"# combination\n",
    }
    if not steps.is_identity:
        files["steps.json"] = steps.to_json()
    kinds = {"regression": "target unit", "anomaly": "anomaly score", "classification": "log-odds"}
    index = PackageIndex(
        format_version=1, project="combination", task=wanted.task, model=model, family=wanted.family, margin_kind=kinds[wanted.task],
        classes=[f"c{i}" for i in range(wanted.classes)] if wanted.task == "classification" else [], overrides=[], files={},
        shape=[8, 8] if x.shape[1:] == (64,) else list(x.shape[1:]), window_rows=windows,
    )  # fmt: skip
    return write_package(folder, index, files)
