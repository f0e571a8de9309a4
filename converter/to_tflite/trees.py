"""Trees as TensorFlow operators: all trees of a row step down one level at a time, by looking their nodes up in flat tables.

A node's children stand beside each other, so a step is left[node] + (x > threshold[node]); a leaf points at itself behind a threshold
that nothing is above, and stays. The file grows with the number of nodes (12 bytes and the leaf's values each), not with 4^depth as a
product of path matrices does, and comparisons and look-ups are exact: a row reaches the leaf that it reaches in the original.

Reference: Nakandala et al. (2020), section on tree traversal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cores import Trees
from converter.ensembles import Ensemble, Tree
from converter.to_tflite.sets import Sets, sets_of
from edgefleet.errors import VerdictError

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_DEPTH: Final = 64


@dataclass(frozen=True)
class Tables:
    """All trees, arrays by node; leaves' values apart.

    Attributes:
        roots: [trees] node of each root.
        left: Left child, or the node itself for a leaf; the right child is the next one.
        feature: Column that is compared.
        threshold: Float32; NaN where every number goes left: for a leaf, and for an infinite threshold, which the converter would write
            as the largest finite number, so that infinity would go right.
        missing_right: Whether a missing value goes right.
        own_set: Number of the node's set of categories; 0: it compares.
        place: [nodes] row of `value` of a leaf.
        value: [leaves, columns] float32.
        group: Trees of one column of the margin stand together, so many of them; 0: every leaf has a value for each column.
        depth: Steps from a root to the deepest leaf.
        sets: The sets of categories.
    """

    roots: NDArray[np.int32]
    left: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    missing_right: NDArray[np.bool_]
    own_set: NDArray[np.int32]
    place: NDArray[np.int32]
    value: NDArray[np.float32]
    group: int
    depth: int
    sets: Sets


def tables_of(ensemble: Ensemble) -> Tables:
    """The tables.

    Raises:
        VerdictError: Trees too deep or too many for the format; the number is said.
    """
    columns = len(ensemble.offset)
    grouped, group = _grouped(ensemble.trees, columns)
    sets, trees, numbers = sets_of(grouped, ensemble.features)
    nodes = sum(len(tree.left) for tree in trees)
    size = nodes * 21 + len(sets.members) + sum(int((tree.left < 0).sum()) for tree in trees) * 4 * (1 if group else columns)
    if size > MAX_BYTES:
        raise VerdictError(f"{len(trees)} trees with {nodes} nodes take {size} bytes, the limit is {MAX_BYTES}: train fewer or smaller")
    parts, roots, at, leaves = [], [], 0, 0
    for i, (tree, number) in enumerate(zip(trees, numbers, strict=True)):
        part = _flat(tree, number, i // group if group else None, at, leaves)
        roots.append(at)
        at, leaves = at + len(part.left), leaves + len(part.value)
        parts.append(part)
    if (depth := max(part.depth for part in parts)) > MAX_DEPTH:
        raise VerdictError(f"a tree is {depth} levels deep, the limit for TFLite is {MAX_DEPTH}: train with max_depth")
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("left", "feature", "threshold", "missing_right", "own_set", "place", "value")
    }
    return Tables(roots=np.array(roots, np.int32), group=group, depth=depth, sets=sets, **joined)


def _grouped(trees: list[Tree], columns: int) -> tuple[list[Tree], int]:
    """The trees ordered by their only column, filled up to equal numbers, and that number; else as they are and 0."""
    used = [np.flatnonzero(np.any(tree.value[tree.left < 0] != 0, axis=0)) for tree in trees]
    if any(len(column) > 1 for column in used):
        return trees, 0
    found: list[list[Tree]] = [[] for _ in range(columns)]
    for tree, column in zip(trees, used, strict=True):
        if len(column):
            found[int(column[0])].append(tree)
    group = max(1, *(len(own) for own in found))
    return [tree for own in found for tree in own + [_nothing(columns)] * (group - len(own))], group


def _nothing(columns: int) -> Tree:
    one = np.zeros(1, np.int64)
    no = np.array([-1])
    return Tree(no, no, one, np.zeros(1, np.float32), np.ones(1, bool), np.ones(1), np.zeros((1, columns)))


@dataclass(frozen=True)
class _Part:
    """The tables of one tree."""

    left: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    missing_right: NDArray[np.bool_]
    own_set: NDArray[np.int32]
    place: NDArray[np.int32]
    value: NDArray[np.float32]
    depth: int


def _flat(tree: Tree, number: NDArray[np.int32], column: int | None, first: int, first_leaf: int) -> _Part:
    """One tree, level by level, numbered from `first`; leaves from `first_leaf`."""
    order, level, depth = [0], [0], 0
    children: dict[int, int] = {}
    while level:
        below: list[int] = []
        for node in level:
            if tree.left[node] >= 0:
                children[node] = first + len(order)
                below += (int(tree.left[node]), int(tree.right[node]))
                order += below[-2:]
        level, depth = below, depth + bool(below)
    old = np.array(order)
    leaf = tree.left[old] < 0
    own = np.arange(first, first + len(old))
    value = tree.value[old[leaf]]
    return _Part(
        left=np.where(leaf, own, [children.get(node, 0) for node in order]).astype(np.int32),
        feature=np.where(leaf, 0, tree.feature[old]).astype(np.int32),
        threshold=np.where(leaf | np.isposinf(tree.threshold[old]), np.float32(np.nan), tree.threshold[old]).astype(np.float32),
        missing_right=~leaf & ~tree.missing_left[old],
        own_set=number[old].astype(np.int32),
        place=np.where(leaf, first_leaf + np.cumsum(leaf) - 1, 0).astype(np.int32),
        value=(value if column is None else value[:, column : column + 1]).astype(np.float32),
        depth=depth,
    )


def trees_in_tensorflow(head: Trees, missing: bool) -> tuple[Callable[[Any], Any], list[bytes]]:
    """The margin as a function of cleaned rows, and the constants that half precision may halve.

    Args:
        head: The trees.
        missing: Whether a row may hold missing values; they then go where the original sends them.
    """
    tables = tables_of(head.ensemble)

    def margin(x: Any) -> Any:
        import tensorflow as tf

        reached = tf.gather(tables.value, tf.gather(tables.place, _leaves(tables, missing, x)))
        if tables.group:
            each = tf.reshape(reached, (-1, len(head.ensemble.offset), tables.group))
            total = tf.reduce_sum(each, axis=2)
        else:
            total = tf.reduce_sum(reached, axis=1)
        total = total + head.ensemble.offset.astype(np.float32)
        return total if head.average_depth is None else tf.exp(total * np.float32(-np.log(2) / head.average_depth))

    return margin, [tables.value.tobytes()]


def _leaves(tables: Tables, missing: bool, x: Any) -> Any:
    """[n, trees] node that each row ends in."""
    import tensorflow as tf

    missing = missing and bool(tables.missing_right.any())
    node: Any = tables.roots
    if tables.depth == 0:
        return tf.cast(tf.not_equal(x[:, :1], x[:, :1]), tf.int32) * 0 + tables.roots
    x = tables.sets.with_codes(x)
    for level in range(tables.depth):
        if level == 0:  # every row stands at the roots: these look-ups are constants
            value = tf.gather(x, tables.feature[node], axis=1)
        else:
            value = tf.gather(x, tf.gather(tables.feature, node), axis=1, batch_dims=1)

        def at(table: NDArray[Any], node: Any = node, level: int = level) -> Any:
            return table[node] if level == 0 else tf.gather(table, node)

        right = tf.greater(value, at(tables.threshold))  # false for a missing value and behind a threshold of NaN: left
        if missing:
            right = tf.logical_or(right, tf.logical_and(tf.not_equal(value, value), at(tables.missing_right)))
        if tables.sets.columns:
            right = _by_set(tables.sets, at(tables.own_set), value, right)
        node = at(tables.left) + tf.cast(right, tf.int32)
    return node


def _by_set(sets: Sets, own: Any, value: Any, right: Any) -> Any:
    """Nodes with a set go by it, the others as they were."""
    import tensorflow as tf

    has = tf.logical_and(tf.greater(own, 0), tf.equal(value, value))
    code = tf.cast(tf.where(has, value, tf.zeros_like(value)), tf.int32)
    return tf.where(has, sets.goes_right(own, code), right)
