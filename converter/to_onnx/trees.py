"""Trees to one TreeEnsembleRegressor node, written from our own arrays: missing directions, exact thresholds, several values a leaf.

Not through skl2onnx, which loses the side that missing values take in forests, and converts categories as if they were numbers.
Splits by sets of categories have no form in opset 3 of ai.onnx.ml. In front of the trees stands a look-up: the place of a column's value
among its known ones, then one 0/1 column for each distinct set, read from a table of bytes; a split compares its column with .5. Both are
exact.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cores import Trees
from converter.ensembles import Ensemble, Tree
from converter.to_onnx.graphs import Nodes
from edgefleet.errors import VerdictError

MAX_NODES: Final = 4_000_000
_SUMS: Final = (
    "nodes_treeids", "nodes_nodeids", "nodes_modes", "nodes_featureids", "nodes_values", "nodes_truenodeids", "nodes_falsenodeids",
    "nodes_missing_value_tracks_true", "target_treeids", "target_nodeids", "target_ids", "target_weights",
)  # fmt: skip


def write_trees(head: Trees, graph: Nodes, rows: str) -> str:
    """Write the trees behind `rows`; the name of the margin [n, K].

    Raises:
        VerdictError: More nodes than MAX_NODES: the file would exceed what devices load.
    """
    ensemble = head.ensemble
    if (count := sum(len(tree.left) for tree in ensemble.trees)) > MAX_NODES:
        raise VerdictError(
            f"{count} nodes in {len(ensemble.trees)} trees, the limit is {MAX_NODES}: limit the depth or the number of trees"
        )
    places: dict[tuple[int, bytes], int] = {}
    if any(tree.categories for tree in ensemble.trees):
        rows, places = _memberships(ensemble, graph, rows)
    attributes = _attributes(ensemble, places)
    if len(ensemble.offset) > 1 and ensemble.offset.any():
        # Not as base values of the node: onnxruntime adds them only to columns for which a reached leaf has an entry.
        summed = graph.node("TreeEnsembleRegressor", [rows], "summed", "ai.onnx.ml", **attributes)
        return graph.node("Add", [summed, graph.constant(ensemble.offset, "offset")], "margin")
    if head.average_depth is None:
        return graph.node("TreeEnsembleRegressor", [rows], "margin", "ai.onnx.ml", **attributes)
    depth = graph.node("TreeEnsembleRegressor", [rows], "depth", "ai.onnx.ml", **attributes)
    exponent = graph.node("Mul", [depth, graph.constant(-np.log(2) / head.average_depth, "depth_factor")], "exponent")
    return graph.node("Exp", [exponent], "margin")


def _memberships(ensemble: Ensemble, graph: Nodes, rows: str) -> tuple[str, dict[tuple[int, bytes], int]]:
    """The rows with a 0/1 column for each distinct set of categories behind them, and the place of each set's column."""
    sets: dict[int, dict[bytes, NDArray[np.float32]]] = {}
    for tree in ensemble.trees:
        for node, values in sorted((tree.categories or {}).items()):
            sets.setdefault(int(tree.feature[node]), {})[values.tobytes()] = values
    parts, places, at = [rows], {}, ensemble.features
    for column in sorted(sets):
        known = np.unique(np.concatenate([*sets[column].values(), np.zeros(0, np.float32)]))
        table = np.zeros((len(known) + 1, len(sets[column])), np.uint8)  # the last row for every other value
        for place, (key, values) in enumerate(sorted(sets[column].items())):
            table[:-1, place] = np.isin(known, values)
            places[column, key] = at + place
        parts.append(_looked_up(graph, rows, column, known, table))
        at += table.shape[1]
    return graph.node("Concat", parts, "with_sets", axis=1), places


def _looked_up(graph: Nodes, rows: str, column: int, known: NDArray[np.float32], table: NDArray[np.uint8]) -> str:
    from onnx import TensorProto

    name = f"set{column}"
    if len(known) == 0:  # all its sets are empty: nothing is a member
        return _fallen(graph, rows, column, table, name)
    value = graph.node("Gather", [rows, graph.constant([column], f"{name}_column", np.int64)], f"{name}_value", axis=1)
    same = graph.node("Equal", [value, graph.constant(known, f"{name}_known")], f"{name}_same")
    # 0 where nothing is the same, else the place + 1; the row of other values is moved to the table's front for it.
    weighted = graph.node(
        "MatMul",
        [
            graph.node("Cast", [same], f"{name}_ones", to=TensorProto.FLOAT),
            graph.constant(np.arange(1, len(known) + 1), f"{name}_places"),
        ],
        f"{name}_found",
    )
    place = graph.node("Cast", [weighted], f"{name}_place", to=TensorProto.INT32)
    member = graph.node("Gather", [graph.constant(np.roll(table, 1, axis=0), f"{name}_table", np.uint8), place], f"{name}_bytes", axis=0)
    return graph.node("Cast", [member], name, to=TensorProto.FLOAT)


def _fallen(graph: Nodes, rows: str, column: int, table: NDArray[np.uint8], name: str) -> str:
    from onnx import TensorProto

    columns = graph.constant([column] * table.shape[1], f"{name}_column", np.int64)
    value = graph.node("Gather", [rows, columns], f"{name}_value", axis=1)
    # x < x holds for no value at all, missing ones included.
    return graph.node("Cast", [graph.node("Less", [value, value], f"{name}_never")], name, to=TensorProto.FLOAT)


def _attributes(ensemble: Ensemble, places: dict[tuple[int, bytes], int]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {name: [] for name in _SUMS}
    for t, tree in enumerate(ensemble.trees):
        _append(found, t, tree, places)
    offset = [float(v) for v in ensemble.offset]
    base = {"base_values": offset} if len(offset) == 1 and any(offset) else {}
    return {**found, "n_targets": len(offset), "aggregate_function": "SUM", **base}


def _append(found: dict[str, list[Any]], t: int, tree: Tree, places: dict[tuple[int, bytes], int]) -> None:
    sets = tree.categories or {}
    leaf = tree.left < 0
    count = len(leaf)
    feature, threshold = tree.feature.tolist(), np.where(leaf, np.float32(0), tree.threshold).astype(np.float32).tolist()
    modes = np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
    left, right = np.where(leaf, 0, tree.left).tolist(), np.where(leaf, 0, tree.right).tolist()
    for node, values in sets.items():
        # A member's column is 1: it goes left, which is the side of a value that is above.
        modes[node], threshold[node], feature[node] = "BRANCH_GT", 0.5, places[feature[node], values.tobytes()]
    found["nodes_treeids"] += [t] * count
    found["nodes_nodeids"] += range(count)
    found["nodes_modes"] += modes
    found["nodes_featureids"] += feature
    found["nodes_values"] += threshold
    found["nodes_truenodeids"] += left
    found["nodes_falsenodeids"] += right
    found["nodes_missing_value_tracks_true"] += (~leaf & tree.missing_left).astype(int).tolist()
    value = tree.value.astype(np.float32)
    for node in np.flatnonzero(leaf).tolist():
        # Zeros need no entry, but a leaf without any would be no leaf.
        targets = np.flatnonzero(value[node]).tolist() or [0]
        found["target_treeids"] += [t] * len(targets)
        found["target_nodeids"] += [node] * len(targets)
        found["target_ids"] += targets
        found["target_weights"] += value[node, targets].tolist()
