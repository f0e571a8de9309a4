"""The loss that a search watches while a candidate is being fitted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.candidates.fitted import Problem


def loss(problem: Problem, predictions: NDArray[np.float64], label: NDArray[Any]) -> float:
    """Mean log loss of probabilities [n, classes], or mean squared error of values [n]; smaller is better.

    >>> loss(Problem("regression", 0, (1,), 0), np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    2.0
    """
    if problem.task == "classification":
        of_truth = predictions[np.arange(len(label)), label]
        return float(-np.log(np.maximum(of_truth, 1e-15)).mean())
    return float(np.square(predictions - label).mean())
