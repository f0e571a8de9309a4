"""Shapley values by sampled permutations: for models that have no exact form, through either runtime.

Reference:
    Mitchell, Cooper, Frank, Holmes (2022), Sampling Permutations for Shapley Value Estimation, JMLR 23, section 3 (antithetic pairs).
"""

import hashlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Explanation, Margins, Matrix
from edgefleet.errors import ArtifactError

DEFAULT_PAIRS: Final = 4
MIN_PAIRS_FOR_ERROR: Final = 4
MAX_BACKGROUND_ROWS: Final = 16
_CHUNK_BYTES: Final = 1 << 20
# Student's t, two-sided 95 %, by degrees of freedom; beyond the table the next smaller entry, which only widens the bar.
_T_95: Final = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 15: 2.131, 20: 2.086, 31: 2.040, 63: 1.998}


class SampledExplainer:
    """Shapley values against background rows, from antithetic pairs of permutations, all coalitions of a row in batches.

    The row's content seeds the permutations, so that the same row gets the same answer. The contributions add up to the margin exactly but
    for float32 rounding; what is uncertain is their division, which `error` tells. Evaluations: pairs x 2 x (F - 1) x background rows.
    """

    def __init__(self, background: NDArray[Any] | None, names: tuple[str, ...], pairs: int = DEFAULT_PAIRS) -> None:
        if background is None or background.ndim != 2 or background.dtype.kind != "f" or background.shape[1] != len(names):
            raise ArtifactError(f"explainer: its background rows do not fit {len(names)} inputs; convert again")
        if not 1 <= len(background) <= MAX_BACKGROUND_ROWS:
            raise ArtifactError(f"explainer: {len(background)} background rows, expected 1 to {MAX_BACKGROUND_ROWS}; convert again")
        self._background, self._names, self._pairs = background.astype(np.float32), names, pairs

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row."""
        features = len(self._names)
        orders = _antithetic_orders(row, features, self._pairs)
        masks = _coalitions(orders)
        values = self._values(row, masks, index, margins)
        base, everything = values[0], values[1]
        inner = values[2:].reshape(len(orders), features - 1)
        ends = np.ones((len(orders), 1))
        along = np.concatenate([ends * base, inner, ends * everything], axis=1)
        steps = np.zeros((len(orders), features))
        np.put_along_axis(steps, orders, np.diff(along, axis=1), axis=1)
        pairs = (steps[0::2] + steps[1::2]) / 2
        contributions = pairs.mean(axis=0)
        error = None
        if self._pairs >= MIN_PAIRS_FOR_ERROR:
            error = _t_quantile(self._pairs - 1) * pairs.std(axis=0, ddof=1) / np.sqrt(self._pairs)
        gap = margin - float(base) - float(contributions.sum())
        return Explanation(float(base), contributions, self._names, "sampled", error, gap)

    def _values(self, row: Matrix, masks: NDArray[np.bool_], index: int | None, margins: Margins) -> NDArray[np.float64]:
        """Mean margin of the predicted class per coalition: the row's values inside, each background row's outside."""
        count = len(self._background)
        per_chunk = max(1, _CHUNK_BYTES // (4 * len(row) * count))
        values = np.empty(len(masks))
        for start in range(0, len(masks), per_chunk):
            mask = masks[start : start + per_chunk]
            mixed = np.where(mask[:, None, :], row, self._background)
            answers = margins(mixed.reshape(-1, len(row))).astype(np.float64)
            values[start : start + len(mask)] = _of_class(answers, index).reshape(len(mask), count).mean(axis=1)
        return values


def _of_class(margins: NDArray[np.float64], index: int | None) -> NDArray[np.float64]:
    """Margins of one class; with one column for two classes, the first class has the negative of it."""
    if margins.shape[1] == 1:
        return -margins[:, 0] if index == 0 else margins[:, 0]
    return margins[:, index or 0]


def _antithetic_orders(row: Matrix, features: int, pairs: int) -> NDArray[np.intp]:
    """[2 x pairs, F] permutations, each followed by its reverse."""
    seed = int.from_bytes(hashlib.sha256(row.tobytes()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    orders = [rng.permutation(features) for _ in range(pairs)]
    return np.array([order for pair in orders for order in (pair, pair[::-1])], np.intp)


def _coalitions(orders: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Masks [2 + orders x (F - 1), F]: nobody, everybody, then the growing coalitions of each order."""
    features = orders.shape[1]
    rank = np.argsort(orders, axis=1)
    growing = rank[:, None, :] < np.arange(1, features)[None, :, None]
    return np.concatenate([np.zeros((1, features), bool), np.ones((1, features), bool), growing.reshape(-1, features)])


def _t_quantile(degrees: int) -> float:
    return _T_95[max(d for d in _T_95 if d <= degrees)]
