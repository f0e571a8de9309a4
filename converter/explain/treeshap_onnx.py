"""TreeSHAP as an ONNX graph, for runtimes without numpy: input `inputs`, outputs `contributions` [n, F] or [n, F, K], and `base` [K].

The same arrays and the same order of operations as `device_agent.treeshap`, whose text says what is computed; standard operators of opset
17 only. Leaves run along the last axis: with a last axis of one, onnxruntime would multiply by a number element by element.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from converter.explain.behind import raw_inputs
from converter.explain.treeshap import Bucket, Compiled
from converter.explain.treeshap_parts import is_mirrored, parts_of
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps

_BLOCK_SLOTS: Final = 32_768
_OPSET: Final = 17
_IR_VERSION: Final = 8
_LEAST: Final = np.finfo(np.float32).min


def treeshap_to_onnx(compiled: Compiled, inputs: int, *steps: Steps) -> bytes:
    """The graph.

    Args:
        compiled: From `compile_leaves`.
        inputs: Raw inputs F.
        steps: Cleaning in front, the first first; its nodes are in the graph. Contributions are summed into the raw inputs.

    Raises:
        VerdictError: The graph is invalid, or not the size that ONNX allows.
    """
    from onnx import TensorProto, checker, helper

    from converter.to_onnx.steps import merge

    writer = _Writer(compiled, raw_inputs(steps, compiled.columns), inputs)
    shape = steps[-1].output_shape if steps else (compiled.columns,)
    writer.write(len(shape))
    columns = len(compiled.base)
    sizes: list[str | int | None] = ["n", inputs] if columns == 1 else ["n", inputs, columns]
    graph = helper.make_graph(
        writer.nodes,
        "edgefleet-explain",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", *shape])],
        [
            helper.make_tensor_value_info("contributions", TensorProto.FLOAT, sizes),
            helper.make_tensor_value_info("base", TensorProto.FLOAT, [columns]),
        ],
        writer.constants,
    )
    model = helper.make_model(graph, producer_name="edgefleet", opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    for one in reversed(steps):
        model = merge(one, model)
    try:
        checker.check_model(model, full_check=True)
    except Exception as err:  # the checker and shape inference raise two unrelated kinds
        raise VerdictError(f"the explanation's graph is invalid: {str(err)[:200]}") from err
    return bytes(model.SerializeToString(deterministic=True))


class _Writer:
    """Nodes and constants; results are named by their place."""

    def __init__(self, compiled: Compiled, sources: NDArray[np.intp], inputs: int) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._compiled, self._sources, self._inputs = compiled, sources, inputs
        self._mirrored = is_mirrored(compiled)
        self._columns = 1 if self._mirrored else len(compiled.base)
        self._width = inputs * self._columns
        # Sums side by side, added up at the end: float32 loses less than in one long sum.
        self._sums = max(1, min(16, 4096 // self._width))

    def constant(self, values: ArrayLike, kind: Any = np.float32) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(values, kind, order="C"), f"c{len(self.constants)}"))
        return str(self.constants[-1].name)

    def node(self, operator: str, *reads: str, result: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(reads), [result or name], name=name, **attributes))
        return result or name

    def write(self, rank: int) -> None:
        """Everything."""
        flat = "inputs" if rank == 1 else self.node("Reshape", "inputs", self.constant([0, self._compiled.columns], np.int64))
        least = self.constant(_LEAST)
        row = self.node("Where", self.node("Less", flat, least), least, flat)  # [n, columns]; minus infinity is inside (-inf, t]
        # Zeros [sums x F x K, n] to add to: no number is less than itself, and NaN - NaN would not be zero.
        first = self.node("Slice", self.node("Transpose", row, perm=[1, 0]), *(self.constant([bound], np.int64) for bound in (0, 1, 0)))
        none = self.node("Cast", self.node("Less", first, first), to=1)
        zeros = self.node("Add", none, self.constant(np.zeros((self._sums * self._width, 1))))
        places = self._places(row)
        parts = parts_of(self._compiled, self._mirrored, _BLOCK_SLOTS)
        total = self.node("Sum", zeros, *(self._added(zeros, row, places, leaves) for leaves in parts))
        apart = self.node("Reshape", total, self.constant([self._sums, self._width, -1], np.int64))
        self._results(self.node("ReduceSum", apart, self.constant([0], np.int64), keepdims=0))

    def _results(self, total: str) -> None:
        flat = self.node("Transpose", total, perm=[1, 0])
        columns = len(self._compiled.base)
        if self._mirrored:
            last = self.constant([-1], np.int64)
            against = self.node("Unsqueeze", flat, last)
            self.node("Concat", self.node("Neg", against), against, result="contributions", axis=2)
        elif columns == 1:
            self.node("Identity", flat, result="contributions")
        else:
            self.node("Reshape", flat, self.constant([0, self._inputs, columns], np.int64), result="contributions")
        self.node("Identity", self.constant(self._compiled.base), result="base")

    def _places(self, row: str) -> str:
        """[n, columns] place of each value among the categories, as int64; "" without categorical splits."""
        categories = self._compiled.categories
        if not len(self._compiled.sets):
            return ""
        last = self.constant([-1], np.int64)
        equal = self.node("Cast", self.node("Equal", self.node("Unsqueeze", row, last), self.constant(categories)), to=1)
        # At most one of them is equal: its place, less the number of categories, is the sum; none gives the last place.
        ranks = self.constant(np.arange(len(categories)) - len(categories))
        found = self.node("ReduceSum", self.node("Mul", equal, ranks), last, keepdims=0)
        return self.node("Cast", self.node("Add", found, self.constant(len(categories))), to=7)

    def _inside(self, row: str, places: str, leaves: Bucket) -> str:
        """[n, D, leaves] whether the row fulfils each step, as 0 or 1."""
        feat = leaves.feat.T.astype(np.int32)
        picked = self.node("Gather", row, self.constant(feat, np.int32), axis=1)
        inside = self.node(
            "And",
            self.node("Greater", picked, self.constant(leaves.low.T)),
            self.node("LessOrEqual", picked, self.constant(leaves.high.T)),
        )
        category = leaves.category.T
        if (category >= 0).any():
            width = len(self._compiled.categories) + 1
            table = self.constant(self._compiled.sets.ravel(), np.bool_)
            offset = self.constant(np.maximum(category, 0) * width, np.int64)
            place = self.node("Gather", places, self.constant(feat, np.int32), axis=1)
            held = self.node("Gather", table, self.node("Add", place, offset), axis=0)
            # A step of categories has the whole line as its interval, which only a missing value is not inside of.
            inside = self.node("And", inside, self.node("Or", held, self.constant(category < 0, np.bool_)))
        absent = self.node("And", self.node("IsNaN", picked), self.constant(leaves.missing.T, np.bool_))
        return self.node("Cast", self.node("Or", inside, absent), to=1)

    def _added(self, zeros: str, row: str, places: str, part: tuple[Bucket, NDArray[np.intp] | None]) -> str:
        leaves, column = part
        depth, columns = leaves.width, self._columns
        share = self.constant(leaves.share.T)
        moved = self.node("Sub", self._inside(row, places, leaves), share)
        nodes, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
        value = np.ones(len(leaves.feat)) if column is None else leaves.value[np.arange(len(column)), column]
        terms = []
        for time, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            factors = self.node("Add", self.node("Mul", moved, self.constant(time)), share)
            product = self._product(factors, depth)
            product = self.node("Mul", product, self.constant(value * weight))
            terms.append(self.node("Div", product, factors))
        weight_sum = terms[0] if len(terms) == 1 else self.node("Sum", *terms)
        updates = self.node("Mul", moved, weight_sum)  # [n, D, leaves]
        raw = self._sources[leaves.feat.T]
        if column is None:
            updates = self.node("Mul", self.node("Unsqueeze", updates, self.constant([2], np.int64)), self.constant(leaves.value.T))
            index = raw[:, None, :] * columns + np.arange(columns)[:, None]
        else:
            index = raw * columns + column[None, :]
        index = index + (np.arange(index.shape[-1]) % self._sums) * self._width
        flat = self.node("Reshape", updates, self.constant([0, index.size], np.int64))
        flat = self.node("Transpose", flat, perm=[1, 0])
        return self.node("ScatterND", zeros, self.constant(index.reshape(-1, 1), np.int64), flat, reduction="add")

    def _product(self, factors: str, depth: int) -> str:
        """[n, 1, leaves]."""
        if depth == 1:
            return factors
        return self.node("ReduceProd", factors, axes=[1], keepdims=1)


def operators(graph: bytes) -> Sequence[str]:
    """Names of the graph's operators, sorted."""
    from onnx import load_from_string

    return sorted({str(node.op_type) for node in load_from_string(graph).graph.node})
