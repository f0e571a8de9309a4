"""Support vector machines and distances: what looks at how far a row lies from others."""

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.cores.core import Core, Dense, Distance, Kernel, Layers, Link, Votes
from edgefleet.errors import VerdictError

Floats = NDArray[np.float64]


def svm(model: Any, mean: Floats, scale: Floats) -> Core:
    """SVR, or SVC or LinearSVC with probabilities by CalibratedClassifierCV(ensemble=False, method="sigmoid").

    The sigmoid is folded into the margin: probabilities are the logistic of it (two classes), or each class's logistic over their sum.

    Args:
        model: The machine.
        mean: [F] what rows were standardised with before.
        scale: [F].

    Raises:
        VerdictError: Another kind, kernel, or calibration; named.
    """
    name = type(model).__name__
    if name == "SVR":
        head = _machine(model, mean, scale, np.asarray(model.dual_coef_, np.float64).T, np.asarray(model.intercept_, np.float64))
        return Core(head, len(mean), 1, 0, "none")
    if name == "SVC":
        raise VerdictError(
            "SVC gives probabilities by its own cross-validation (probability=True) or none, which is not converted: "
            "wrap it in CalibratedClassifierCV(SVC(), method='sigmoid', ensemble=False)"
        )
    if name != "CalibratedClassifierCV":
        raise VerdictError(f"{name} is not a support vector machine that is converted: SVR, or SVC inside CalibratedClassifierCV")
    if len(model.calibrated_classifiers_) != 1:
        raise VerdictError(
            f"CalibratedClassifierCV with ensemble=True averages {len(model.calibrated_classifiers_)} machines, which is not converted: "
            "train with ensemble=False"
        )
    whole = model.calibrated_classifiers_[0]
    machine, kind = whole.estimator, type(whole.estimator).__name__
    if whole.method != "sigmoid" or kind not in ("SVC", "LinearSVC"):
        raise VerdictError(
            f"CalibratedClassifierCV of {kind} with method={whole.method!r} is not converted: SVC or LinearSVC with method='sigmoid'"
        )
    # scikit-learn answers 1 / (1 + exp(a f + b)).
    slope = np.array([-one.a_ for one in whole.calibrators], np.float64)
    intercept = np.array([-one.b_ for one in whole.calibrators], np.float64)
    classes = len(model.classes_)
    link: Link = "logistic" if classes == 2 else "ovr"
    if kind == "LinearSVC":
        weight = (np.asarray(machine.coef_, np.float64).T * slope) / scale[:, None]
        bias = np.asarray(machine.intercept_, np.float64) * slope + intercept
        return Core(Layers((Dense(weight, bias - mean @ weight),)), len(mean), len(slope), classes, link)
    if classes == 2:
        dual = np.asarray(machine.dual_coef_, np.float64).T * slope
        return Core(_machine(machine, mean, scale, dual, machine.intercept_ * slope + intercept), len(mean), 1, 2, link)
    if machine.decision_function_shape != "ovr":
        raise VerdictError("SVC with decision_function_shape='ovo' is not converted: train with 'ovr'")
    head = _machine(machine, mean, scale, _pairs(machine), np.asarray(machine._intercept_, np.float64), Votes(slope, intercept))
    return Core(head, len(mean), classes, classes, link)


def mahalanobis(model: Any, mean: Floats, scale: Floats) -> Core:
    """The distance of a fitted covariance (scikit-learn's `EmpiricalCovariance` or `ShrunkCovariance`) from its location."""
    precision = np.asarray(model.get_precision(), np.float64)
    values, vectors = np.linalg.eigh((precision + precision.T) / 2)
    whitening = vectors * np.sqrt(np.maximum(values, 0.0))
    center = mean + np.asarray(model.location_, np.float64) * scale
    return Core(Distance(center, whitening / scale[:, None]), len(mean), 1, 0, "none")


def _machine(machine: Any, mean: Floats, scale: Floats, dual: Floats, intercept: Floats, votes: Votes | None = None) -> Kernel | Layers:
    support = machine.support_vectors_
    if machine.kernel == "rbf":
        return Kernel(mean, scale, np.asarray(support, np.float64), dual, np.atleast_1d(intercept), float(machine._gamma), votes)
    if machine.kernel == "linear" and votes is None:
        weight = (np.asarray(support, np.float64).T @ dual) / scale[:, None]
        return Layers((Dense(weight, np.atleast_1d(intercept) - mean @ weight),))
    raise VerdictError(f"{type(machine).__name__} with kernel={machine.kernel!r} is not converted: train with kernel='rbf'")


def _pairs(machine: Any) -> Floats:
    """[M, pairs] weights of the decisions between two classes; libsvm keeps for each vector one weight per other class."""
    counts = np.asarray(machine._n_support, np.int64)
    ends = np.cumsum(counts)
    classes = len(counts)
    own = np.asarray(machine._dual_coef_, np.float64)
    found = np.zeros((int(ends[-1]), classes * (classes - 1) // 2))
    for p, (i, j) in enumerate(combinations(range(classes), 2)):
        of_i, of_j = slice(ends[i] - counts[i], ends[i]), slice(ends[j] - counts[j], ends[j])
        found[of_i, p] = own[j - 1, of_i]
        found[of_j, p] = own[i, of_j]
    return found
