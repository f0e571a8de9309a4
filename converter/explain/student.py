"""A small network fitted to given outputs with numpy: one hidden layer, Adam, a cosine of learning rates.

Equal inputs give equal weights on one machine: one thread, one seed, a fixed number of rounds.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

HIDDEN: Final = 256
_ROUNDS: Final = 60
_BATCH: Final = 128
_RATE: Final = 3e-3
_DECAY: Final = 1e-3


@dataclass(frozen=True)
class Student:
    """relu(e W1 + b1) W2 + b2: first [E, H], second [H, O]."""

    first: Matrix
    first_bias: Matrix
    second: Matrix
    second_bias: Matrix

    def answer(self, encoded: Matrix) -> Matrix:
        """[n, O]."""
        answered: Matrix = np.maximum(encoded @ self.first + self.first_bias, 0) @ self.second + self.second_bias
        return answered


def fit(encoded: Matrix, wanted: NDArray[np.float64], hidden: int = HIDDEN, seed: int = 0) -> Student:
    """Fit by least squares.

    Args:
        encoded: [n, E].
        wanted: [n, O].
        hidden: Units H.
        seed: Of the start and the order of the rows.

    Reference:
        Kingma, Ba (2015), Adam, ICLR, algorithm 1.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # how many threads share a sum decides its last bits
        return _fit(encoded, wanted, hidden, np.random.Generator(np.random.PCG64(seed)))


def _fit(encoded: Matrix, wanted: NDArray[np.float64], hidden: int, rng: np.random.Generator) -> Student:
    scale = np.float32(max(float(wanted.std()), 1e-12))
    target = (wanted / scale).astype(np.float32)
    n, width, outputs = len(encoded), encoded.shape[1], target.shape[1]
    weights = [
        rng.normal(0, np.sqrt(2 / width), (width, hidden)).astype(np.float32),
        np.zeros(hidden, np.float32),
        rng.normal(0, 0.3 * np.sqrt(2 / hidden), (hidden, outputs)).astype(np.float32),
        np.zeros(outputs, np.float32),
    ]
    moments, squares = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    steps = _ROUNDS * -(-n // _BATCH)
    step = 0
    for _ in range(_ROUNDS):
        order = rng.permutation(n)
        for start in range(0, n, _BATCH):
            chosen = order[start : start + _BATCH]
            step += 1
            rate = np.float32(_RATE * (0.5 + 0.5 * np.cos(np.pi * step / steps)))
            for i, gradient in enumerate(_gradients(weights, encoded[chosen], target[chosen])):
                moments[i] += np.float32(0.1) * (gradient - moments[i])
                squares[i] += np.float32(0.001) * (gradient**2 - squares[i])
                size = np.sqrt(squares[i] / np.float32(1 - 0.999**step)) + np.float32(1e-8)
                weights[i] -= rate * (moments[i] / np.float32(1 - 0.9**step)) / size
    return Student(weights[0], weights[1], weights[2] * scale, weights[3] * scale)


def _gradients(weights: list[Matrix], encoded: Matrix, target: Matrix) -> list[Matrix]:
    first, first_bias, second, second_bias = weights
    layer = np.maximum(encoded @ first + first_bias, 0)
    above = (layer @ second + second_bias - target) * np.float32(2 / len(encoded))
    below = (above @ second.T) * (layer > 0)
    decay = np.float32(_DECAY)
    return [encoded.T @ below + decay * first, below.sum(axis=0), layer.T @ above + decay * second, above.sum(axis=0)]
