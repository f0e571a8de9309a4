"""Cleaning steps to ONNX, and a model's graph behind them in one file.

Only operators of the standard domain, all of opset 17. Every node costs onnxruntime about 0.3 us, whatever its width.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from converter.to_onnx.graphs import IR_VERSION, OPSET
from edgefleet.errors import VerdictError
from edgefleet.steps import Op, Steps

# No model has names like it: tf2onnx and our own graphs put nothing in front of a colon that is called so.
_PREFIX: Final = "clean:"
_ELEMENTWISE: Final = {"add": "Add", "sub": "Sub", "mul": "Mul", "eq": "Equal", "lt": "Less", "isnan": "IsNaN", "where": "Where"}


def steps_to_onnx(steps: Steps, *, opset: int = OPSET, ir_version: int = IR_VERSION) -> Any:
    """A ModelProto with the input `inputs` [n, ...] and the output `cleaned` [n, ...].

    Args:
        steps: What to write.
        opset: Of the model that comes behind it; 13 to 17 write the same nodes.
        ir_version: The same.
    """
    from onnx import TensorProto, helper

    writer = _Writer(steps.ops)
    for place in range(1, len(steps.ops)):
        writer.write(place)
    writer.node("Identity", [writer.name(len(steps.ops) - 1)], "cleaned")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("inputs", steps.input_shape), ("cleaned", steps.output_shape))
    ]
    graph = helper.make_graph(writer.nodes, "cleaning", ends[:1], ends[1:], writer.constants)
    return helper.make_model(graph, producer_name="edgefleet", opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def merge(steps: Steps, model: Any) -> Any:
    """The model's graph behind the steps: a ModelProto with the same outputs whose `inputs` are raw rows.

    Args:
        steps: Identity returns the model as it is.
        model: ModelProto with one input `inputs` [n, *steps.output_shape].

    Raises:
        VerdictError: The model takes another input, or the merged graph is invalid.
    """
    from onnx import checker, compose

    if steps.is_identity:
        return model
    takes = [(value.name, [d.dim_value for d in value.type.tensor_type.shape.dim][1:]) for value in model.graph.input]
    if takes != [("inputs", list(steps.output_shape))]:
        raise VerdictError(f"the model's graph takes {takes}, the cleaning steps give {list(steps.output_shape)}; train again")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    behind = compose.add_prefix(
        model, _PREFIX, rename_nodes=False, rename_edges=False, rename_outputs=False, rename_initializers=False, rename_value_infos=False
    )
    front = steps_to_onnx(steps, opset=opset, ir_version=model.ir_version)
    try:
        merged = compose.merge_models(front, behind, io_map=[("cleaned", f"{_PREFIX}inputs")], name="edgefleet", producer_name="edgefleet")
        checker.check_model(merged, full_check=True)
    except Exception as err:  # the checker, shape inference and compose raise unrelated kinds
        raise VerdictError(f"cleaning steps and model do not make a valid graph: {str(err)[:200]}") from err
    merged.producer_version = ""
    return merged


def merge_bytes(steps: Steps, graph: bytes) -> bytes:
    """The same for a graph's bytes: equal steps and graphs give equal bytes."""
    from onnx import load_from_string

    return graph if steps.is_identity else bytes(merge(steps, load_from_string(graph)).SerializeToString(deterministic=True))


class _Writer:
    """Nodes and constants; all names start with `clean:` except the input's."""

    def __init__(self, ops: Sequence[Op]) -> None:
        self.ops = ops
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def name(self, place: int) -> str:
        """Name of an operation's result."""
        return "inputs" if place == 0 else f"{_PREFIX}v{place}"

    def constant(self, values: ArrayLike, name: str | None = None, kind: Any = np.int64) -> str:
        """Keep a constant and return its name."""
        from onnx import numpy_helper

        name = name or f"{_PREFIX}c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def node(self, operator: str, reads: list[str], result: str, **attributes: Any) -> str:
        """Write one node."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, reads, [result], name=f"{_PREFIX}n{len(self.nodes)}", **attributes))
        return result

    def write(self, place: int) -> None:
        """One operation."""
        from onnx import TensorProto

        op, result = self.ops[place], self.name(place)
        reads = [self.name(i) for i in op.args]
        if op.kind == "const":
            self.constant(op.values if op.values is not None else 0.0, result, np.float32)
        elif op.kind in _ELEMENTWISE:
            self.node(_ELEMENTWISE[op.kind], reads, result)
        elif op.kind == "f32":
            self.node("Cast", reads, result, to=TensorProto.FLOAT)
        elif op.kind in ("count_le", "lookup"):
            self._table(op, reads[0], result)
        else:
            self._moved(op, reads, result)

    def _table(self, op: Op, read: str, result: str) -> None:
        from onnx import TensorProto

        table = self.constant(op.values if op.values is not None else [], kind=np.float32)
        if op.kind == "lookup":
            self.node("Gather", [table, self.node("Cast", [read], f"{result}i", to=TensorProto.INT32)], result)
            return
        last = self.constant([-1])
        reached = self.node("LessOrEqual", [table, self.node("Unsqueeze", [read, last], f"{result}a")], f"{result}b")
        # A sum of ones is exact in any order.
        self.node("ReduceSum", [self.node("Cast", [reached], f"{result}c", to=TensorProto.FLOAT), last], result, keepdims=0)

    def _moved(self, op: Op, reads: list[str], result: str) -> None:
        if op.kind == "take":
            self.node("Gather", [*reads, self.constant(op.numbers)], result, axis=len(op.shape))
        elif op.kind == "rows":
            first, stop = op.numbers
            self.node("Slice", [*reads, self.constant([first]), self.constant([stop]), self.constant([1])], result)
        elif op.kind == "reshape":
            self.node("Reshape", [*reads, self.constant([-1, *op.numbers])], result)
        else:
            self.node("Concat", reads, result, axis=1 if op.kind == "stack" else len(op.shape))
