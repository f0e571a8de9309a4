"""Linear models and scikit-learn's networks as layers."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cores.core import Activation, Core, Dense, Layers, Link
from edgefleet.errors import VerdictError

LINEAR_CLASSIFIERS: Final = ("LogisticRegression", "LogisticRegressionCV", "SGDClassifier")
LINEAR_REGRESSORS: Final = ("Ridge", "RidgeCV", "LinearRegression", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV")
NETWORKS: Final = ("MLPClassifier", "MLPRegressor")


def linear(model: Any) -> Core:
    """A linear classifier (log-odds as margin) or regressor.

    Raises:
        VerdictError: Several targets at once, or a classifier without probabilities.
    """
    if type(model).__name__ == "SGDClassifier" and model.loss != "log_loss":
        raise VerdictError(f"SGDClassifier with loss={model.loss!r} is not converted: train with loss='log_loss'")
    weight, bias = np.atleast_2d(np.asarray(model.coef_, np.float64)).T, np.atleast_1d(np.asarray(model.intercept_, np.float64))
    features, outputs = weight.shape
    bias = np.broadcast_to(bias, (outputs,)).copy()
    head = Layers((Dense(weight, bias),))
    if type(model).__name__ in LINEAR_REGRESSORS:
        if outputs != 1:
            raise VerdictError(f"{type(model).__name__} with {outputs} targets is not converted: train one model per target")
        return Core(head, features, 1, 0, "none")
    classes = len(model.classes_)
    several: Link = "ovr" if type(model).__name__ == "SGDClassifier" else "softmax"
    return Core(head, features, outputs, classes, "logistic" if classes == 2 else several)


def network(model: Any) -> Core:
    """A multi-layer perceptron.

    Raises:
        VerdictError: Several targets or labels at once, or an activation without a form here.
    """
    name, last = type(model).__name__, model.out_activation_
    outputs = int(model.n_outputs_)
    classes = len(model.classes_) if hasattr(model, "classes_") else 0
    if (classes == 0 and (outputs != 1 or last != "identity")) or (classes and (outputs != (1 if classes == 2 else classes))):
        raise VerdictError(f"{name} with {outputs} outputs behind {last!r} is not converted: train one target or one label a row")
    if model.activation not in ("identity", "relu", "tanh", "logistic"):
        raise VerdictError(f"{name} with activation={model.activation!r} is not converted")
    inner: Activation = model.activation
    depth = len(model.coefs_)
    layers = tuple(
        Dense(np.asarray(weight, np.float64), np.asarray(bias, np.float64), inner if i < depth - 1 else "identity")
        for i, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True))
    )
    link: Link = "none" if classes == 0 else "logistic" if classes == 2 else "softmax"
    return Core(Layers(layers), int(model.n_features_in_), outputs, classes, link)


def scaled(head: Layers, factor: NDArray[np.float64], shift: NDArray[np.float64]) -> Layers:
    """The layers for rows x of which they were fitted on x * factor + shift."""
    first, *rest = head.layers
    weight = first.weight * factor[:, None]
    return Layers((Dense(weight, first.bias + shift @ first.weight, first.activation), *rest), head.center)


def centered(head: Layers, rows: NDArray[np.float32]) -> Layers:
    """The layers with the middle of some rows [n, F] to subtract, if the first layer would otherwise cancel large numbers."""
    if len(rows) == 0:
        return head
    middle = rows.astype(np.float64).mean(axis=0).astype(np.float32)
    first = head.layers[0]
    # Each summand is rounded by 6e-8 of itself: where they add up to more than about 8, errors of the margin reach 1e-6.
    size = np.abs(middle.astype(np.float64)[:, None] * first.weight).sum(axis=0)
    return Layers(head.layers, middle) if size.max(initial=0.0) > _LARGE else head


_LARGE: Final = 4.0
