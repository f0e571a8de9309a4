"""A small network fitted to given contributions with numpy: one hidden layer and a direct term, Adam, a cosine of learning rates.

The direct term is linear in what the network sees of the player itself: most of a contribution is that, and without it many players would
have to pass through the few hidden units. Equal inputs give equal weights on one machine: one thread, one seed, a fixed number of rounds.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_ROUNDS: Final = 60
_BATCH: Final = 128
_RATE: Final = 3e-3
_DECAY: Final = 1e-3


@dataclass(frozen=True)
class Student:
    """relu(e W1 + b1) W2 + b2 + e W3, outputs O = players x columns, the columns of a player side by side.

    Attributes:
        first: [E, H].
        first_bias: [H].
        second: [H, O].
        second_bias: [O].
        own: [E, O], zero but where the output's player is the owner of the encoded value.
    """

    first: Matrix
    first_bias: Matrix
    second: Matrix
    second_bias: Matrix
    own: Matrix

    def answer(self, encoded: Matrix) -> Matrix:
        """[n, O]."""
        hidden = np.maximum(encoded @ self.first + self.first_bias, 0)
        answered: Matrix = hidden @ self.second + self.second_bias + encoded @ self.own
        return answered


def fit(encoded: Matrix, wanted: NDArray[np.float64], owner: NDArray[np.intp], hidden: int, seed: int) -> Student:
    """Fit by least squares, rows weighted so that directions count: a row whose contributions are large weighs no more than a usual one.

    Args:
        encoded: [n, E].
        wanted: [n, P, K].
        owner: [E] player of each encoded value.
        hidden: Units H.
        seed: Of the start and the order of the rows.

    Reference:
        Kingma, Ba (2015), Adam, ICLR, algorithm 1.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):  # how many threads share a sum decides its last bits
        return _fit(encoded, wanted, owner, hidden, np.random.Generator(np.random.PCG64(seed)))


def _fit(encoded: Matrix, wanted: NDArray[np.float64], owner: NDArray[np.intp], hidden: int, rng: np.random.Generator) -> Student:
    n, players, columns = wanted.shape
    size = np.sqrt((wanted**2).mean(axis=(1, 2)))
    usual = np.float32(max(float(np.median(size)), 1e-12))
    target = (wanted.reshape(n, -1) / usual).astype(np.float32)
    importance = (1 / (1 + (size / usual) ** 2)).astype(np.float32)
    importance /= importance.mean()
    width, outputs = encoded.shape[1], players * columns
    allowed = (owner[:, None] == np.repeat(np.arange(players), columns)).astype(np.float32)
    weights = [
        rng.normal(0, np.sqrt(2 / width), (width, hidden)).astype(np.float32),
        np.zeros(hidden, np.float32),
        rng.normal(0, 0.3 * np.sqrt(2 / hidden), (hidden, outputs)).astype(np.float32),
        np.zeros(outputs, np.float32),
        np.zeros((width, outputs), np.float32),
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
            gradients = _gradients(weights, encoded[chosen], target[chosen], importance[chosen])
            gradients[4] *= allowed
            for i, gradient in enumerate(gradients):
                moments[i] += np.float32(0.1) * (gradient - moments[i])
                squares[i] += np.float32(0.001) * (gradient**2 - squares[i])
                length = np.sqrt(squares[i] / np.float32(1 - 0.999**step)) + np.float32(1e-8)
                weights[i] -= rate * (moments[i] / np.float32(1 - 0.9**step)) / length
    return Student(weights[0], weights[1], weights[2] * usual, weights[3] * usual, weights[4] * usual)


def _gradients(weights: list[Matrix], encoded: Matrix, target: Matrix, importance: Matrix) -> list[Matrix]:
    first, first_bias, second, second_bias, own = weights
    layer = np.maximum(encoded @ first + first_bias, 0)
    above = (layer @ second + second_bias + encoded @ own - target) * (importance * np.float32(2 / len(encoded)))[:, None]
    below = (above @ second.T) * (layer > 0)
    decay = np.float32(_DECAY)
    return [
        encoded.T @ below + decay * first,
        below.sum(axis=0),
        layer.T @ above + decay * second,
        above.sum(axis=0),
        encoded.T @ above,
    ]
