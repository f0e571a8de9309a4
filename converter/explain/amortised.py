"""Amortised explanation: a student network that foretells the Shapley values of the margin, with the error that it was measured to make.

Labels are one antithetic pair for each of many rows; unbiased noise averages out over rows. The rows are mixed from the package's own: each
takes some inputs of another row, which is what coalitions look like, too. Held-out rows are never trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.explain.encoding import LIMIT, encoding_for
from converter.explain.shapley import Floats, Margins, Matrix, ShapleyValues, evaluations, shapley_values
from converter.explain.student import HIDDEN, fit
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes

TRAINING_ROWS: Final = 12_000
LEAST_TRAINING_ROWS: Final = 1_000
# What the labels and the reference may ask of the model: about ten seconds of a small network each.
LABEL_EVALUATIONS: Final = 12_000_000
REFERENCE_EVALUATIONS: Final = 6_000_000
HELD_OUT_ROWS: Final = 100
REFERENCE_PAIRS: Final = 150
_SWAPPED: Final = 0.3
_COVERED: Final = 0.95


@dataclass(frozen=True)
class Amortised:
    """The explainer file and what its held-out rows said.

    Attributes:
        content: Bytes of the file.
        values: [n, P, K] what it answers on the held-out rows, corrected.
        reference: A long run on the same rows.
    """

    content: bytes
    values: Floats
    reference: ShapleyValues


def amortise(
    margins: Margins,
    rows: Matrix,
    held_out: Matrix,
    background: Matrix,
    inputs: Sequence[Input],
    players: NDArray[np.intp],
    seed: int = 0,
    hidden: int = HIDDEN,
    training_rows: int = TRAINING_ROWS,
) -> Amortised:
    """Fit and measure a student.

    Args:
        margins: The model on raw rows.
        rows: Rows to learn from, [n, F] or [n, T, F].
        held_out: Rows to measure on; the first `HELD_OUT_ROWS` are looked at.
        background: At most 16 rows; the base is their mean margin.
        inputs: Schema.
        players: [F] player of each input.
        seed: Of everything random.
        hidden: Units of the student.
        training_rows: Rows mixed from `rows`; fewer where one row costs many evaluations.
    """
    count = int(players.max()) + 1
    cost = evaluations(count, len(background))
    wanted = int(np.clip(LABEL_EVALUATIONS // cost, LEAST_TRAINING_ROWS, max(training_rows, LEAST_TRAINING_ROWS)))
    mixed = _mixed(rows, wanted, np.random.Generator(np.random.PCG64(seed)))
    labels = shapley_values(margins, mixed, background, players, 1, seed + 1)
    encoding = encoding_for(mixed, inputs)
    columns = len(labels.base)
    student = fit(encoding.encode(mixed), labels.values.reshape(len(mixed), -1), hidden, seed + 2)

    looked_at = held_out[:HELD_OUT_ROWS]
    reference = reference_values(margins, looked_at, background, players, seed + 3)
    foretold = student.answer(encoding.encode(looked_at)).reshape(len(looked_at), count, columns).astype(np.float64)
    whole = np.asarray(margins(looked_at), np.float64).reshape(len(looked_at), -1)
    rest = _shares(foretold - reference.values)
    corrected = foretold + (whole - labels.base - foretold.sum(axis=1))[:, None, :] * rest
    arrays: dict[str, NDArray[np.generic]] = {
        "method": np.array("amortised"),
        "values": np.array(np.prod(rows.shape[1:]), np.int64),
        "numbers": encoding.numbers,
        "mean": encoding.mean,
        "rate": encoding.rate,
        "coded": encoding.coded,
        "codes": encoding.codes,
        "limit": np.array(LIMIT, np.float32),
        "base": labels.base,
        "first": student.first,
        "first_bias": student.first_bias,
        "second": np.ascontiguousarray(student.second.reshape(-1, count, columns).transpose(2, 0, 1)),
        "second_bias": np.ascontiguousarray(student.second_bias.reshape(count, columns).T),
        "error": _covering(np.abs(corrected - reference.values)).T,
        "rest": rest.T,
    }
    if count < len(players):
        arrays["players"] = players.astype(np.int64)
    return Amortised(npz_bytes(arrays), corrected, reference)


def reference_values(margins: Margins, rows: Matrix, background: Matrix, players: NDArray[np.intp], seed: int) -> ShapleyValues:
    """A long run: `REFERENCE_PAIRS` pairs, fewer (at least 8) where they would cost too many evaluations."""
    cost = evaluations(int(players.max()) + 1, len(background)) * max(1, len(rows))
    pairs = int(np.clip(REFERENCE_EVALUATIONS // cost, 8, REFERENCE_PAIRS))
    return shapley_values(margins, rows, background, players, pairs, seed)


def _mixed(rows: Matrix, count: int, rng: np.random.Generator) -> Matrix:
    """Rows that take some inputs of another one; inputs of a window as whole channels."""
    one, other = rows[rng.integers(len(rows), size=count)], rows[rng.integers(len(rows), size=count)]
    swapped = rng.random((count, rows.shape[-1])) < _SWAPPED
    return np.where(swapped.reshape(count, *(1,) * (rows.ndim - 2), -1), other, one)


def _shares(residuals: Floats) -> Floats:
    """[P, K] in which shares the players take what is left, by the variance of their errors; evenly where there was no error."""
    variance = np.mean(residuals**2, axis=0)
    total = variance.sum(axis=0, keepdims=True)
    shares: Floats = np.where(total > 0, variance / np.where(total > 0, total, 1), 1 / len(variance))
    return shares


def _covering(errors: Floats) -> Floats:
    """[P, K] half-width that covered 95 % of the held-out rows, counted as if one more had the largest error (split conformal)."""
    n = len(errors)
    place = min(n, int(np.ceil((n + 1) * _COVERED))) - 1
    found: Floats = np.sort(errors, axis=0)[place]
    return found
