"""Exact path-dependent TreeSHAP, compiled to arrays that a device evaluates with numpy (no shap there).

Per leaf and per distinct feature j on its path: the interval (lo, hi] that leads there, whether a missing value comes this way, and z_j,
the product of the cover ratios. With o_j = [row is inside], each leaf adds to phi_j
value * (o_j - z_j) * integral over [0, 1] of prod_{i != j} (z_i (1 - t) + o_i t) dt. The integrand is a polynomial of degree D - 1, so
ceil(D / 2) Gauss-Legendre nodes are exact. Leaves are bucketed by D: no padding.
Price: about 25 bytes per slot (one feature on one leaf's path); refused above `MAX_SLOTS`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Ensemble, Tree
from edgefleet.errors import VerdictError
from edgefleet.package import npz_bytes

MAX_SLOTS: Final = 500_000


@dataclass(frozen=True)
class Step:
    """What a path asks of one feature: inside (low, high], missing allowed, and the share of training rows that did so."""

    low: np.float32
    high: np.float32
    missing: bool
    share: float


_FREE: Final = Step(np.float32(-np.inf), np.float32(np.inf), True, 1.0)


def compile_treeshap(ensemble: Ensemble, max_slots: int = MAX_SLOTS) -> bytes:
    """The explainer file of an ensemble; see `device_agent.explain` for its evaluation.

    Raises:
        VerdictError: More than `max_slots` slots, one per feature on a leaf's path.

    Reference:
        Lundberg et al. (2020), Nature Machine Intelligence 2, 56: path-dependent values; the integral form avoids their recursion.
    """
    base = ensemble.offset.astype(np.float64).copy()
    by_depth: dict[int, list[tuple[NDArray[np.float64], dict[int, Step]]]] = {}
    slots = 0
    for tree in ensemble.trees:
        for value, path in _leaves(tree):
            base += value * np.prod([step.share for step in path.values()])
            if path:
                by_depth.setdefault(len(path), []).append((value, path))
                slots += len(path)
        if slots > max_slots:
            raise VerdictError(
                f"the explanation would need more than {max_slots} slots (features on all paths); use fewer or shallower trees"
            )
    arrays: dict[str, NDArray[Any]] = {
        "method": np.array("treeshap"),
        "base": base,
        "features": np.array(ensemble.features, np.int64),
        "depths": np.array(sorted(by_depth), np.int64),
    }
    for depth in sorted(by_depth):
        arrays |= _bucket(depth, by_depth[depth])
    return npz_bytes(arrays)


def sampled_explainer(background: NDArray[np.float32]) -> bytes:
    """The explainer file of any other model: at most 16 background rows against which the device samples."""
    return npz_bytes({"method": np.array("sampled"), "background": np.ascontiguousarray(background[:16], np.float32)})


def _bucket(depth: int, leaves: list[tuple[NDArray[np.float64], dict[int, Step]]]) -> dict[str, NDArray[Any]]:
    paths = [[(feature, path[feature]) for feature in sorted(path)] for _, path in leaves]
    return {
        f"feat_{depth}": np.array([[feature for feature, _ in path] for path in paths], np.int32),
        f"lo_{depth}": np.array([[step.low for _, step in path] for path in paths], np.float32),
        f"hi_{depth}": np.array([[step.high for _, step in path] for path in paths], np.float32),
        f"missing_{depth}": np.array([[step.missing for _, step in path] for path in paths], np.bool_),
        f"z_{depth}": np.array([[step.share for _, step in path] for path in paths], np.float32),
        f"value_{depth}": np.array([value for value, _ in leaves], np.float32),
    }


def _leaves(tree: Tree) -> Iterator[tuple[NDArray[np.float64], dict[int, Step]]]:
    stack: list[tuple[int, dict[int, Step]]] = [(0, {})]
    while stack:
        node, path = stack.pop()
        if tree.left[node] < 0:
            yield tree.value[node], path
            continue
        feature, cut = int(tree.feature[node]), tree.threshold[node]
        step, missing_left = path.get(feature, _FREE), bool(tree.missing_left[node])
        for child, goes_left in ((int(tree.left[node]), True), (int(tree.right[node]), False)):
            if tree.cover[child] <= 0:
                continue  # no training row came here: weight 0 in the game
            low, high = (step.low, min(step.high, cut)) if goes_left else (max(step.low, cut), step.high)
            share = step.share * float(tree.cover[child] / tree.cover[node])
            stack.append((child, {**path, feature: Step(low, high, step.missing and missing_left == goes_left, share)}))
