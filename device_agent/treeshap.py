"""Exact path-dependent TreeSHAP as array maths over compiled leaves; needs numpy only, and no background rows.

Thresholds in the arrays are rounded down to float32, which decides every float32 input as the trees do.
Memory: about 21 bytes per slot (one input on one leaf's path) and at most 0.7 MB of scratch, whatever the model's size.

Reference:
    Yu, Bifet, Read, Xu (2022), Linear TreeShap, NeurIPS: the polynomial whose integral is taken here by Gauss-Legendre nodes.
"""

import threading
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.explanation import Cleaning, Explanation, Margins, Matrix, array_of, column_of
from edgefleet.errors import ArtifactError

MAX_DEPTH: Final = 64
# Slots worked on at once: four float32 arrays of so many stay in a second-level cache, and calls still amortise.
_BLOCK_SLOTS: Final = 32_768
_LEAST: Final = np.finfo(np.float32).min


class TreeExplainer:
    """Exact path-dependent TreeSHAP.

    Per leaf with D distinct columns on its path, o_j = column j inside the leaf's interval, z_j = share of training rows that go there:
    phi_j += v (o_j - z_j) Int_0^1 prod_{i != j} (z_i (1 - t) + o_i t) dt. The integrand is a polynomial of degree D - 1, so ceil(D / 2)
    Gauss-Legendre nodes are exact. Accuracy about 1e-6 relative (float32 products, float64 sums).
    Only leaves that move the predicted class's margin are looked at.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], names: tuple[str, ...], columns: int) -> None:
        self._names, self._cleaning = names, Cleaning.of(arrays, len(names))
        self.segment_rows_back = self._cleaning.segment_rows_back
        cleaned = len(self._cleaning.sources)
        base, depths = array_of(arrays, "base", 1), array_of(arrays, "depths", 1)
        if int(array_of(arrays, "features", 0)) != cleaned or base.shape != (columns,) or not np.isfinite(base).all():
            raise ArtifactError(
                f"explainer: made for another model than this one of {len(names)} inputs and {columns} margins; convert again"
            )
        if len(set(depths.tolist())) != len(depths) or not all(1 <= d <= min(MAX_DEPTH, cleaned) for d in depths.tolist()):
            raise ArtifactError(
                f"explainer: path lengths {depths.tolist()[:8]} are not distinct numbers from 1 to {min(MAX_DEPTH, cleaned)}"
            )
        self._base = base.astype(np.float64)
        self._categories, sets = _category_sets(arrays)
        leaves = [_Leaves.of(arrays, int(depth), cleaned, columns, sets) for depth in depths]
        self._blocks = [
            [_Block(part, column, self._cleaning.players) for found in leaves for part in found.moving(column)] for column in range(columns)
        ]
        self._scratch = np.empty((3, _BLOCK_SLOTS), np.float32)
        self._lock = threading.Lock()  # around the scratch: a row is explained by one thread at a time

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain one row; `margins` is not needed."""
        column, sign = column_of(index, len(self._base))
        # Minus infinity is inside (-inf, t], which the comparison with a lower end of -inf would deny.
        cleaned = np.maximum(self._cleaning.run(row), _LEAST)
        absent = np.isnan(cleaned)
        missing = absent if absent.any() else None
        codes = None if self._categories is None else _codes(cleaned, self._categories)
        by_player = np.zeros(self._cleaning.player_count)
        with self._lock:
            for block in self._blocks[column]:
                by_player += block.contributions(cleaned, missing, codes, self._scratch, len(by_player))
        contributions, segments = self._cleaning.shown(sign * by_player)
        base = sign * float(self._base[column])
        gap = margin - base - float(contributions.sum())
        exact = np.zeros(len(contributions))
        return Explanation(base, contributions, self._names, "treeshap", exact, gap, segments, self.segment_rows_back)


@dataclass(frozen=True)
class _Leaves:
    """Leaves whose path has (at most) D distinct columns: arrays [leaves, D], and `value` [leaves, K].

    `category` [leaves, D] is a row of `sets` for a categorical column, else -1; None where there are none.
    """

    feat: NDArray[np.intp]
    lo: Matrix
    hi: Matrix
    missing: NDArray[np.bool_]
    z: Matrix
    value: Matrix
    category: NDArray[np.intp] | None
    sets: NDArray[np.bool_] | None

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]], depth: int, features: int, columns: int, sets: NDArray[np.bool_] | None) -> "_Leaves":
        feat, lo, hi, missing, z = (array_of(arrays, f"{name}_{depth}", 2) for name in ("feat", "lo", "hi", "missing", "z"))
        value = array_of(arrays, f"value_{depth}", 2)
        category = array_of(arrays, f"category_{depth}", 2) if f"category_{depth}" in arrays else None
        shape = (len(value), depth)
        shapes = {array.shape for array in (feat, lo, hi, missing, z, category) if array is not None}
        if shapes != {shape} or value.shape[1] != columns:
            raise ArtifactError(f"explainer: the shapes of the leaves of {depth} inputs contradict each other; convert again")
        sound = (feat >= 0).all() and (feat < features).all() and (z > 0).all() and (z <= 1).all() and np.isfinite(value).all()
        if category is not None:
            sound &= category.dtype.kind == "i" and sets is not None and bool((category >= -1).all() and (category < len(sets)).all())
        if feat.dtype.kind not in "iu" or missing.dtype != bool or not sound:
            raise ArtifactError(f"explainer: the leaves of {depth} inputs hold impossible values; convert again")
        numbers = [array.astype(np.float32) for array in (lo, hi, z, value)]
        return cls(
            feat.astype(np.intp), numbers[0], numbers[1], missing, numbers[2], numbers[3],
            None if category is None else category.astype(np.intp), sets,
        )  # fmt: skip

    def moving(self, column: int) -> list["_Leaves"]:
        """The leaves with a value in one column, in blocks."""
        chosen = np.flatnonzero(self.value[:, column])
        if len(chosen) == len(self.value):
            chosen = np.arange(len(self.value))
        at_once = max(1, _BLOCK_SLOTS // self.feat.shape[1])
        return [self._take(chosen[start : start + at_once]) for start in range(0, len(chosen), at_once)]

    def _take(self, rows: NDArray[np.intp]) -> "_Leaves":
        category = None if self.category is None or (self.category[rows] < 0).all() else self.category[rows]
        return _Leaves(
            self.feat[rows], self.lo[rows], self.hi[rows], self.missing[rows], self.z[rows], self.value[rows], category, self.sets
        )


class _Block:
    """Some leaves for one column of the margin, turned to [D, leaves] so that products run along whole rows."""

    def __init__(self, leaves: _Leaves, column: int, players: NDArray[np.intp]) -> None:
        self._feat, self._missing = np.ascontiguousarray(leaves.feat.T), np.ascontiguousarray(leaves.missing.T)
        self._lo, self._hi, self._z = (np.ascontiguousarray(array.T) for array in (leaves.lo, leaves.hi, leaves.z))
        self._players = players[self._feat.ravel()]
        depth, self._count = self._feat.shape
        nodes, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
        self._times = [np.float32(node) for node in (nodes + 1) / 2]
        self._values = [leaves.value[:, column] * np.float32(weight) for weight in weights / 2]
        self._sets, self._where, self._which = leaves.sets, None, None
        if leaves.category is not None:
            category = leaves.category.T.ravel()
            self._where = np.flatnonzero(category >= 0)
            self._which = category[self._where]

    def contributions(
        self, row: Matrix, absent: NDArray[np.bool_] | None, codes: NDArray[np.intp] | None, scratch: Matrix, players: int
    ) -> NDArray[np.float64]:
        """[players] what these leaves give each player."""
        size, shape, z = self._feat.size, self._feat.shape, self._z
        buffers: list[Matrix] = [scratch[i, :size].reshape(shape) for i in range(3)]
        moved, factors, weight = buffers
        # `clip` spares numpy a second buffer; the indices were checked when the file was read.
        row.take(self._feat, out=factors, mode="clip")
        inside = factors > self._lo
        inside &= factors <= self._hi
        if self._where is not None and codes is not None and self._sets is not None:
            inside.ravel()[self._where] = self._sets[self._which, codes[self._feat.ravel()[self._where]]]
        if absent is not None:
            inside = np.where(absent[self._feat], self._missing, inside)
        np.subtract(inside, z, out=moved)
        weight.fill(0.0)
        product = np.empty(self._count, np.float32)
        for time, value in zip(self._times, self._values, strict=True):
            np.multiply(moved, time, out=factors)
            np.add(factors, z, out=factors)  # z (1 - t) + o t > 0: the nodes lie inside (0, 1)
            np.multiply.reduce(factors, axis=0, out=product)
            np.multiply(product, value, out=product)
            np.divide(product, factors, out=factors)
            np.add(weight, factors, out=weight)
        np.multiply(weight, moved, out=weight)
        return np.asarray(np.bincount(self._players, weight.ravel(), players), np.float64)


def _category_sets(arrays: dict[str, NDArray[Any]]) -> tuple[Matrix | None, NDArray[np.bool_] | None]:
    """Values that sets name, rising, and [sets, values + 1] which are inside; the last for every other value but a missing one."""
    if "category_sets" not in arrays:
        return None, None
    values, packed = array_of(arrays, "category_values", 1).astype(np.float32), array_of(arrays, "category_sets", 2)
    if packed.dtype != np.uint8 or not len(values) or packed.shape[1] != len(values) // 8 + 1 or not (values[1:] > values[:-1]).all():
        raise ArtifactError(f"explainer: category sets of shape {list(packed.shape)} do not fit {len(values)} values; convert again")
    return values, np.unpackbits(packed, axis=1, count=len(values) + 1).astype(bool)


def _codes(row: Matrix, categories: Matrix) -> NDArray[np.intp]:
    """[C] place of each value among the categories, their number where it is none of them."""
    place = np.minimum(np.searchsorted(categories, row), len(categories) - 1)
    return np.where(categories[place] == row, place, len(categories))
