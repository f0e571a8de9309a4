"""Shapley values foretold by a small network that was fitted to them at conversion: a few products of matrices, no call of the model.

What the network gets wrong is known: `error` holds for each input the half-width that covered 95 % of held-out rows, and the contributions
are corrected so that they add up to the margin exactly.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Explanation, Margins, Matrix, array_of, column_of
from device_agent.sampled import players_of
from edgefleet.errors import ArtifactError

MAX_VALUES: Final = 64 * 1024 * 1024


class AmortisedExplainer:
    """phi = relu(e(x) W1 + b1) W2 + b2 + own terms, e(x) the encoded raw row; an own term is linear in what is encoded of the player.

    e(x) = numbers (x - mean) / scale, cut to +-`limit`, missing as 0; then for each (column, code) of `codes` whether the column holds it
    (a category, or NaN for missing). A window [T, F] is encoded value by value, its inputs are players with all their T values.
    The rest that the network leaves, margin - base - sum(phi), is given to the players in proportion to the variance of their errors:
    the least change in units of what is uncertain anyway.

    Reference:
        Jethani, Sudarshan, Covert, Lee, Ranganath (2022), FastSHAP, ICLR: the additive correction (their eq. 6, there in equal shares).
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], columns: int) -> None:
        self._names = names
        self._players = players_of(arrays.get("players"), len(names))
        self._size = int(array_of(arrays, "values", 0))
        if not len(names) <= self._size <= MAX_VALUES or self._size % len(names):
            raise ArtifactError(f"explainer: made for rows of {self._size} values, the model has {len(names)} inputs; convert again")
        self._numbers, self._coded = self._places(arrays, "numbers"), self._places(arrays, "coded")
        self._codes = array_of(arrays, "codes", 1).astype(np.float32)
        self._missing = np.flatnonzero(np.isnan(self._codes))
        self._mean, self._rate = array_of(arrays, "mean", 1).astype(np.float32), array_of(arrays, "rate", 1).astype(np.float32)
        self._limit = np.float32(array_of(arrays, "limit", 0))
        counts = np.bincount(self._players)
        self._share_of_input = (1 / counts)[self._players]
        self._base, self._error = array_of(arrays, "base", 1).astype(np.float64), array_of(arrays, "error", 2).astype(np.float64)
        self._rest = array_of(arrays, "rest", 2).astype(np.float64)
        self._first, self._first_bias = (
            array_of(arrays, "first", 2).astype(np.float32),
            array_of(arrays, "first_bias", 1).astype(np.float32),
        )
        self._second = array_of(arrays, "second", 3).astype(np.float32)
        self._second_bias = array_of(arrays, "second_bias", 2).astype(np.float32)
        self._own = array_of(arrays, "own", 2).astype(np.float32)
        self._owner = self._players[np.concatenate([self._numbers, self._coded]) % len(names)]
        self._check(columns, len(counts))

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        column, sign = column_of(index, len(self._base))
        encoded = self._encoded(row.ravel())
        hidden = encoded @ self._first
        hidden += self._first_bias
        np.maximum(hidden, 0, out=hidden)
        foretold = np.asarray(np.bincount(self._owner, encoded * self._own[column], self._second.shape[2]), np.float64)
        foretold += hidden @ self._second[column]
        foretold += self._second_bias[column]
        base = sign * float(self._base[column])
        foretold *= sign
        foretold += (margin - base - float(foretold.sum())) * self._rest[column]
        contributions = foretold[self._players] * self._share_of_input
        gap = margin - base - float(contributions.sum())
        error = self._error[column][self._players] * self._share_of_input
        return Explanation(base, contributions, self._names, "amortised", error, gap)

    def _encoded(self, row: Matrix) -> Matrix:
        numbers = row.take(self._numbers)
        numbers -= self._mean
        numbers *= self._rate
        numbers[np.isnan(numbers)] = 0.0
        np.minimum(numbers, self._limit, out=numbers)
        np.maximum(numbers, -self._limit, out=numbers)
        if not len(self._codes):
            return numbers
        held = row.take(self._coded)
        hits = held == self._codes
        if len(self._missing):
            hits[self._missing] = np.isnan(held[self._missing])
        return np.concatenate([numbers, hits.astype(np.float32)])

    def _places(self, arrays: dict[str, NDArray[Any]], name: str) -> NDArray[np.intp]:
        found = array_of(arrays, name, 1)
        if found.dtype.kind != "i" or not ((found >= 0) & (found < self._size)).all():
            raise ArtifactError(f"explainer: {name} name values that a row of {self._size} has not; convert again")
        return found.astype(np.intp)

    def _check(self, columns: int, players: int) -> None:
        encoded, hidden = len(self._numbers) + len(self._codes), len(self._first_bias)
        fits = (
            self._mean.shape == self._rate.shape == self._numbers.shape
            and self._codes.shape == self._coded.shape
            and self._first.shape == (encoded, hidden)
            and self._second.shape == (columns, hidden, players)
            and self._base.shape == (columns,)
            and self._own.shape == (columns, encoded)
            and {self._second_bias.shape, self._error.shape, self._rest.shape} == {(columns, players)}
        )
        if not fits:
            raise ArtifactError(
                f"explainer: its arrays fit neither {len(self._names)} inputs and {columns} margins nor each other; convert again"
            )
        finite = (self._mean, self._rate, self._limit, self._base, self._error, self._rest, self._first, self._second, self._own)
        if not all(bool(np.isfinite(array).all()) for array in (*finite, self._first_bias, self._second_bias)):
            raise ArtifactError("explainer: its network holds NaN or infinity; convert again")
