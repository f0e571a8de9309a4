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
    """Equal rows by a 64-bit hash of their values; a false match among 10 million rows has a chance of 1 in 300,000."""
    key = row_keys(rows.x.reshape(len(rows), -1))
    by_split = {name: key[rows.split == name] for name in ("train", "validation", "test")}
    within = {name: len(keys) - len(np.unique(keys)) for name, keys in by_split.items() if len(keys)}
    couples = (("train", "validation"), ("train", "test"), ("validation", "test"))
    across = {(a, b): int(np.isin(by_split[b], by_split[a]).sum()) for a, b in couples if len(by_split[a]) and len(by_split[b])}
    return Copies(within, across, _contradicting(key, rows) if rows.classes else 0)


def row_keys(x: NDArray[np.float32]) -> NDArray[np.uint64]:
    """[n] hash of each row's values, the same in every process."""
    factors = np.asarray(np.random.default_rng(0).integers(1, 2**63, size=(x.shape[1],), dtype=np.uint64))
    # Odd factors lose no bit.
    factors = factors | np.uint64(1)
    key = np.zeros(len(x), np.uint64)
    for column, factor in enumerate(factors):
        values = np.where(np.isnan(x[:, column]), np.float32(np.nan), x[:, column] + np.float32(0))
        key += values.view(np.uint32).astype(np.uint64) * factor
        # The mixing keeps sums of small whole numbers apart.
        key ^= key >> np.uint64(29)
    return key


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
