"""An ONNX graph with names by place, loops and branches included: equal graphs become equal bytes.

tf2onnx numbers what it makes in an order that differs from run to run.
"""

from collections.abc import Sequence
from typing import Any


def canonical(graph: Any, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that the outputs need, ordered and named by their place.

    Args:
        graph: GraphProto whose inputs keep their names.
        outputs: Names of results, which stay.
    """
    names = {name: name for name in (*outputs, *(value.name for value in graph.input), "")}
    return _Renaming(graph, names, "").rename(outputs)


class _Renaming:
    """One graph; graphs inside it read its names and add their own with a longer prefix."""

    def __init__(self, graph: Any, names: dict[str, str], prefix: str) -> None:
        self.graph, self.names, self.prefix = graph, names, prefix
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes: list[Any] = []
        self.used: list[Any] = []
        self.seen: set[int] = set()

    def rename(self, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """All that the outputs need."""
        for name in outputs:
            self.visit(name)
        return self.nodes, self.used

    def results(self) -> list[str]:
        """Names of the graph's outputs: one value that is given out twice is its own first output, and a copy is the second.

        tf2onnx makes the copy for either of them, as it happens: the state of a recurrent layer is also what it gives out.
        """
        from onnx import NodeProto

        found: list[str] = []
        for value in self.graph.output:
            name = self.original(value.name)
            if name in found:
                copy = f"{name}:{len(found)}"
                self.maker[copy] = NodeProto(op_type="Identity", input=[name], output=[copy])
                name = copy
            found.append(name)
        return found

    def original(self, name: str) -> str:
        """The value that a name is a copy of, where a node of this graph makes it."""
        node = self.maker.get(name)
        while node is not None and node.op_type == "Identity" and node.input[0] in self.maker:
            name = node.input[0]
            node = self.maker[name]
        return name

    def visit(self, wanted: str) -> None:
        """The maker of a value, behind the makers of what it reads."""
        node = self.maker.get(wanted)
        if node is None:
            if wanted in self.constants and wanted not in self.names:
                self.names[wanted] = f"{self.prefix}c{len(self.used)}"
                self.used.append(_renamed_constant(self.constants[wanted], self.names[wanted]))
            return
        if id(node) in self.seen:
            return
        self.seen.add(id(node))
        for name in [*node.input, *_outside(node)]:
            self.visit(name)
        place = len(self.nodes)
        for i, name in enumerate(node.output):
            self.names.setdefault(name, f"{self.prefix}v{place}_{i}")
        self.nodes.append(self.renamed(node, place))

    def renamed(self, node: Any, place: int) -> Any:
        """The node with new names, graphs inside it included."""
        from onnx import AttributeProto, NodeProto

        fresh = NodeProto(op_type=node.op_type, domain=node.domain, name=f"{self.prefix}n{place}")
        fresh.input.extend(self.names[name] for name in node.input)
        fresh.output.extend(self.names[name] for name in node.output)
        for attribute in sorted(node.attribute, key=lambda a: str(a.name)):
            copy = fresh.attribute.add()
            copy.CopyFrom(attribute)
            if attribute.type == AttributeProto.GRAPH:
                copy.g.CopyFrom(self.inner(attribute.g, f"{self.prefix}{attribute.name}{place}_"))
        return fresh

    def inner(self, graph: Any, prefix: str) -> Any:
        """A graph inside a node."""
        from onnx import GraphProto

        names = dict(self.names)
        for i, value in enumerate(graph.input):
            names[value.name] = f"{prefix}i{i}"
        own = _Renaming(graph, names, prefix)
        results = own.results()
        nodes, constants = own.rename(results)
        fresh = GraphProto(name=prefix, node=nodes, initializer=constants)
        reads = [(value, value.name, fresh.input) for value in graph.input]
        writes = [(value, name, fresh.output) for value, name in zip(graph.output, results, strict=True)]
        for value, name, target in [*reads, *writes]:
            copy = target.add()
            copy.CopyFrom(value)
            copy.name = names[name]
            copy.ClearField("doc_string")
            for side in copy.type.tensor_type.shape.dim:
                side.ClearField("dim_param")  # names of open sides are numbered as long as the process lives
        return fresh


def _outside(node: Any) -> list[str]:
    """What the graphs inside a node read from around it, in order."""
    from onnx import AttributeProto

    found: list[str] = []
    for attribute in node.attribute:
        if attribute.type != AttributeProto.GRAPH:
            continue
        graph = attribute.g
        inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inside |= {name for one in graph.node for name in one.output}
        reads = [name for one in graph.node for name in [*one.input, *_outside(one)]] + [value.name for value in graph.output]
        found += [name for name in reads if name and name not in inside]
    return list(dict.fromkeys(found))


def _renamed_constant(tensor: Any, name: str) -> Any:
    from onnx import TensorProto

    fresh = TensorProto()
    fresh.CopyFrom(tensor)
    fresh.name = name
    return fresh
