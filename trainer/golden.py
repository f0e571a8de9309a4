"""Golden rows: few rows that a device answers before it trusts a model, the hard ones among them.

A device that rounds, pads or orders wrongly shows it first where two answers are nearly equal, where a value is missing, and at the ends
of each input's range; so such rows are taken first, then every class and slice in proportion.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.dataset import DataSet

GOLDEN_ROWS: Final = 32
KINDS: Final = ("tie", "threshold", "missing", "extreme", "class", "slice", "ordinary")


def choose_golden(
    rows: DataSet, x: NDArray[np.float32], answers: Answers, inputs: list[Input], count: int = GOLDEN_ROWS, seed: int = 0
) -> tuple[NDArray[np.int64], list[str]]:
    """Choose golden rows.

    Ties, threshold and missing values get at most an eighth of the places each; inputs at their ends, and the first rows of each class and
    of each slice, a quarter each. What is left, and what a kind cannot fill, goes to ordinary rows.

    Args:
        rows: The rows to choose from.
        x: [n, F] or [n, T, F] float32, their raw inputs.
        answers: The model's answers to them.
        inputs: The F inputs.
        count: How many rows; all when there are fewer.
        seed: Order of the ordinary rows.

    Returns:
        Indices into `rows` in ascending order, and the kind of each, one of KINDS.
    """
    kinds: dict[int, str] = {}
    share = max(count // 8, 1)

    def take(kind: str, candidates: NDArray[Any], most: int) -> None:
        for index in candidates.tolist():
            if most == 0 or len(kinds) >= count:
                return
            if index not in kinds:
                kinds[index] = kind
                most -= 1

    take("tie", _ties(answers), share)
    take("threshold", _near_threshold(answers), share)
    missing = np.isnan(x).reshape(len(x), -1).sum(axis=1)
    by_missing = np.argsort(-missing, kind="stable")
    take("missing", by_missing[missing[by_missing] > 0], share)
    order = np.random.default_rng(seed).permutation(len(rows))
    take("extreme", _extremes(x, inputs, order), count // 4)
    for kind, strata in (("class", rows.label if rows.classes else None), ("slice", rows.slice)):
        if strata is not None:
            first = np.unique(strata[order], return_index=True)[1]
            take(kind, order[first], count // 4)
    take("ordinary", stratified(rows, order), count)
    index = np.array(sorted(kinds), np.int64)
    return index, [kinds[i] for i in index.tolist()]


def pick(rows: DataSet, among: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Up to `count` of the rows `among`, each class and slice in proportion, in random order that depends on the seed only."""
    return stratified(rows, np.random.default_rng(seed).permutation(among))[:count]


def stratified(rows: DataSet, order: NDArray[np.int64]) -> NDArray[np.int64]:
    """`order` rearranged so that every prefix holds each class and slice in proportion; of a regression each slice."""
    label = rows.label[order].astype(str) if rows.classes else np.full(len(order), "")
    strata = np.unique(np.char.add(np.char.add(label, "/"), rows.slice[order]), return_inverse=True)[1]
    # The k-th of m rows of a stratum belongs at (k + 1/2) / m of the whole.
    by_stratum = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.empty(len(order))
    place[by_stratum] = (rank + 0.5) / np.repeat(sizes, sizes)
    return order[np.argsort(place, kind="stable")]


def _ties(answers: Answers) -> NDArray[np.int64]:
    """Rows by how near their best two classes are; none for a value."""
    if answers.probabilities is None or answers.probabilities.shape[1] < 2:
        return np.zeros(0, np.int64)
    best = np.sort(answers.probabilities, axis=1)
    return np.argsort(best[:, -1] - best[:, -2], kind="stable")


def _near_threshold(answers: Answers) -> NDArray[np.int64]:
    if answers.threshold is None:
        return np.zeros(0, np.int64)
    return np.argsort(np.abs(answers.score - answers.threshold), kind="stable")


def _extremes(x: NDArray[np.float32], inputs: list[Input], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that hold the least or largest value of an input, inputs in an order drawn by the seed; a row of many ends comes first."""
    newest = x if x.ndim == 2 else x[:, -1, :]
    ends: dict[int, int] = {}
    for column, values in zip(inputs, newest.T, strict=True):
        finite = np.flatnonzero(np.isfinite(values))
        if column.kind != "number" or not len(finite) or values[finite].min() == values[finite].max():
            continue
        for end in (finite[values[finite].argmin()], finite[values[finite].argmax()]):
            ends[int(end)] = ends.get(int(end), 0) + 1
    place = np.argsort(order)  # where the seed put each row: breaks ties among rows of as many ends
    return np.array(sorted(ends, key=lambda row: (-ends[row], int(place[row]))), np.int64)
