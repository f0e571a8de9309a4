"""Shapley values foretold by a small network that was fitted to them at conversion: a few products of matrices, no call of the model.

What the network gets wrong is known: `error` holds for each input the half-width that covered 95 % of held-out rows, and the contributions
are corrected so that they add up to the margin exactly.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Explanation, Margins, Matrix, array_of, column_of
from edgefleet.errors import ArtifactError
from edgefleet.players import by_segment, players_of, rows_back

MAX_VALUES: Final = 64 * 1024 * 1024
# What float32 leaves of usual margins; more is given to all players in their shares once more.
_ROUNDED: Final = 1e-4
# Means of at most so many standard deviations leave float32 enough digits.
_NEAR: Final = 16.0


@dataclass(frozen=True)
class _Column:
    """What one column of the margin needs: own terms [E], second layer [H + 2, P], shares of the rest [P], base, bars [F].

    `least_sure` is the player with the largest share.
    """

    own: Matrix
    second: Matrix
    rest: NDArray[np.float64]
    base: float
    bars: NDArray[np.float64]
    least_sure: int

    @classmethod
    def of(
        cls, own: Matrix, second: Matrix, bias: NDArray[np.float64], rest: NDArray[np.float64], base: float, bars: NDArray[np.float64]
    ) -> "_Column":
        """With a second layer [H, P] whose outputs leave no rest of their own: what each unit adds is taken back in the players' shares.

        Its last two rows belong to a unit that is always 1, the biases, and to one that holds what own terms leave of the margin.
        """
        whole = np.concatenate([second, bias[None]]).astype(np.float64)
        balanced = whole - whole.sum(axis=1, keepdims=True) * rest
        return cls(own, np.concatenate([balanced, rest[None]]).astype(np.float32), rest, base, bars, int(rest.argmax()))


class AmortisedExplainer:
    """phi = relu(e(x) W1 + b1) W2 + b2 + own terms, e(x) the encoded raw row; an own term is linear in what is encoded of the player.

    e(x) = numbers (x - mean) / scale, cut to +-`limit`, missing as 0; then for each (column, code) of `codes` whether the column holds it
    (a category, or NaN for missing). A window [T, F] is encoded value by value; its players are channels with all their T values, or, where
    the file's players are [T, F], channels in time segments, whose contributions are added up for the channel.
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
        in_segments = self._players.ndim == 2
        if in_segments and self._players.size != self._size:
            raise ArtifactError(f"explainer: made for rows of {self._size} values, its players are of {self._players.size}; convert again")
        self.segment_rows_back = rows_back(self._players[:, 0] // len(names)) if in_segments else ()
        self._numbers, self._coded = self._places(arrays, "numbers"), self._places(arrays, "coded")
        self._codes = array_of(arrays, "codes", 1).astype(np.float32)
        self._missing = np.flatnonzero(np.isnan(self._codes))
        self._mean, self._rate = array_of(arrays, "mean", 1).astype(np.float32), array_of(arrays, "rate", 1).astype(np.float32)
        limit = array_of(arrays, "limit", 0).astype(np.float32)
        base, error = array_of(arrays, "base", 1).astype(np.float64), array_of(arrays, "error", 2).astype(np.float64)
        rest, own = array_of(arrays, "rest", 2).astype(np.float64), array_of(arrays, "own", 2).astype(np.float32)
        first, second = array_of(arrays, "first", 2).astype(np.float32), array_of(arrays, "second", 3).astype(np.float32)
        biases = array_of(arrays, "first_bias", 1).astype(np.float32), array_of(arrays, "second_bias", 2).astype(np.float32)
        self._check(columns, first, second, biases, (base, error, rest, own, limit))
        # Scales go into the weights, and means into the biases where that costs no digits: rows are only cut.
        scales = np.append(self._rate, np.ones(len(self._codes), np.float32))
        self._owner = self._players.ravel()[np.concatenate([self._numbers, self._coded]) % self._players.size]
        own, weights, middle = own * scales, first * scales[:, None], np.zeros(len(scales))
        self._centred = bool((np.abs(self._mean) * self._rate > _NEAR).any())
        if not self._centred:
            middle[: len(self._mean)] = self._mean
        reach = limit / self._rate.astype(np.float64)
        self._filled = middle[: len(reach)].astype(np.float32)
        self._high, self._low = (np.asarray(middle[: len(reach)] + end, np.float32) for end in (reach, -reach))
        self._first = np.concatenate([weights, np.zeros((len(weights), 2), np.float32)], axis=1)
        below = biases[0] - middle @ weights
        # relu(h + b) = max(h, -b) + b: the biases are lower ends of the units, and constants behind them.
        self._floor = np.concatenate([-below, [1, -np.inf]]).astype(np.float32)
        constant = biases[1] + np.einsum("h,khp->kp", below, second)
        constant -= [np.bincount(self._owner, own[k] * middle, second.shape[2]) for k in range(columns)]
        self._may_be_missing = bool(len(self._missing))
        self._all_numbers = bool(np.array_equal(self._numbers, np.arange(self._size)))
        # The usual row of measured values needs nothing else.
        self._only_cut = self._all_numbers and not (self._centred or self._may_be_missing or len(self._codes))
        self._alone = bool(np.array_equal(self._owner, np.arange(second.shape[2])))
        counts = np.bincount(self._players.ravel())
        self._ones = np.ones(len(counts))
        self._share_of_input = None if in_segments or len(counts) == len(names) else (1 / counts)[self._players]
        bars = error if in_segments else error[:, self._players] / counts[self._players]
        self._columns = [_Column.of(own[k], second[k], constant[k], rest[k], float(base[k]), bars[k]) for k in range(columns)]

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        place, sign = column_of(index, len(self._columns))
        column = self._columns[place]
        if self._only_cut:
            encoded = np.minimum(row if row.ndim == 1 else row.ravel(), self._high)
            np.maximum(encoded, self._low, out=encoded)
        else:
            encoded = self._encoded(row.ravel(), self._may_be_missing)
        owned = float(encoded.dot(column.own))
        if math.isnan(owned):  # a value is missing that never was while learning
            encoded = self._encoded(row.ravel(), True)
            owned = float(encoded.dot(column.own))
        hidden = encoded.dot(self._first)
        np.maximum(hidden, self._floor, out=hidden)
        base = sign * column.base
        moved = margin - base
        hidden[-1] = sign * moved - owned
        encoded *= column.own
        players = encoded if self._alone else np.bincount(self._owner, encoded, len(column.rest))
        players += hidden.dot(column.second)
        foretold = players.astype(np.float64)
        if sign < 0:
            np.negative(foretold, out=foretold)
        # A product with ones takes half the time of a sum.
        gap = moved - float(foretold.dot(self._ones))
        if abs(gap) > _ROUNDED:  # large terms that cancel in float32
            foretold += gap * column.rest
            gap = moved - float(foretold.dot(self._ones))
        # What rounding left goes to the player that is least sure anyway.
        before = float(foretold[column.least_sure])
        after = before + gap
        foretold[column.least_sure] = after
        gap -= after - before
        if self.segment_rows_back:
            segments = by_segment(foretold, len(self._names))
            return Explanation(base, segments.sum(axis=0), self._names, "amortised", column.bars, gap, segments, self.segment_rows_back)
        contributions = foretold if self._share_of_input is None else foretold[self._players] * self._share_of_input
        return Explanation(base, contributions, self._names, "amortised", column.bars, gap)

    def _encoded(self, row: Matrix, missing: bool) -> Matrix:
        """[E] the numbers, centred where they must be, cut; then the flags."""
        numbers = row if self._all_numbers else row.take(self._numbers)
        numbers = np.minimum(numbers - self._mean if self._centred else numbers, self._high)
        if missing:
            numbers = np.where(np.isnan(numbers), self._filled, numbers)
        np.maximum(numbers, self._low, out=numbers)
        if not len(self._codes):
            return numbers
        held = row.take(self._coded)
        hits = held == self._codes
        if len(self._missing):
            hits[self._missing] = np.isnan(held[self._missing])
        return np.concatenate([numbers, hits])

    def _places(self, arrays: dict[str, NDArray[Any]], name: str) -> NDArray[np.intp]:
        found = array_of(arrays, name, 1)
        if found.dtype.kind != "i" or not ((found >= 0) & (found < self._size)).all():
            raise ArtifactError(f"explainer: {name} name values that a row of {self._size} has not; convert again")
        return found.astype(np.intp)

    def _check(self, columns: int, first: Matrix, second: Matrix, biases: tuple[Matrix, Matrix], others: tuple[NDArray[Any], ...]) -> None:
        base, error, rest, own, _ = others
        encoded, hidden, players = len(self._numbers) + len(self._codes), len(biases[0]), int(self._players.max()) + 1
        fits = (
            self._mean.shape == self._rate.shape == self._numbers.shape
            and bool((self._rate > 0).all())
            and self._codes.shape == self._coded.shape
            and first.shape == (encoded, hidden)
            and second.shape == (columns, hidden, players)
            and base.shape == (columns,)
            and own.shape == (columns, encoded)
            and biases[1].shape == rest.shape == (columns, players)
            and error.shape == (columns, players if self._players.ndim == 1 else len(self._names))
        )
        if not fits:
            raise ArtifactError(f"explainer: its arrays do not fit {len(self._names)} inputs and {columns} margins; convert again")
        finite = (self._mean, self._rate, *others, first, second, *biases)
        if not all(bool(np.isfinite(array).all()) for array in finite):
            raise ArtifactError("explainer: its network holds NaN or infinity; convert again")
