"""Splits of trees by sets of categories, as look-ups.

Each column of categories gets a column of codes behind the row: the place of its value among the values that any set holds, counted from 1,
and 0 for every other value and for a missing one. A split then looks (its set, the code) up in one flat table. All of it is exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.ensembles import Tree


@dataclass(frozen=True)
class Sets:
    """All sets of an ensemble.

    Attributes:
        columns: Columns of categories, in the order of their columns of codes.
        known: Values of each, rising.
        width: Entries of each set in `members`.
        members: [(1 + sets) * width] whether a code goes left; the first set is that of nodes without one.
    """

    columns: list[int]
    known: list[NDArray[np.float32]]
    width: int
    members: NDArray[np.bool_]

    def with_codes(self, x: Any) -> Any:
        """Rows [n, F] with the columns of codes behind them."""
        import tensorflow as tf

        if not self.columns:
            return x
        codes = []
        for column, known in zip(self.columns, self.known, strict=True):
            same = tf.cast(tf.equal(x[:, column : column + 1], known), tf.float32)
            # At most one of them is not 0, so the sum is exact in any order.
            codes.append(tf.reduce_sum(same * np.arange(1, len(known) + 1, dtype=np.float32), axis=1, keepdims=True))
        return tf.concat([x, *codes], axis=1)

    def goes_right(self, own: Any, code: Any) -> Any:
        """Whether rows go right at nodes with a set.

        Args:
            own: Number of each node's set, int32.
            code: What stands in the column of codes; anything in [0, width) for nodes without a set.
        """
        import tensorflow as tf

        return tf.logical_not(tf.gather(self.members, own * self.width + code))


def sets_of(trees: Sequence[Tree], features: int) -> tuple[Sets, list[Tree], list[NDArray[np.int32]]]:
    """The sets, the trees with columns of codes in place of categories, and the number of each node's set by tree (0: none).

    Args:
        trees: Any.
        features: Columns of a row; codes stand behind them.
    """
    values: dict[int, set[float]] = {}
    for tree in trees:
        for node, own in (tree.categories or {}).items():
            values.setdefault(int(tree.feature[node]), set()).update(own.tolist())
    columns = sorted(values)
    known = [np.array(sorted(values[column]), np.float32) for column in columns]
    width = 1 + max((len(one) for one in known), default=0)
    members = [np.zeros(width, bool)]
    recoded, numbers = [], []
    for tree in trees:
        number, feature = np.zeros(len(tree.left), np.int32), tree.feature.copy()
        for node, own in sorted((tree.categories or {}).items()):
            at = columns.index(int(tree.feature[node]))
            number[node], feature[node] = len(members), features + at
            members.append(np.concatenate([[False], np.isin(known[at], own), np.zeros(width - 1 - len(known[at]), bool)]))
        recoded.append(Tree(tree.left, tree.right, feature, tree.threshold, tree.missing_left, tree.cover, tree.value))
        numbers.append(number)
    return Sets(columns, known, width, np.concatenate(members)), recoded, numbers
