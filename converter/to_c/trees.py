"""Trees to tables and one loop: nodes in preorder, so that the left child is the next node.

7 bytes a node: the feature (a mark for a leaf), the float32 threshold, and how far the right child is. A leaf keeps its value where the
threshold would be, or in the place of the offset the row of a table in which equal leaves are kept once. Values are added in the order
in which onnxruntime adds them: tree by tree from 0, the offset last. The answers of both are then equal to the last bit.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from converter.cores import Trees
from converter.ensembles import Ensemble, Tree
from converter.to_c.text import MAX_CONSTANT_BYTES, Source, literal, smallest
from edgefleet.errors import VerdictError

_NODE_BYTES: Final = 7
_MAX_NODES: Final = MAX_CONSTANT_BYTES // _NODE_BYTES


@dataclass
class Nodes:
    """All trees' nodes, one behind the other, in preorder.

    Attributes:
        columns: The one column of the margin that each tree adds to, None if some tree adds to several.
    """

    columns: list[int] | None
    feature: list[int] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)  # of a node by set: the number of the set
    right: list[int] = field(default_factory=list)
    missing_left: list[bool] = field(default_factory=list)
    by_set: list[bool] = field(default_factory=list)
    leaf: list[bool] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)
    leaves: dict[bytes, int] = field(default_factory=dict)  # [K] float32 by its bytes
    sets: dict[bytes, int] = field(default_factory=dict)
    share: list[float] = field(default_factory=list)  # of the parent's training rows that came here

    @property
    def mark(self) -> int:
        """What stands for the feature of a leaf: the largest value of the type."""
        return int(np.iinfo(smallest(max(self.feature) + 1)).max)


def write_trees(head: Trees, source: Source) -> Nodes:
    """Write `static void head(const float *x, float *margin)`; the nodes as they lie in its tables.

    Raises:
        VerdictError: More nodes than the constants may take.
    """
    ensemble, outputs = head.ensemble, len(head.ensemble.offset)
    if (count := sum(len(tree.left) for tree in ensemble.trees)) > _MAX_NODES:
        raise VerdictError(
            f"{count} nodes in {len(ensemble.trees)} trees take {count * _NODE_BYTES} bytes, the limit of the target c is "
            f"{MAX_CONSTANT_BYTES}: limit the depth or the number of trees, or use an onnx target"
        )
    columns = _one_output(ensemble)
    nodes = Nodes(columns)
    for t, tree in enumerate(ensemble.trees):
        _append(nodes, tree, None if columns is None else columns[t])
    _walk(nodes, source)
    source.function(_head(head, nodes, columns, outputs, source))
    return nodes


def _one_output(ensemble: Ensemble) -> list[int] | None:
    """The one column that each tree adds to, or None if some tree adds to several."""
    used = [np.flatnonzero(tree.value.any(axis=0)) for tree in ensemble.trees]
    return None if any(len(found) > 1 for found in used) else [int(found[0]) if len(found) else 0 for found in used]


def _append(nodes: Nodes, tree: Tree, column: int | None) -> None:
    nodes.roots.append(len(nodes.feature))
    sets = tree.categories or {}
    value = tree.value.astype(np.float32)
    waiting: list[tuple[int, int, float]] = [(0, -1, float(tree.cover[0]))]  # node, the parent whose right child it is, its cover
    while waiting:
        node, parent, cover = waiting.pop()
        at = len(nodes.feature)
        if parent >= 0:
            nodes.right[parent] = at - parent
        leaf = bool(tree.left[node] < 0)
        nodes.leaf.append(leaf)
        nodes.by_set.append(node in sets)
        nodes.missing_left.append(not leaf and node not in sets and bool(tree.missing_left[node]))
        nodes.feature.append(0 if leaf else int(tree.feature[node]))
        threshold, right = float(tree.threshold[node]), 0
        if leaf and column is not None:
            threshold = float(value[node, column])
        elif leaf:
            threshold, right = 0.0, nodes.leaves.setdefault(value[node].tobytes(), len(nodes.leaves))
        elif node in sets:
            threshold = float(nodes.sets.setdefault(sets[node].astype(np.float32).tobytes(), len(nodes.sets)))
        nodes.threshold.append(threshold)
        nodes.right.append(right)
        own = float(tree.cover[node])
        nodes.share.append(own / cover if cover > 0 else 0.0)
        if not leaf:
            waiting += [(int(tree.right[node]), at, own), (int(tree.left[node]), -1, own)]


def _walk(nodes: Nodes, source: Source) -> None:
    """Write `static uint32_t leaf_of(uint32_t at, const float *x)`."""
    if any(nodes.by_set):
        _members(nodes, source)
    feature, right = tables(nodes, source)
    source.function(
        f"EXACT static uint32_t leaf_of(uint32_t at, const float *x)\n{{\n  while ({feature}[at] != {nodes.mark}u) {{\n"
        f"    const float v = x[{feature}[at]];\n    {decision(nodes, source)}\n    at += left ? 1u : {right}[at];\n  }}\n"
        "  return at;\n}\n"
    )


def tables(nodes: Nodes, source: Source) -> tuple[str, str]:
    """Names of the tables of features and of the ways to the right children."""
    feature = source.table(np.where(nodes.leaf, nodes.mark, nodes.feature), smallest(max(nodes.feature) + 1))
    return feature, source.table(nodes.right, smallest(max(nodes.right)))


def decision(nodes: Nodes, source: Source) -> str:
    """Statements that set `left` by the value `v` at the node `at`."""
    threshold = source.table(np.array(nodes.threshold, np.float32))
    missing = f" || (v != v && {_bit(nodes.missing_left, source)})" if any(nodes.missing_left) else ""
    decide = f"int left = v <= {threshold}[at]{missing};"
    if not any(nodes.by_set):
        return f"const {decide}"
    return f"{decide}\n    if ({_bit(nodes.by_set, source)}) left = member((int){threshold}[at], v);"


def _bit(flags: list[bool], source: Source) -> str:
    table = source.table(np.packbits(np.array(flags, bool), bitorder="little"), np.uint8)
    return f"(({table}[at >> 3] >> (at & 7u)) & 1u) != 0u"


def _members(nodes: Nodes, source: Source) -> None:
    """Write `static int member(int set, float v)`: a value of a column of categories, missing ones are in no set."""
    found = [np.frombuffer(key, np.float32) for key in nodes.sets]
    ends = np.cumsum([0, *(len(one) for one in found)])
    values = source.table(np.concatenate([*found, np.zeros(1, np.float32)]))
    start = source.table(ends, smallest(int(ends[-1])))
    source.function(
        f"EXACT static int member(int set, float v)\n{{\n  for (uint32_t i = {start}[set]; i < {start}[set + 1]; i++) {{\n"
        f"    if ({values}[i] == v) return 1;\n  }}\n  return 0;\n}}\n"
    )


def _head(head: Trees, nodes: Nodes, columns: list[int] | None, outputs: int, source: Source) -> str:
    offset = head.ensemble.offset.astype(np.float32)
    roots = source.table(nodes.roots, smallest(max(nodes.roots)))
    count = len(nodes.roots)
    leaf = f"leaf_of({roots}[t], x)"
    if columns is not None:
        threshold = source.table(np.array(nodes.threshold, np.float32))
        if outputs == 1:
            column = "0"
        elif columns == [t % outputs for t in range(count)]:
            column = f"t % {outputs}"
        else:
            column = f"{source.table(columns, smallest(outputs))}[t]"
        add = f"margin[{column}] += {threshold}[{leaf}];"
    else:
        rows = [np.frombuffer(key, np.float32) for key in nodes.leaves]
        table, right = source.table(np.concatenate(rows)), source.table(nodes.right, smallest(max(nodes.right)))
        add = (
            f"{{\n    const float *leaf = {table} + {outputs}u * {right}[{leaf}];\n"
            f"    for (int k = 0; k < {outputs}; k++) margin[k] += leaf[k];\n  }}"
        )
    body = f"  for (int k = 0; k < {outputs}; k++) margin[k] = 0.0f;\n  for (int t = 0; t < {count}; t++) {add}\n"
    if offset.any():
        body += f"  for (int k = 0; k < {outputs}; k++) margin[k] += {source.table(offset)}[k];\n"
    if head.average_depth is not None:
        body += f"  margin[0] = expf(margin[0] * {literal(np.float32(-np.log(2) / head.average_depth))});\n"
    return f"EXACT static void head(const float *x, float *margin)\n{{\n{body}}}\n"
