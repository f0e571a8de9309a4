"""Shapley values by sampled permutations: for models that have no exact form, through either runtime.

Reference:
    Mitchell, Cooper, Frank, Holmes (2022), Sampling Permutations for Shapley Value Estimation, JMLR 23, section 3 (antithetic pairs).
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Explanation, Margins, Matrix, column_of
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.players import by_segment, players_of, rows_back

DEFAULT_PAIRS: Final = 4
MIN_PAIRS_FOR_ERROR: Final = 4
MAX_BACKGROUND_ROWS: Final = 16
# Rows that one explanation may ask of the model; reached beyond 512 players with 4 pairs and 16 background rows.
MAX_EVALUATIONS: Final = 65_536
_CHUNK_BYTES: Final = 1 << 20
# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the next smaller entry, which only widens the bar.
_T_95: Final = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 15: 2.131, 20: 2.086, 31: 2.040, 63: 1.998}


class SampledExplainer:
    """Shapley values against background rows, from antithetic pairs of permutations, all coalitions of a row in batches.

    The row's content seeds the permutations, so that the same row gets the same answer. The contributions add up to the margin exactly but
    for float32 rounding; what is uncertain is their division, which `error` tells. Evaluations: 2 x pairs x (players - 1) x background;
    a budget cuts pairs first (without at least 4 there is no error bar), then background rows, which changes the base.

    Args:
        background: [B, F] or, for windows, [B, T, F] float, B at most 16.
        names: Of the F inputs.
        pairs: Pairs of a permutation and its reverse.
        players: [F] player of each input, 0 .. P - 1: inputs of one player (a patch of an image) enter a coalition together and share its
            contribution evenly; an input of a window is one player with all its T values. [T, F] player of each value of a window in time
            segments, see `edgefleet.players`. None: each input is its own.
        budget: Most evaluations.

    Raises:
        ArtifactError: Arrays that fit neither the model nor each other.
    """

    def __init__(
        self,
        background: NDArray[Any] | None,
        names: tuple[str, ...],
        pairs: int = DEFAULT_PAIRS,
        players: NDArray[Any] | None = None,
        budget: int = MAX_EVALUATIONS,
    ) -> None:
        if background is None or background.ndim not in (2, 3) or background.dtype.kind != "f" or background.shape[-1] != len(names):
            raise ArtifactError(f"explainer: its background rows do not fit {len(names)} inputs; convert again")
        if not 1 <= len(background) <= MAX_BACKGROUND_ROWS:
            raise ArtifactError(f"explainer: {len(background)} background rows, expected 1 to {MAX_BACKGROUND_ROWS}; convert again")
        self._names, self._players = names, players_of(players, len(names))
        if self._players.ndim == 2 and background.shape[1:] != self._players.shape:
            raise ArtifactError(
                f"explainer: its players are of windows {list(self._players.shape)}, its background rows {list(background.shape[1:])}; "
                "convert again"
            )
        self.segment_rows_back = rows_back(self._players[:, 0] // len(names)) if self._players.ndim == 2 else ()
        self._sizes = np.bincount(self._players.ravel())
        walk = 2 * max(1, len(self._sizes) - 1)
        if walk > budget:
            raise ArtifactError(f"explainer: {len(self._sizes)} players need {walk} evaluations, the budget is {budget}; group the inputs")
        rows = max(1, min(len(background), budget // walk))
        self._pairs = max(1, min(pairs, budget // (walk * rows)))
        self._background = background[:rows].astype(np.float32)

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row."""
        count = len(self._sizes)
        orders = _antithetic_orders(row, count, self._pairs)
        values = self._values(row, _coalitions(orders), index, margins)
        base, everything = values[0], values[1]
        inner = values[2:].reshape(len(orders), count - 1)
        ends = np.ones((len(orders), 1))
        along = np.concatenate([ends * base, inner, ends * everything], axis=1)
        steps = np.zeros((len(orders), count))
        np.put_along_axis(steps, orders, np.diff(along, axis=1), axis=1)
        pairs = (steps[0::2] + steps[1::2]) / 2
        segments = None
        if self.segment_rows_back:
            parts = by_segment(pairs, len(self._names))
            segments, shown = parts.mean(axis=0), parts.sum(axis=1)
            contributions: NDArray[np.float64] = segments.sum(axis=0)
        else:
            shown = (pairs / self._sizes)[:, self._players]
            contributions = shown.mean(axis=0)
        error = None
        if self._pairs >= MIN_PAIRS_FOR_ERROR:
            error = _t_quantile(self._pairs - 1) * shown.std(axis=0, ddof=1) / np.sqrt(self._pairs)
        gap = margin - float(base) - float(contributions.sum())
        return Explanation(float(base), contributions, self._names, "sampled", error, gap, segments, self.segment_rows_back)

    def _values(self, row: Matrix, masks: NDArray[np.bool_], index: int | None, margins: Margins) -> NDArray[np.float64]:
        """Mean margin of the predicted class per coalition: the row's values inside, each background row's outside."""
        count = len(self._background)
        per_chunk = max(1, _CHUNK_BYTES // (4 * row.size * count))
        masks = masks[:, self._players]
        # A window's rows all follow the one mask of its inputs, unless it is cut into segments.
        masks = masks.reshape(len(masks), 1, *(1,) * (row.ndim - self._players.ndim), *self._players.shape)
        values = np.empty(len(masks))
        for start in range(0, len(masks), per_chunk):
            mask = masks[start : start + per_chunk]
            mixed = np.where(mask, row, self._background)
            answers = margins(mixed.reshape(-1, *row.shape)).astype(np.float64)
            column, sign = column_of(index, answers.shape[1])
            values[start : start + len(mask)] = sign * answers[:, column].reshape(len(mask), count).mean(axis=1)
        return values


def _antithetic_orders(row: Matrix, players: int, pairs: int) -> NDArray[np.intp]:
    """[2 x pairs, P] permutations, each followed by its reverse."""
    seed = int.from_bytes(bytes.fromhex(sha256_hex(row.tobytes())[:16]), "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    orders = [rng.permutation(players) for _ in range(pairs)]
    return np.array([order for pair in orders for order in (pair, pair[::-1])], np.intp)


def _coalitions(orders: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Masks [2 + orders x (P - 1), P]: nobody, everybody, then the growing coalitions of each order."""
    players = orders.shape[1]
    rank = np.argsort(orders, axis=1)
    growing = rank[:, None, :] < np.arange(1, players)[None, :, None]
    return np.concatenate([np.zeros((1, players), bool), np.ones((1, players), bool), growing.reshape(-1, players)])


def _t_quantile(degrees: int) -> float:
    return _T_95[max(d for d in _T_95 if d <= degrees)]
