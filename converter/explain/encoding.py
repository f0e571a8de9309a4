"""How a student sees a raw row: scaled numbers, and flags for categories and missing values; see `device_agent.amortised`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input

Matrix = NDArray[np.float32]

LIMIT: Final = 10.0
MAX_CODES: Final = 64


@dataclass(frozen=True)
class Encoding:
    """e(x) of flattened rows.

    Attributes:
        numbers: Places of numeric values.
        mean: Subtracted from them.
        rate: Multiplied with them.
        coded: Places of values that are compared.
        codes: With what; NaN asks whether it is missing.
    """

    numbers: NDArray[np.int64]
    mean: Matrix
    rate: Matrix
    coded: NDArray[np.int64]
    codes: Matrix

    def owners(self, players: NDArray[np.intp]) -> NDArray[np.intp]:
        """[E] player of each encoded value; `players` [F] of each input, or [T, F] of each value of a window."""
        found: NDArray[np.intp] = players.ravel()[np.concatenate([self.numbers, self.coded]) % players.size]
        return found

    def encode(self, rows: Matrix) -> Matrix:
        """[n, E] of rows [n, F] or windows [n, T, F]."""
        flat = rows.reshape(len(rows), -1)
        numbers = np.nan_to_num((flat[:, self.numbers] - self.mean) * self.rate, nan=0.0)
        held = flat[:, self.coded]
        hits = np.where(np.isnan(self.codes), np.isnan(held), held == self.codes)
        return np.concatenate([np.clip(numbers, -LIMIT, LIMIT), hits.astype(np.float32)], axis=1)


def encoding_for(rows: Matrix, inputs: Sequence[Input]) -> Encoding:
    """What suits some rows [n, F] or [n, T, F] and the schema: the most frequent categories get flags, at most `MAX_CODES` each.

    Values that do not vary in the rows get neither number nor flag.
    """
    flat = rows.reshape(len(rows), -1)
    numbers: list[int] = []
    coded: list[tuple[int, float]] = []
    for place in range(flat.shape[1]):
        column, value = inputs[place % len(inputs)], flat[:, place]
        present = value[~np.isnan(value)]
        if column.kind == "category":
            kinds, counts = np.unique(present, return_counts=True)
            kept = kinds[np.argsort(-counts, kind="stable")[:MAX_CODES]]
            coded += [(place, float(kind)) for kind in sorted(kept)]
        elif len(present) and present.std() > 0:
            numbers.append(place)
        if 0 < len(present) < len(value):
            coded.append((place, float("nan")))
    mean, spread = np.zeros(len(numbers)), np.ones(len(numbers))
    for i, place in enumerate(numbers):
        present = flat[~np.isnan(flat[:, place]), place].astype(np.float64)
        mean[i], spread[i] = present.mean(), present.std()
    places, codes = [place for place, _ in coded], [code for _, code in coded]
    return Encoding(
        np.array(numbers, np.int64), mean.astype(np.float32), (1 / spread).astype(np.float32),
        np.array(places, np.int64), np.array(codes, np.float32),
    )  # fmt: skip
