"""The form of a core: margin = head(x), probabilities = calibrator(link(margin)).

All arrays are float64 as the library fitted them; a writer rounds to float32 where its runtime computes, thresholds of trees always down.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble

# softmax: of K = classes margins. logistic: K = 1 margin, probabilities [1 - p, p]. shares: the margin is the probabilities already.
# ovr: the logistic of each of K = classes margins, divided by their sum. none: a value or a score, no probabilities.
Link = Literal["softmax", "logistic", "shares", "ovr", "none"]
Activation = Literal["identity", "relu", "tanh", "logistic"]


@dataclass(frozen=True)
class Dense:
    """activation(x @ weight + bias); weight [in, out], bias [out]."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    activation: Activation = "identity"


@dataclass(frozen=True)
class Layers:
    """Dense layers one behind the other; a linear model is one layer."""

    layers: tuple[Dense, ...]


@dataclass(frozen=True)
class Trees:
    """A sum of trees: offset + the values of the leaves that a row reaches.

    Attributes:
        ensemble: The trees.
        average_depth: Isolation forests only: the sum s of the leaves' values becomes the score 2^(-s / average_depth); else None.
    """

    ensemble: Ensemble
    average_depth: float | None = None


@dataclass(frozen=True)
class Kernel:
    """Support vectors with the RBF kernel: sum over m of exp(-gamma |(x - mean) / scale - support_m|^2) dual_m + intercept.

    Attributes:
        mean: [F] subtracted first.
        scale: [F] divided by.
        support: [M, F].
        dual: [M, K].
        intercept: [K].
        gamma: Width.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    support: NDArray[np.float64]
    dual: NDArray[np.float64]
    intercept: NDArray[np.float64]
    gamma: float


@dataclass(frozen=True)
class Distance:
    """A distance as anomaly score: |(x - mean) @ whitening|.

    Attributes:
        mean: [F].
        whitening: [F, D].
        fill: [F] what stands for a missing value; None: missing values make the score NaN.
    """

    mean: NDArray[np.float64]
    whitening: NDArray[np.float64]
    fill: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Core:
    """A whole model behind its cleaning steps.

    Attributes:
        head: What makes the margin.
        features: Columns that it takes.
        margins: Columns K of the margin: 1 for two classes with link `logistic`, values and scores; else the number of classes.
        classes: Columns of the probabilities; 0 for values and scores.
        link: From margins to probabilities.
        calibrator: Plain values of the package's calibrator.json, applied to the probabilities; None for none.
    """

    head: Layers | Trees | Kernel | Distance
    features: int
    margins: int
    classes: int
    link: Link
    calibrator: dict[str, Any] | None = None
