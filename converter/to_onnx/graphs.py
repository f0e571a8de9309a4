"""Small surgery on ONNX graphs: names, shapes and outputs as every bundle has them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from edgefleet.errors import VerdictError

OPSET: Final = 17
OPSET_ML: Final = 3
# The oldest format that holds opset 17: old runtimes on devices refuse newer ones.
IR_VERSION: Final = 8


class Nodes:
    """Nodes and constants under way; every node and every value has a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: ArrayLike, name: str, kind: Any = np.float32) -> str:
        """Keep a constant and return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, kind)), name))
        return name

    def node(self, operator: str, reads: Sequence[str], result: str, domain: str = "", **attributes: Any) -> str:
        """Write one node, which has the name of its result, and return that."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(reads), [result], name=result, domain=domain, **attributes))
        return result


def finish(
    nodes: Sequence[Any], initializers: Sequence[Any], *, features: int, margins: int, classes: int, shape: Sequence[int] = ()
) -> bytes:
    """A checked model with input `inputs` and the outputs `margin` and, for classifiers, `probabilities`.

    Args:
        nodes: Nodes in order; they read `inputs` and write `margin` and `probabilities`.
        initializers: Constants.
        features: Columns of the input.
        margins: Columns of the margin.
        classes: Columns of the probabilities; 0: there are none.
        shape: Of one row where it is no plain one of `features` columns.
    """
    from onnx import TensorProto, checker, helper

    def tensor(name: str, *sides: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *sides])

    outputs = [tensor("margin", margins)] + ([tensor("probabilities", classes)] if classes else [])
    graph = helper.make_graph(list(nodes), "edgefleet", [tensor("inputs", *(shape or [features]))], outputs, list(initializers))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", OPSET_ML)]
    model = helper.make_model(graph, producer_name="edgefleet", opset_imports=opsets, ir_version=IR_VERSION)
    try:
        checker.check_model(model, full_check=True)
    except Exception as err:  # the checker and shape inference raise two unrelated kinds
        raise VerdictError(f"the converted graph is invalid: {str(err)[:200]}") from err
    return bytes(model.SerializeToString(deterministic=True))


def in_canonical_form(graph: Any, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of a graph, ordered and named by their place: equal graphs become equal bytes.

    tf2onnx numbers what it makes in an order that differs from run to run.

    Raises:
        VerdictError: A node holds a graph of its own (loops of recurrent layers), whose names cannot be changed alone.
    """
    from onnx import AttributeProto

    maker = {name: node for node in graph.node for name in node.output if name}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = {name: name for name in (*outputs, *(value.name for value in graph.input), "")}
    nodes: list[Any] = []
    used: list[Any] = []
    seen: set[int] = set()

    def visit(wanted: str) -> None:
        node = maker.get(wanted)
        if node is None:
            if wanted in constants and wanted not in names:
                names[wanted] = f"c{len(used)}"
                used.append(constants[wanted])
            return
        if id(node) in seen:
            return
        seen.add(id(node))
        for name in node.input:
            visit(name)
        nodes.append(node)
        for name in node.output:
            names.setdefault(name, f"v{len(names)}")

    for name in outputs:
        visit(name)
    if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for node in nodes for a in node.attribute):
        raise VerdictError("the graph holds loops or branches, which are not converted to ONNX in this version; use a TFLite target")
    return [_renamed_node(node, names, i) for i, node in enumerate(nodes)], [_renamed_constant(tensor, names) for tensor in used]


def _renamed_node(node: Any, names: dict[str, str], place: int) -> Any:
    from onnx import NodeProto

    inputs, outputs = [names[name] for name in node.input], [names[name] for name in node.output]
    fresh = NodeProto(op_type=node.op_type, domain=node.domain, name=f"n{place}", input=inputs, output=outputs)
    fresh.attribute.extend(sorted(node.attribute, key=lambda a: str(a.name)))
    return fresh


def _renamed_constant(tensor: Any, names: dict[str, str]) -> Any:
    from onnx import TensorProto

    fresh = TensorProto()
    fresh.CopyFrom(tensor)
    fresh.name = names[tensor.name]
    return fresh


def describe(graph: bytes) -> tuple[list[str], int]:
    """(names of the operators, inner graphs included, sorted; opset of the standard domain) of a model's bytes."""
    from onnx import load_from_string

    model = load_from_string(graph)
    found: set[str] = set()
    waiting = [model.graph]
    while waiting:
        for node in waiting.pop().node:
            found.add(str(node.op_type))
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += list(attribute.graphs)
    return sorted(found), next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
