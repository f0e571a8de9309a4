"""Shapley values of the margin by antithetic pairs of permutations, for many rows at once: labels of a student, and references.

The device's sampler (`device_agent.sampled`) explains one row of traffic; this one draws for every row its own orders, from one seed, and
keeps the pairs apart, so that the standard error is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.players import by_segment

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
# Raw rows [n, F] or windows [n, T, F] to margins [n, K].
Margins = Callable[[Matrix], NDArray[np.floating]]

_CHUNK_VALUES: Final = 1 << 21


@dataclass(frozen=True)
class ShapleyValues:
    """Estimated contributions of players.

    Attributes:
        values: [n, P, K].
        error: [n, P, K] standard error, NaN from a single pair.
        base: [K] mean margin of the background rows.
        channels: The same of whole channels [n, F, K], where the players are time segments of them; else None.
    """

    values: Floats
    error: Floats
    base: Floats
    channels: "ShapleyValues | None" = None

    @property
    def shown(self) -> "ShapleyValues":
        """What an explanation shows as its contributions: channels where there are segments, else the players."""
        return self if self.channels is None else self.channels

    def moved(self, offset: Floats, players: NDArray[np.intp]) -> "ShapleyValues":
        """With [P, K] added to the values of `players`, and its sums to those of the channels."""
        channels = (
            None if self.channels is None else self.channels.moved(channel_sums(offset[None], players)[0], np.arange(players.shape[-1]))
        )
        return replace(self, values=self.values + offset, channels=channels)


def shapley_values(margins: Margins, rows: Matrix, background: Matrix, players: NDArray[np.intp], pairs: int, seed: int) -> ShapleyValues:
    """Contributions of each player to each column of the margin.

    Args:
        margins: The model. Rows outside a coalition take the background rows' values, and the margins are averaged over these.
        rows: [n, F] or [n, T, F].
        background: [B, ...] of the same shape.
        players: [F] player of each input, 0 .. P - 1, or [T, F] of each value of a window in segments, see `edgefleet.players`.
        pairs: Pairs of a permutation and its reverse, at least 1.
        seed: Of the permutations.

    Reference:
        Mitchell, Cooper, Frank, Holmes (2022), JMLR 23, section 3.
    """
    count = int(players.max()) + 1
    base, whole = _asked(margins, background).mean(axis=0), _asked(margins, rows)
    sums = [_Sums(np.zeros((len(rows), count, len(base))))]
    if players.ndim == 2:
        sums.append(_Sums(np.zeros((len(rows), players.shape[1], len(base)))))
    rng = np.random.Generator(np.random.PCG64(seed))
    at_once = max(1, _CHUNK_VALUES // (max(1, count - 1) * background.size))
    for _ in range(pairs):
        orders = rng.permuted(np.tile(np.arange(count), (len(rows), 1)), axis=1)
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            ends = base, whole[part]
            forth = _walk(margins, rows[part], background, players, orders[part], ends)
            back = _walk(margins, rows[part], background, players, orders[part, ::-1], ends)
            pair = (forth + back) / 2
            for one, values in zip(sums, (pair, channel_sums(pair, players)), strict=False):
                one.add(part, values)
    shown = [ShapleyValues(*one.mean_and_error(pairs), base) for one in sums]
    return replace(shown[0], channels=shown[1] if len(shown) > 1 else None)


def channel_sums(values: Floats, players: NDArray[np.intp]) -> Floats:
    """[n, F, K] of the players' values [n, P, K], where the players are segments of a window; else the values themselves."""
    if players.ndim == 1:
        return values
    sums: Floats = by_segment(values.swapaxes(1, 2), players.shape[1]).sum(axis=2).swapaxes(1, 2)
    return sums


class _Sums:
    """Sums over pairs, like `start`, which is zero."""

    def __init__(self, start: Floats) -> None:
        self._total, self._squares = start, np.zeros_like(start)

    def add(self, part: slice, pair: Floats) -> None:
        self._total[part] += pair
        self._squares[part] += pair**2

    def mean_and_error(self, pairs: int) -> tuple[Floats, Floats]:
        """Mean, and its standard error."""
        mean = self._total / pairs
        if pairs == 1:
            return mean, np.full_like(mean, np.nan)
        spread = np.maximum(self._squares / pairs - mean**2, 0) * pairs / (pairs - 1)
        return mean, np.sqrt(spread / pairs)


def evaluations(players: int, background: int) -> int:
    """Rows that the model is asked for one pair of one row."""
    return 2 * max(1, players - 1) * background


def _walk(
    margins: Margins, rows: Matrix, background: Matrix, players: NDArray[np.intp], orders: NDArray[np.intp], ends: tuple[Floats, Floats]
) -> Floats:
    """[n, P, K] what each player adds when it enters in its row's order."""
    n, count = orders.shape
    rank = np.argsort(orders, axis=1)
    inside = (rank[:, None, :] < np.arange(1, count)[None, :, None])[:, :, players]
    # [n, P - 1, 1 (background), F], of windows [n, P - 1, 1, 1 or T, F]
    mask = inside.reshape(n, count - 1, 1, *(1,) * (rows.ndim - 1 - players.ndim), *players.shape)
    mixed = np.where(mask, rows[:, None, None], background)
    inner = _asked(margins, mixed.reshape(-1, *rows.shape[1:])).reshape(n, count - 1, len(background), -1).mean(axis=2)
    base, whole = ends
    along = np.concatenate([np.broadcast_to(base, (n, 1, len(base))), inner, whole[:, None]], axis=1)
    values = np.empty((n, count, len(base)))
    np.put_along_axis(values, orders[:, :, None], np.diff(along, axis=1), axis=1)
    return values


def _asked(margins: Margins, rows: Matrix) -> Floats:
    answered = np.asarray(margins(np.ascontiguousarray(rows)), np.float64) if len(rows) else np.zeros((0, 1))
    return answered.reshape(len(rows), -1)
