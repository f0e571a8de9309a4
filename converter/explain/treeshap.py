"""Exact path-dependent TreeSHAP, compiled to arrays that a device evaluates with numpy (no shap there).

Per leaf and per distinct column j on its path: the interval (lo, hi] that leads there, whether a missing value comes this way, and z_j,
the product of the cover ratios. With o_j = [row is inside], each leaf adds to phi_j
value * (o_j - z_j) * integral over [0, 1] of prod_{i != j} (z_i (1 - t) + o_i t) dt. The integrand is a polynomial of degree D - 1, so
ceil(D / 2) Gauss-Legendre nodes are exact.
Price: about 25 bytes per slot (one column on one leaf's path); noted above `NOTED_SLOTS`, refused above `MAX_SLOTS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble
from converter.explain.behind import cleaning_arrays
from converter.explain.leaves import FREE, Leaf, Step, category_values, leaves_of
from edgefleet.package import npz_bytes
from edgefleet.steps import Steps

MAX_SLOTS: Final = 500_000
NOTED_SLOTS: Final = 50_000
# What merging widths weighs, in seconds on the machine of the measurements: calls of numpy against arithmetic on padded slots. Only their
# ratio matters, and it only decides about speed.
_CALL_S: Final = 1.3e-6
_SLOT_S: Final = 4e-9
_SLOT_NODE_S: Final = 1.3e-9


@dataclass(frozen=True)
class Bucket:
    """Leaves whose paths have at most `width` columns; shorter paths are filled with steps that change nothing.

    Attributes:
        feat: [leaves, width] columns.
        low: Lower ends.
        high: Upper ends.
        missing: Whether missing values are inside.
        share: z.
        value: [leaves, K].
        category: [leaves, width] row of the ensemble's category sets, -1 for numeric columns.
    """

    width: int
    feat: NDArray[np.int32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    missing: NDArray[np.bool_]
    share: NDArray[np.float32]
    value: NDArray[np.float32]
    category: NDArray[np.int32]


@dataclass(frozen=True)
class Compiled:
    """An ensemble's explanation as arrays.

    Attributes:
        base: [K] expected margin over the training rows.
        columns: Columns that the trees take.
        buckets: The leaves.
        categories: [categories] values that splits by sets name, rising.
        sets: [sets, categories + 1] which of them are inside, the last for every other value but a missing one.
        slots: Columns on all paths, padding not counted.
    """

    base: NDArray[np.float64]
    columns: int
    buckets: list[Bucket]
    categories: NDArray[np.float32]
    sets: NDArray[np.bool_]
    slots: int


def compile_leaves(ensemble: Ensemble, max_slots: int = MAX_SLOTS) -> Compiled:
    """The arrays of an ensemble.

    Raises:
        VerdictError: More than `max_slots` slots.

    Reference:
        Lundberg et al. (2020), Nature Machine Intelligence 2, 56: path-dependent values; the integral form avoids their recursion.
    """
    base, leaves = leaves_of(ensemble, max_slots)
    by_depth: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        by_depth.setdefault(len(leaf.path), []).append(leaf)
    sets: dict[bytes, int] = {}
    buckets = [
        _bucket(group[-1], [leaf for depth in group for leaf in by_depth[depth]], sets, len(base))
        for group in merged_widths({depth: len(found) for depth, found in by_depth.items()})
    ]
    categories = category_values(ensemble)
    table = np.frombuffer(b"".join(sets), np.bool_).reshape(len(sets), len(categories) + 1)
    return Compiled(base, ensemble.features, buckets, categories, table, sum(len(leaf.path) for leaf in leaves))


def compile_treeshap(ensemble: Ensemble, max_slots: int = MAX_SLOTS, *steps: Steps) -> bytes:
    """The explainer file of an ensemble, see `device_agent.treeshap` for its evaluation.

    Args:
        ensemble: The trees.
        max_slots: Most slots.
        steps: Cleaning in front of the trees, the first first; none for none.

    Raises:
        VerdictError: More than `max_slots` slots, or the steps do not fit.
    """
    return treeshap_bytes(compile_leaves(ensemble, max_slots), *steps)


def treeshap_bytes(compiled: Compiled, *steps: Steps) -> bytes:
    """The explainer file of compiled leaves."""
    arrays: dict[str, NDArray[Any]] = {
        "method": np.array("treeshap"),
        "base": compiled.base,
        "features": np.array(compiled.columns, np.int64),
        "depths": np.array([bucket.width for bucket in compiled.buckets], np.int64),
        **cleaning_arrays(steps, compiled.columns),
    }
    if len(compiled.sets):
        arrays |= {"category_values": compiled.categories, "category_sets": np.packbits(compiled.sets, axis=1)}
    for bucket in compiled.buckets:
        named = {
            "feat": bucket.feat, "lo": bucket.low, "hi": bucket.high, "missing": bucket.missing, "z": bucket.share, "value": bucket.value,
        }  # fmt: skip
        if (bucket.category >= 0).any():
            named["category"] = bucket.category
        arrays |= {f"{name}_{bucket.width}": array for name, array in named.items()}
    return npz_bytes(arrays)


def merged_widths(leaves: dict[int, int]) -> list[list[int]]:
    """Path lengths grouped so that evaluating them is cheapest: a group is padded to its longest, and costs one round of calls.

    >>> merged_widths({1: 10, 2: 10, 3: 700})
    [[1, 2, 3]]
    >>> merged_widths({2: 900_000, 9: 900_000})
    [[2], [9]]
    """
    depths = sorted(leaves)
    best: list[tuple[float, list[list[int]]]] = [(0.0, [])]
    for end in range(1, len(depths) + 1):
        options = []
        for start in range(end):
            group = depths[start:end]
            options.append((best[start][0] + _cost_s(group[-1], sum(leaves[d] for d in group)), [*best[start][1], group]))
        best.append(min(options))
    return best[-1][1]


def _cost_s(width: int, leaves: int) -> float:
    nodes = (width + 1) // 2
    return (8 + 6 * nodes) * _CALL_S + leaves * width * (_SLOT_S + nodes * _SLOT_NODE_S)


def _bucket(width: int, leaves: Sequence[Leaf], sets: dict[bytes, int], outputs: int) -> Bucket:
    # A filling step may name any column: nothing is outside of it, and a share of 1 contributes nothing.
    filled = [[*sorted(leaf.path.items()), *[(0, FREE)] * (width - len(leaf.path))] for leaf in leaves]
    return Bucket(
        width,
        np.array([[column for column, _ in path] for path in filled], np.int32),
        np.array([[step.low for _, step in path] for path in filled], np.float32),
        np.array([[step.high for _, step in path] for path in filled], np.float32),
        np.array([[step.missing for _, step in path] for path in filled], np.bool_),
        np.array([[step.share for _, step in path] for path in filled], np.float32),
        np.array([leaf.value for leaf in leaves], np.float32).reshape(len(leaves), outputs),
        np.array([[_set_number(step, sets) for _, step in path] for path in filled], np.int32),
    )


def _set_number(step: Step, sets: dict[bytes, int]) -> int:
    return -1 if step.allowed is None else sets.setdefault(step.allowed.tobytes(), len(sets))
