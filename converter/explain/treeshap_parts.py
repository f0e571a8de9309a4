"""Compiled leaves in the pieces that a graph works on: blocks of one path length, leaves that move one column of the margin apart."""

import numpy as np
from numpy.typing import NDArray

from converter.explain.treeshap import Bucket, Compiled

# Leaves, and the column of the margin that each moves; None: several.
Part = tuple[Bucket, NDArray[np.intp] | None]


def is_mirrored(compiled: Compiled) -> bool:
    """Whether there are two columns of which each is the other's negative: two classes of a forest. The second then says all."""
    values = np.concatenate([bucket.value for bucket in compiled.buckets]) if compiled.buckets else np.zeros((0, len(compiled.base)))
    near = 1e-6 * np.abs(values).max(initial=0.0)
    return values.shape[1] == 2 and bool((np.abs(values.sum(axis=1)) <= near).all())


def parts_of(compiled: Compiled, mirrored: bool, block_slots: int) -> list[Part]:
    """Blocks of leaves.

    Args:
        compiled: From `compile_leaves`.
        mirrored: Leave out the first of two columns.
        block_slots: Most slots of a block; a block has at least one leaf.
    """
    parts: list[Part] = []
    for bucket in compiled.buckets:
        values = bucket.value[:, 1:] if mirrored else bucket.value
        moves = values != 0
        alone = moves.sum(axis=1) == 1
        at_once = max(1, block_slots // bucket.width)
        for chosen in (np.flatnonzero(alone), np.flatnonzero(~alone)):
            for start in range(0, len(chosen), at_once):
                rows = chosen[start : start + at_once]
                column = moves[rows].argmax(axis=1) if alone[rows[0]] else None
                part = Bucket(
                    bucket.width, bucket.feat[rows], bucket.low[rows], bucket.high[rows], bucket.missing[rows], bucket.share[rows],
                    values[rows], bucket.category[rows],
                )  # fmt: skip
                parts.append((part, column))
    return parts
