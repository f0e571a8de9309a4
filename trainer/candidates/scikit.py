"""Fitting and opening the candidates of scikit-learn; files are skops', nothing is unpickled.

A reader opens model.skops with `skops.io.load(file, trusted=[...])` and the types of `TRUSTED_TYPES` for its family; whatever else a file
may name is refused. Seeds are fixed and linear algebra uses one thread, because two threads add in another order.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, MissingPartError
from edgefleet.skops_nodes import check_nodes
from trainer.candidates.costs import estimator_cost
from trainer.candidates.estimators import Scale, build, margin_kind
from trainer.candidates.fitted import Fitted, Predict, Problem, Progress
from trainer.candidates.reproducible import canonical_skops
from trainer.candidates.spaces import settings_of
from trainer.candidates.stages import Curve, fit_boosting, fit_hist_boosting
from trainer.candidates.table import CANDIDATES

MODEL_NAME: Final = "model.skops"
_TREE: Final = ("sklearn.tree._tree.Tree",)
# Beyond what skops trusts by itself, a family needs exactly these.
TRUSTED_TYPES: Final[dict[str, tuple[str, ...]]] = {
    "constant": (),
    "mahalanobis": (),
    "linear": (),
    "tree": _TREE,
    "forest": _TREE,
    "boosting": _TREE,
    "isolation_forest": _TREE,
    "hist_boosting": ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",),
    "svm": ("sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration"),
    "mlp": (),
}
Rows = tuple[NDArray[np.float32], NDArray[Any]]


def fit_scikit(
    name: str,
    z: NDArray[np.float32],
    label: NDArray[Any],
    problem: Problem,
    parameters: dict[str, Any] | None = None,
    weight: NDArray[np.float64] | None = None,
    validation: Rows | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit one candidate; anomaly detectors learn from the rows labelled 0 (normal) only."""
    import sklearn
    import skops
    import skops.io

    candidate, settings = CANDIDATES[name], settings_of(name, problem, parameters)
    z = _flat(z)
    if problem.task == "anomaly":
        normal = label == 0
        z, label, weight = z[normal], label[normal], None if weight is None else weight[normal]
    model = build(name, settings, problem, label, z)
    with _threads(problem.jobs), _unfinished_is_told_not_warned():
        curve = _fit(candidate.family, model, z, label, weight, problem, validation, progress)
    _strip(model)
    importance = _importance(model, z)
    content = canonical_skops(skops.io.dumps(model))
    size_bytes, latency_us = estimator_cost(candidate.family, model)
    return Fitted(
        name=name,
        family=candidate.family,
        margin_kind=margin_kind(candidate.family, problem),
        model=MODEL_NAME,
        content=content,
        # The file's own model is judged, not the one in memory: what is shipped is what was validated.
        predict=open_skops(content, problem),
        parameters=settings | _sizes(candidate.family, model),
        versions={"scikit-learn": sklearn.__version__, "skops": skops.__version__},
        curve=curve,
        importance=importance,
        size_bytes=size_bytes,
        latency_us=latency_us,
    )


def open_skops(content: bytes, problem: Problem) -> Predict:
    """The model of a .skops file as a function.

    Raises:
        ArtifactError: Damaged, of types that no family here needs, or for another task or number of classes.
        MissingPartError: skops is not installed.
    """
    try:
        import skops.io
    except ImportError as err:
        raise MissingPartError('opening a .skops model needs skops: pip install "edgefleet[train]"') from err
    check_archive(content, MODEL_NAME, "model")
    check_nodes(content, MODEL_NAME)
    trusted = sorted({kind for kinds in TRUSTED_TYPES.values() for kind in kinds})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file of another scikit-learn version only warns, and may then answer wrongly
            model: Any = skops.io.loads(content, trusted=trusted)
    except Exception as err:  # skops, zipfile and json raise a dozen kinds on damaged input
        raise ArtifactError(f"{MODEL_NAME}: {len(content)} bytes are no readable model: {str(err)[:200]}; train again") from err
    if problem.task == "classification" and list(getattr(model, "classes_", [])) != list(range(problem.classes)):
        raise ArtifactError(
            f"{MODEL_NAME} answers classes {getattr(model, 'classes_', None)}, expected 0 to {problem.classes - 1}; train again"
        )
    answer = _answer(model, problem)
    if not hasattr(model, "_bin_mapper"):
        return lambda z: np.asarray(answer(_flat(z)), np.float64)
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    threads = ThreadpoolController()  # finding the libraries takes longer than a prediction

    def predict(z: NDArray[np.float32]) -> NDArray[np.float64]:
        # Histogram boosting lets its threads meet after every tree: beside other work on the machine that takes seconds for few rows.
        with threads.limit(limits=1, user_api="openmp"):
            return np.asarray(answer(_flat(z)), np.float64)

    return predict


def _flat(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows as a matrix; whole windows, which baselines take so that networks have something to beat, one value behind the other."""
    return z.reshape(len(z), -1)


def _answer(model: Any, problem: Problem) -> Callable[[NDArray[np.float32]], Any]:
    if problem.task == "classification":
        wanted: Any = getattr(model, "predict_proba", None)
    elif problem.task == "regression":
        wanted = None if hasattr(model, "classes_") else getattr(model, "predict", None)
    elif hasattr(model, "named_steps") and "mahalanobis" in model.named_steps:
        scale, distance = model.named_steps["scale"], model.named_steps["mahalanobis"]
        return lambda z: np.sqrt(np.maximum(distance.mahalanobis(scale.transform(z)), 0))
    else:
        score = getattr(model, "score_samples", None)  # of an isolation forest: larger = more ordinary
        wanted = score and (lambda z: -score(z))
    if wanted is None:
        raise ArtifactError(f"{MODEL_NAME} holds a {type(model).__name__}, which does not answer {problem.task}; train again")
    return wanted  # type: ignore[no-any-return]  # sklearn has no types


def _fit(
    family: str,
    model: Any,
    z: NDArray[np.float32],
    label: NDArray[Any],
    weight: NDArray[np.float64] | None,
    problem: Problem,
    validation: Rows | None,
    progress: Progress | None,
) -> Curve:
    if family == "boosting":
        return fit_boosting(model, z, label, weight, problem, validation, progress)
    if family == "hist_boosting":
        return fit_hist_boosting(model, z, label, weight, problem, validation, progress)
    if family == "svm":
        model.fit(z, label, svm__sample_weight=weight)
    elif family == "mahalanobis":
        model.fit(z)
    elif family == "linear":
        scale = Scale(z)
        model.fit(scale.apply(z), label, sample_weight=weight)
        scale.into_linear(model)
    elif family == "mlp":
        return _fit_network(model, z, label, weight, problem)
    else:
        model.fit(z, label, sample_weight=weight)
    return []


def _fit_network(model: Any, z: NDArray[np.float32], label: NDArray[Any], weight: NDArray[np.float64] | None, problem: Problem) -> Curve:
    scale, middle, spread = Scale(z), 0.0, 1.0
    if problem.task == "regression":
        middle, spread = float(label.mean()), float(label.std()) or 1.0
    target = (label - middle) / spread if problem.task == "regression" else label
    model.fit(scale.apply(z), target, sample_weight=weight)
    scale.into_network(model)
    if problem.task == "regression":
        model.coefs_[-1] = model.coefs_[-1] * spread
        model.intercepts_[-1] = model.intercepts_[-1] * spread + middle
    return [{"step": step, "loss": float(value)} for step, value in enumerate(model.loss_curve_, start=1)]


def _strip(model: Any) -> None:
    """Drop what depends on the number of threads or serves a further fit only: equal models give equal bytes, and smaller ones."""
    if getattr(model, "n_jobs", None) is not None:
        model.n_jobs = 1
    if hasattr(model, "_bin_mapper") and model._bin_mapper is not None:
        model._bin_mapper.n_threads = None
    if hasattr(model, "_rng"):  # gradient boosting
        model._rng = None
        for tree in np.ravel(model.estimators_):
            tree.random_state = None  # the generator's whole state, once a tree
    for name in ("_optimizer", "_random_state"):
        if hasattr(model, name):
            delattr(model, name)
    machine = model.named_steps.get("svm") if hasattr(model, "named_steps") else None
    if machine is not None and hasattr(machine, "calibrated_classifiers_"):
        machine.n_jobs, machine.cv = None, None


def _importance(model: Any, z: NDArray[np.float32]) -> NDArray[np.float64] | None:
    if hasattr(model, "coef_"):
        strength = np.abs(np.atleast_2d(model.coef_)).mean(axis=0) * z.std(axis=0, dtype=np.float64)
    else:
        strength = getattr(model, "feature_importances_", None)
    if strength is None:
        return None
    total = float(np.sum(strength))
    return np.asarray(strength, np.float64) / total if total > 0 else np.zeros(len(strength))


def _sizes(family: str, model: Any) -> dict[str, Any]:
    if family in {"tree", "forest", "boosting", "isolation_forest"}:
        trees = [tree.tree_ for tree in np.ravel(getattr(model, "estimators_", [model]))]
        return {"trees": len(trees), "leaves": sum(int(tree.n_leaves) for tree in trees)}
    if family == "hist_boosting":
        predictors = [predictor for stage in model._predictors for predictor in stage]
        return {"trees": len(predictors), "leaves": sum(int(one.get_n_leaf_nodes()) for one in predictors)}
    if family in {"linear", "mlp"} and hasattr(model, "n_iter_") and model.n_iter_ is not None:
        return {"iterations": int(np.max(model.n_iter_)), "converged": bool(np.max(model.n_iter_) < model.max_iter)}
    return {}


@contextmanager
def _threads(jobs: int) -> Iterator[None]:
    """One thread of linear algebra, `jobs` of trees, which does not change their bits.

    Never more than asked: two threads on two cores of which another process wants one wait for each other at every split, and were seen to
    take fifty times as long as one.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits({"blas": 1, "openmp": jobs}):
        yield


@contextmanager
def _unfinished_is_told_not_warned() -> Iterator[None]:
    """A fit that used up its iterations is a fact of the record (`converged`), not a warning on the terminal."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
