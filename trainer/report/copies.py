"""Rows that are there more than once, within a split and across splits, and which values are missing together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import DataSet


@dataclass(frozen=True)
class Copies:
    """Counts of equal rows; equal means every input's float32 bits (all missing values are alike, 0 equals -0).

    Attributes:
        within: Rows of each split that repeat an earlier row of it.
        across: {(split, other): rows of `other` whose inputs also stand in `split`}.
        contradicting: Rows whose inputs stand there with another label too.
    """

    within: dict[str, int]
    across: dict[tuple[str, str], int]
    contradicting: int


def count_copies(rows: DataSet) -> Copies:
    """Equal rows by the 64-bit hash of their values that gate G3 uses."""
    from trainer.gates.leakage import row_hashes  # what G3 calls equal

    key = row_hashes(rows.x)
    by_split = {name: key[rows.split == name] for name in ("train", "validation", "test")}
    within = {name: len(keys) - len(np.unique(keys)) for name, keys in by_split.items() if len(keys)}
    couples = (("train", "validation"), ("train", "test"), ("validation", "test"))
    across = {(a, b): int(np.isin(by_split[b], by_split[a]).sum()) for a, b in couples if len(by_split[a]) and len(by_split[b])}
    return Copies(within, across, _contradicting(key, rows) if rows.classes else 0)


def _contradicting(key: NDArray[np.uint64], rows: DataSet) -> int:
    _, group = np.unique(key, return_inverse=True)
    low, high = np.full(group.max() + 1, np.iinfo(np.int64).max), np.full(group.max() + 1, -1)
    np.minimum.at(low, group, rows.label)
    np.maximum.at(high, group, rows.label)
    return int((low != high)[group].sum())


def missing_together(x: NDArray[np.float32], names: Sequence[str], most: int = 8) -> list[tuple[str, int]]:
    """The commonest sets of missing inputs: (names, rows); rows without a missing value come as "nothing"."""
    gone = np.isnan(x)
    packed = np.ascontiguousarray(np.packbits(gone, axis=1))
    _, first, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
    order = [int(k) for k in np.argsort(-counts, kind="stable")[:most]]
    return [(_listed([names[i] for i in np.flatnonzero(gone[first[k]]).tolist()]), int(counts[k])) for k in order]


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
