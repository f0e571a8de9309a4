"""The form of a core: margin = head(x), probabilities = calibrator(link(margin)).

All arrays are float64 as the library fitted them; a writer rounds to float32 where its runtime computes, thresholds of trees always down.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble
from edgefleet.steps import Steps

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
    """Dense layers one behind the other; a linear model is one layer.

    Attributes:
        layers: In order.
        center: [F] float32 values in the middle of the rows, or None. x @ weight + bias equals (x - center) @ weight + (bias +
            center @ weight), which float32 computes without cancelling large numbers; a writer may leave it out.
    """

    layers: tuple[Dense, ...]
    center: NDArray[np.float32] | None = None


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
class Votes:
    """Several classes from decisions between every two of them.

    Decision p between the classes i < j (in the order 01, 02, .. 12, ..) is a vote for i where it is not below 0, else for j. With c_k the
    sum of a class's decisions (minus them where it is j), its worth is votes_k + c_k / (3 (|c_k| + 1)), and its margin
    slope_k worth_k + intercept_k.

    Attributes:
        slope: [classes].
        intercept: [classes].

    Reference:
        scikit-learn, `_ovr_decision_function`; Platt (1999) for slope and intercept.
    """

    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """Support vectors with the RBF kernel: sum over m of exp(-gamma |(x - mean) / scale - support_m|^2) dual_m + intercept.

    Attributes:
        mean: [F] subtracted first.
        scale: [F] divided by.
        support: [M, F].
        dual: [M, K]; with votes [M, classes (classes - 1) / 2].
        intercept: [K], or as many as dual has columns.
        gamma: Width.
        votes: How several classes are made of these decisions; None: they are the margins.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    support: NDArray[np.float64]
    dual: NDArray[np.float64]
    intercept: NDArray[np.float64]
    gamma: float
    votes: Votes | None = None


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
        front: What an imported pipeline does itself between the package's rows and the head (`features` counts the columns behind it);
            None for nothing. A writer applies it first, or refuses.
    """

    head: Layers | Trees | Kernel | Distance
    features: int
    margins: int
    classes: int
    link: Link
    calibrator: dict[str, Any] | None = None
    front: Steps | None = None
