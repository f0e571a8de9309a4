"""Exact path-dependent TreeSHAP as array maths over compiled leaves; needs numpy only, and no background rows.

Thresholds in the arrays are rounded down to float32, which decides every float32 input as the trees do.

Reference:
    Yu, Bifet, Read, Xu (2022), Linear TreeShap, NeurIPS: the polynomial whose integral is taken here by Gauss-Legendre nodes.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Explanation, Margins, Matrix
from edgefleet.errors import ArtifactError

MAX_DEPTH: Final = 64


class TreeExplainer:
    """Exact path-dependent TreeSHAP.

    Per leaf with D distinct inputs on its path, o_j = input j inside the leaf's interval, z_j = share of training rows that goes this way:
    phi_j += v (o_j - z_j) Int_0^1 prod_{i != j} (z_i (1 - t) + o_i t) dt. The integrand is a polynomial of degree D - 1, so ceil(D / 2)
    Gauss-Legendre nodes are exact. Accuracy about 1e-6 relative (float32 products, float64 sums).
    Memory: 4 x ceil(D / 2) bytes per leaf and input on its path, besides the arrays themselves.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], columns: int) -> None:
        self._names = names
        base, depths = _array(arrays, "base", 1), _array(arrays, "depths", 1)
        if int(_array(arrays, "features", 0)) != len(names) or base.shape != (columns,) or not np.isfinite(base).all():
            raise ArtifactError(
                f"explainer: made for another model than this one of {len(names)} inputs and {columns} margins; convert again"
            )
        if len(set(depths.tolist())) != len(depths) or not all(1 <= d <= min(MAX_DEPTH, len(names)) for d in depths.tolist()):
            raise ArtifactError(
                f"explainer: path lengths {depths.tolist()[:8]} are not distinct numbers from 1 to {min(MAX_DEPTH, len(names))}"
            )
        self._base = base.astype(np.float64)
        self._buckets = [_Bucket(arrays, int(depth), len(names), columns) for depth in depths]

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        column = 0 if len(self._base) == 1 else (index or 0)
        sign = -1.0 if len(self._base) == 1 and index == 0 else 1.0
        absent = np.isnan(row)
        contributions = np.zeros(len(self._names))
        for bucket in self._buckets:
            contributions += bucket.contributions(row, absent, column)
        contributions *= sign
        base = sign * float(self._base[column])
        gap = margin - base - float(contributions.sum())
        return Explanation(base, contributions, self._names, "treeshap", np.zeros(len(contributions)), gap)


class _Bucket:
    """All leaves whose path has D distinct inputs."""

    def __init__(self, arrays: dict[str, NDArray[Any]], depth: int, features: int, columns: int) -> None:
        feat, lo, hi, missing, z = (_array(arrays, f"{name}_{depth}", 2) for name in ("feat", "lo", "hi", "missing", "z"))
        value = _array(arrays, f"value_{depth}", 2)
        shape = (len(value), depth)
        if {feat.shape, lo.shape, hi.shape, missing.shape, z.shape} != {shape} or value.shape[1] != columns:
            raise ArtifactError(f"explainer: the shapes of the leaves of {depth} inputs contradict each other; convert again")
        sound = (feat >= 0).all() and (feat < features).all() and (z > 0).all() and (z <= 1).all() and np.isfinite(value).all()
        if feat.dtype.kind not in "iu" or missing.dtype != bool or not sound:
            raise ArtifactError(f"explainer: the leaves of {depth} inputs hold impossible values; convert again")
        self._features, self._depth = features, depth
        self._feat, self._flat, self._missing = feat.astype(np.intp), feat.astype(np.intp).ravel(), missing
        self._lo, self._hi, self._z, self._value = (
            lo.astype(np.float32),
            hi.astype(np.float32),
            z.astype(np.float32),
            value.astype(np.float32),
        )
        nodes, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
        self._t = ((nodes + 1) / 2).astype(np.float32)[:, None, None]
        self._weights = (weights / 2).astype(np.float32)[:, None, None]
        self._absent_part = self._z[None] * (1 - self._t)

    def contributions(self, row: Matrix, absent: NDArray[np.bool_], column: int) -> NDArray[np.float64]:
        picked = row[self._feat]
        inside = (picked > self._lo) & (picked <= self._hi)
        if absent.any():
            inside = np.where(absent[self._feat], self._missing, inside)
        present = inside.astype(np.float32)
        factors = self._absent_part + present * self._t  # [nodes, leaves, D], all > 0: nodes lie inside (0, 1)
        product = factors[:, :, 0].copy()
        for d in range(1, self._depth):
            product *= factors[:, :, d]
        weight = (self._weights * (product[:, :, None] / factors)).sum(axis=0)
        moved = (present - self._z) * weight * self._value[:, column : column + 1]
        return np.asarray(np.bincount(self._flat, moved.ravel(), self._features), np.float64)


def _array(arrays: dict[str, NDArray[Any]], name: str, dimensions: int) -> NDArray[Any]:
    found = arrays.get(name)
    if found is None or found.ndim != dimensions or found.dtype.kind not in "fiub":
        raise ArtifactError(f"explainer: array {name!r} is missing or of another form; convert the package again")
    return found
