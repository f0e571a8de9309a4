"""From a package's scikit-learn model, or a fitted estimator, to its core."""

from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.calibrators import parse_calibrator
from converter.cores import dense
from converter.cores.core import Core, Layers, Link, Trees
from converter.cores.distances import mahalanobis, svm
from converter.ensembles import FOREST_NAMES, constant_ensemble, ensemble_of, isolation_ensemble
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage

# Families of the trainer's candidates, and `pipeline` for imported ones.
FAMILIES: Final = (
    "constant", "linear", "tree", "forest", "boosting", "hist_boosting", "svm", "mlp", "isolation_forest", "mahalanobis", "pipeline",
)  # fmt: skip
TREE_FAMILIES: Final = ("constant", "tree", "forest", "boosting", "hist_boosting", "isolation_forest")
CALIBRATOR_NAME: Final = "calibrator.json"


def core_of(package: ModelPackage) -> Core:
    """The core of a package's scikit-learn model, its calibrator included.

    Raises:
        VerdictError: The family, the estimator or an option of it has no core; named.
        ArtifactError: A file is damaged, or the model is not what package.json says.
    """
    from converter.originals import load_estimator

    index = package.index
    if index.family not in FAMILIES or not index.model.endswith(".skops"):
        raise VerdictError(f"a model of the family {index.family!r} in {index.model!r} has no form as plain arrays")
    model = load_estimator(package)
    if index.family == "pipeline":
        from converter.cores.pipelines import core_of_pipeline

        core = core_of_pipeline(model, package)
    else:
        core = core_of_estimator(model, index.family, index.task)
    core = _fitting(core, package)
    if isinstance(core.head, Layers):
        rows = _cleaned(package) if core.front is None else core.front.run(_cleaned(package))
        core = replace(core, head=dense.centered(core.head, rows[np.isfinite(rows).all(axis=1)]))
    if CALIBRATOR_NAME not in package.index.files:
        return core
    try:
        calibrator = msgspec.json.decode(package.read(CALIBRATOR_NAME), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"{package.folder}/{CALIBRATOR_NAME}: {str(err)[:200]}; train again") from err
    parse_calibrator(calibrator, core.classes)
    return replace(core, calibrator=calibrator)


def core_of_estimator(model: Any, family: str = "", task: Task = "classification") -> Core:
    """The core of a fitted estimator, without a calibrator.

    Args:
        model: The estimator, for the families svm and mahalanobis also a pipeline of a StandardScaler and it.
        family: As in package.json; "" finds it by the estimator.
        task: What it answers: a detector's score is `anomaly`.

    Raises:
        VerdictError: No core; named.
    """
    core = estimator_core(model, family)
    wanted = "classification" if core.classes else ("regression", "anomaly")
    if task not in wanted:
        raise VerdictError(f"{type(model).__name__} does not answer {task}; train again")
    return core


def estimator_core(model: Any, family: str = "") -> Core:
    """The core of an estimator, whatever task it has."""
    name = type(model).__name__
    if name == "Pipeline":
        return _behind_scaler(model, family)
    if name in FOREST_NAMES or "GradientBoosting" in name:
        return tree_core(model)
    if name == "IsolationForest":
        ensemble, depth = isolation_ensemble(model)
        return Core(Trees(ensemble, depth), ensemble.features, 1, 0, "none")
    if name in ("DummyClassifier", "DummyRegressor"):
        return _constant(model)
    if name in dense.LINEAR_CLASSIFIERS + dense.LINEAR_REGRESSORS:
        return dense.linear(model)
    if name in dense.NETWORKS:
        return dense.network(model)
    if name in ("SVR", "SVC", "CalibratedClassifierCV"):
        features = int(model.n_features_in_)
        return svm(model, np.zeros(features), np.ones(features))
    raise VerdictError(f"{name} is not a model that is converted; train one of the families {', '.join(FAMILIES)}")


def tree_core(model: Any) -> Core:
    """Trees that are no detectors: shares of the leaves, log-odds, or values."""
    ensemble = ensemble_of(model)
    margins = len(ensemble.offset)
    if not hasattr(model, "classes_"):
        return Core(Trees(ensemble), ensemble.features, margins, 0, "none")
    link: Link = "shares" if type(model).__name__ in FOREST_NAMES else "logistic" if margins == 1 else "softmax"
    return Core(Trees(ensemble), ensemble.features, margins, len(model.classes_), link)


def _constant(model: Any) -> Core:
    # 0: scikit-learn's dummies do not keep how many columns they were given.
    features = int(getattr(model, "n_features_in_", 0) or 0)
    if type(model).__name__ == "DummyRegressor":
        return Core(Trees(constant_ensemble(np.ravel(model.constant_), features)), features, 1, 0, "none")
    if model.strategy != "prior":
        raise VerdictError(f"DummyClassifier with strategy={model.strategy!r} is not converted: use 'prior'")
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(model.class_prior_, np.float64))
    if not np.isfinite(logs).all():
        raise VerdictError("DummyClassifier with a class that no training row has is not converted: its log-odds are infinite")
    classes = len(logs)
    margins = [logs[1] - logs[0]] if classes == 2 else logs
    return Core(Trees(constant_ensemble(margins, features)), features, len(margins), classes, "logistic" if classes == 2 else "softmax")


def _behind_scaler(model: Any, family: str) -> Core:
    names = [type(step).__name__ for _, step in model.steps]
    last = model.steps[-1][1]
    if len(names) != 2 or names[0] != "StandardScaler":
        raise VerdictError(f"a pipeline of {', '.join(names)} is not one of the family {family!r}: StandardScaler and the model")
    scaler = model.steps[0][1]
    features = int(scaler.n_features_in_)
    mean = np.zeros(features) if scaler.mean_ is None else np.asarray(scaler.mean_, np.float64)
    scale = np.ones(features) if scaler.scale_ is None else np.asarray(scaler.scale_, np.float64)
    if names[1] in ("ShrunkCovariance", "EmpiricalCovariance"):
        return mahalanobis(last, mean, scale)
    if names[1] in ("SVR", "SVC", "CalibratedClassifierCV"):
        return svm(last, mean, scale)
    core = estimator_core(last, family)
    if isinstance(core.head, Layers):
        return replace(core, head=dense.scaled(core.head, 1 / scale, -mean / scale))
    raise VerdictError(f"a pipeline of {', '.join(names)} is not one of the family {family!r}")


def _cleaned(package: ModelPackage) -> NDArray[np.float32]:
    z = package.steps().run(package.rows("calibration").x)
    return z.reshape(len(z), -1)


def _fitting(core: Core, package: ModelPackage) -> Core:
    """The core, if it fits the package; a dummy, which does not know how many columns it ignores, is told.

    Raises:
        ArtifactError: Another number of columns or classes.
    """
    columns = int(np.prod(package.steps().output_shape))
    if core.features == 0 and isinstance(core.head, Trees):
        core = replace(core, features=columns, head=Trees(replace(core.head.ensemble, features=columns)))
    taken = core.features if core.front is None else core.front.input_shape[0]
    if taken != columns:
        raise ArtifactError(f"{package.index.model} takes {taken} columns, the package's rows have {columns}; train again")
    if core.classes != len(package.index.classes) and package.index.task == "classification":
        raise ArtifactError(f"{package.index.model} answers {core.classes} classes, package.json names {len(package.index.classes)}")
    return core
