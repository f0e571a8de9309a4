"""Amortised explanation: a student network that foretells the Shapley values of the margin, with the error that it was measured to make.

Labels are one antithetic pair for each of many rows; unbiased noise averages out over rows. The rows are the package's own, half of them
mixed with each other. Held-out rows are never trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.explain.encoding import LIMIT, encoding_for
from converter.explain.shapley import Floats, Margins, Matrix, ShapleyValues, channel_sums, evaluations, shapley_values
from converter.explain.student import fit
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes

TRAINING_ROWS: Final = 12_000
LEAST_TRAINING_ROWS: Final = 2_000
# Rows that labels and a reference may ask of the model: about ten seconds of a small network each.
LABEL_EVALUATIONS: Final = 12_000_000
REFERENCE_EVALUATIONS: Final = 6_000_000
# The gate asks each variant through the device's scorer, which costs more a row.
GATE_EVALUATIONS: Final = 2_000_000
HELD_OUT_ROWS: Final = 100
REFERENCE_PAIRS: Final = 150
MAX_HIDDEN: Final = 128
MIN_HIDDEN: Final = 24
# Weights that one answer multiplies; a student shall not cost more than the small networks that it explains.
MAX_WEIGHTS: Final = 7_200
_MIXED: Final = 0.5
_SWAPPED_AT_MOST: Final = 0.5
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
    hidden: int = MAX_HIDDEN,
    training_rows: int = TRAINING_ROWS,
    evaluations_at_most: int = LABEL_EVALUATIONS,
) -> Amortised:
    """Fit and measure a student.

    Args:
        margins: The model on raw rows.
        rows: Rows to learn from, [n, F] or [n, T, F].
        held_out: Rows to measure on; the first `HELD_OUT_ROWS` are looked at.
        background: At most 16 rows; the base is their mean margin.
        inputs: Schema.
        players: [F] player of each input, or [T, F] of each value of a window in segments.
        seed: Of everything random.
        hidden: Most units of the student; fewer for many inputs, see `MAX_WEIGHTS`.
        training_rows: Rows mixed from `rows`; fewer, but at least `LEAST_TRAINING_ROWS`, where one row costs many evaluations.
        evaluations_at_most: Rows that the labels may ask of the model; a reference may ask half as many.
    """
    count = int(players.max()) + 1
    cost = evaluations(count, len(background))
    wanted = int(np.clip(evaluations_at_most // cost, LEAST_TRAINING_ROWS, max(training_rows, LEAST_TRAINING_ROWS)))
    mixed = _mixed(rows, players, wanted, np.random.Generator(np.random.PCG64(seed)))
    labels = shapley_values(margins, mixed, background, players, 1, seed + 1)
    encoding = encoding_for(mixed, inputs)
    columns = len(labels.base)
    encoded = encoding.encode(mixed)
    units = int(np.clip(MAX_WEIGHTS // (encoded.shape[1] + count), MIN_HIDDEN, hidden))
    student = fit(encoded, labels.values, encoding.owners(players), units, seed + 2)

    looked_at = held_out[:HELD_OUT_ROWS]
    reference = reference_values(margins, looked_at, background, players, seed + 3, evaluations_at_most // 2)
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
        # What the long reference of the gate, and whoever wants to sample after all, needs.
        "background": background.astype(np.float32),
        "reference_evaluations": np.array(min(evaluations_at_most // 2, GATE_EVALUATIONS), np.int64),
        "own": _own(student.own.reshape(-1, count, columns), encoding.owners(players)),
        # Of what is shown: of channels where the players are segments of them.
        "error": half_widths(np.abs(channel_sums(corrected, players) - reference.shown.values)).T,
        "rest": rest.T,
    }
    if players.ndim == 2 or count < len(players):
        arrays["players"] = players.astype(np.int64)
    return Amortised(npz_bytes(arrays), corrected, reference)


def reference_values(
    margins: Margins,
    rows: Matrix,
    background: Matrix,
    players: NDArray[np.intp],
    seed: int,
    evaluations_at_most: int = REFERENCE_EVALUATIONS,
    pairs_at_most: int = REFERENCE_PAIRS,
) -> ShapleyValues:
    """A long run: `pairs_at_most` pairs, fewer (at least 8) where they would cost too many evaluations."""
    cost = evaluations(int(players.max()) + 1, len(background)) * max(1, len(rows))
    pairs = min(pairs_at_most, max(8, evaluations_at_most // cost))
    return shapley_values(margins, rows, background, players, pairs, seed)


def _mixed(rows: Matrix, players: NDArray[np.intp], count: int, rng: np.random.Generator) -> Matrix:
    """Half of them as they are, half with up to half of their players from another row: patches, channels or segments as wholes.

    Rows as they are serve inputs that depend on each other (128 gas sensors: cosine .993 without mixing, .967 with all rows mixed), mixed
    ones serve rare combinations (adult: .993 without, .997 with).
    """
    one, other = rows[rng.integers(len(rows), size=count)], rows[rng.integers(len(rows), size=count)]
    share = rng.random((count, 1)) * _SWAPPED_AT_MOST * (rng.random((count, 1)) < _MIXED)
    swapped = (rng.random((count, int(players.max()) + 1)) < share)[:, players]
    return np.where(swapped.reshape(count, *(1,) * (rows.ndim - 1 - players.ndim), *players.shape), other, one)


def _own(weights: Matrix, owner: NDArray[np.intp]) -> Matrix:
    """[K, E] of [E, P, K]: the weight of each encoded value for its owner, the only one that is not zero."""
    return np.ascontiguousarray(weights[np.arange(len(owner)), owner].T)


def _shares(residuals: Floats) -> Floats:
    """[P, K] in which shares the players take what is left, by the variance of their errors; evenly where there was no error.

    The errors of a row count relative to the row's own: one strange row would otherwise say where all others are corrected.
    """
    size = (residuals**2).sum(axis=1, keepdims=True)
    variance = np.mean(residuals**2 / np.where(size > 0, size, 1), axis=0)
    total = variance.sum(axis=0, keepdims=True)
    shares: Floats = np.where(total > 0, variance / np.where(total > 0, total, 1), 1 / len(variance))
    return shares


def half_widths(errors: Floats) -> Floats:
    """[P, K] of errors [n, P, K]: what covered 95 % of the rows, counted as if one more had the largest error (split conformal)."""
    n = len(errors)
    place = min(n, int(np.ceil((n + 1) * _COVERED))) - 1
    found: Floats = np.sort(errors, axis=0)[place]
    return found
