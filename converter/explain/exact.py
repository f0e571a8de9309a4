"""Exact explanations in float64, row by row: what graphs and C programs that explain are held against.

The same values as `device_agent.linear` and `device_agent.treeshap` compute, without their float32, their blocks and their speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Layers, Trees
from converter.explain.behind import cleaned, raw_inputs
from converter.explain.leaves import Leaf, category_values, leaves_of
from converter.explain.linear import closed_form, is_linear
from converter.explain.treeshap import MAX_SLOTS
from edgefleet.errors import VerdictError
from edgefleet.manifest import ExplainMethod
from edgefleet.steps import Steps

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Exact:
    """A model that is explained exactly.

    Attributes:
        method: `linear` or `treeshap`.
        base: [K] expected margin.
        sources: [C] raw input that each cleaned value derives from.
        inputs: Raw inputs F.
        steps: Cleaning in front, the first first.
        core: The model.
        mean: [C] of the cleaned training rows, for linear models; else None.
    """

    method: ExplainMethod
    base: Floats
    sources: NDArray[np.intp]
    inputs: int
    steps: tuple[Steps, ...]
    core: Core
    mean: Floats | None = None

    def contributions(self, rows: Matrix) -> Floats:
        """[n, F, K] of raw rows [n, ...]."""
        z = cleaned(self.steps, rows)
        if isinstance(self.core.head, Layers) and self.mean is not None:
            moved = (z.astype(np.float64) - self.mean)[:, :, None] * self.core.head.layers[0].weight
        else:
            assert isinstance(self.core.head, Trees)  # noqa: S101  # `exact_of` makes no other
            moved = _of_trees(self.core.head, z)
        found = np.zeros((len(rows), self.inputs, len(self.base)))
        for column, source in enumerate(self.sources):
            found[:, source] += moved[:, column]
        return found


def exact_of(core: Core, rows: Matrix, inputs: int, *steps: Steps) -> Exact:
    """The exact explanation of a model.

    Args:
        core: The model.
        rows: [n, ...] raw training rows; only linear models look at them.
        inputs: Raw inputs F.
        steps: Cleaning in front, the first first, a pipeline's own included.

    Raises:
        VerdictError: Neither linear nor a sum of trees, or more slots than `MAX_SLOTS`.
    """
    sources = raw_inputs(steps, core.features)
    if is_linear(core):
        mean, base = closed_form(core, rows, *steps)
        return Exact("linear", base, sources, inputs, steps, core, mean)
    if not isinstance(core.head, Trees):
        raise VerdictError("networks, support vectors and distances have no exact explanation")
    if core.head.average_depth is not None:
        raise VerdictError("the score of an isolation forest is no sum of its trees, which TreeSHAP needs")
    base, _ = leaves_of(core.head.ensemble, MAX_SLOTS)
    return Exact("treeshap", base, sources, inputs, steps, core)


def _of_trees(head: Trees, z: Matrix) -> Floats:
    """[n, C, K] of cleaned rows [n, C]."""
    base, leaves = leaves_of(head.ensemble, MAX_SLOTS)
    categories = category_values(head.ensemble)
    found = np.zeros((len(z), head.ensemble.features, len(base)))
    groups: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(len(leaf.path), []).append(leaf)
    for depth, group in groups.items():
        _add(found, z, depth, group, categories)
    return found


def _add(found: Floats, z: Matrix, depth: int, leaves: Sequence[Leaf], categories: Matrix) -> None:
    paths = [sorted(leaf.path.items()) for leaf in leaves]
    feat = np.array([[column for column, _ in path] for path in paths])
    low, high = (np.array([[getattr(step, end) for _, step in path] for path in paths], np.float32) for end in ("low", "high"))
    missing = np.array([[step.missing for _, step in path] for path in paths])
    share = np.array([[step.share for _, step in path] for path in paths])
    everything = np.ones(len(categories) + 1, bool)
    allowed = np.array([[everything if step.allowed is None else step.allowed for _, step in path] for path in paths])
    value = np.array([leaf.value for leaf in leaves])
    times, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
    lines, places = np.arange(len(leaves))[:, None], np.arange(depth)[None, :]
    for row, mine in zip(z, found, strict=True):
        x = np.maximum(row[feat], np.finfo(np.float32).min)  # minus infinity is inside (-inf, t]
        code = np.searchsorted(categories, x) if len(categories) else np.zeros(x.shape, int)
        known = np.append(categories, np.float32(np.nan))[code] == x
        inside = (x > low) & (x <= high) & allowed[lines, places, np.where(known, code, len(categories))]
        inside = np.where(np.isnan(x), missing, inside)
        weight = np.zeros(feat.shape)
        for time, part in zip((times + 1) / 2, weights / 2, strict=True):
            factors = share * (1 - time) + inside * time
            weight += part * factors.prod(axis=1, keepdims=True) / factors
        moved = (inside - share) * weight
        np.add.at(mine, feat, moved[:, :, None] * value[:, None, :])
