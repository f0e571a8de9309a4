"""TFLite graphs written table by table, without TensorFlow: a model that a bundle can carry, and loops of every kind."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.to_tflite.flat import write_model

FLOAT32, INT32, BOOL = 0, 2, 6
TYPES = {np.dtype(np.float32): FLOAT32, np.dtype(np.int32): INT32}


class Writer:
    """One file under way; operators by their number in the schema."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, b"hand-made"
        self.model.operatorCodes, self.model.subgraphs, self.model.buffers = [], [], [schema.BufferT()]

    def subgraph(self) -> Any:
        made = self.schema.SubGraphT()
        made.tensors, made.operators, made.inputs, made.outputs, made.name = [], [], [], [], b"graph"
        self.model.subgraphs.append(made)
        return made

    def tensor(self, subgraph: Any, name: str, shape: list[int], kind: int = FLOAT32, content: bytes | None = None) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), shape, kind, 0
        made.shapeSignature = [-1, *shape[1:]] if len(shape) > 1 and content is None else shape
        made.hasRank = True
        if content is not None:
            buffer = self.schema.BufferT()
            buffer.data = list(content)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        subgraph.tensors.append(made)
        return len(subgraph.tensors) - 1

    def constant(self, subgraph: Any, values: NDArray[Any], name: str = "constant") -> int:
        return self.tensor(subgraph, name, list(values.shape), TYPES[values.dtype], values.tobytes())

    def operator(self, subgraph: Any, number: int, inputs: list[int], outputs: list[int], options: tuple[str, Any] | None = None) -> Any:
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version, code.customCode = number, min(number, 127), 1, None
        known = [i for i, one in enumerate(self.model.operatorCodes) if one.builtinCode == number]
        if not known:
            self.model.operatorCodes.append(code)
            known = [len(self.model.operatorCodes) - 1]
        made = self.schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = known[0], inputs, outputs
        if options is not None:
            made.builtinOptionsType, made.builtinOptions = getattr(self.schema.BuiltinOptions, options[0]), options[1]
        subgraph.operators.append(made)
        return made

    def sign(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """The signature that names inputs and outputs of the first graph."""
        signature = self.schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs, signature.outputs = ([self._named(*pair) for pair in ends.items()] for ends in (inputs, outputs))
        self.model.signatureDefs = [signature]

    def content(self) -> bytes:
        return write_model(self.model)

    def as_the_schema_packs_it(self) -> bytes:
        """With every field, those too that the converter never writes."""
        import flatbuffers  # type: ignore[import-untyped]  # ships no types

        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _named(self, name: str, tensor: int) -> Any:
        made = self.schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), tensor
        return made


def dense_graph(*weights: NDArray[np.float32]) -> bytes:
    """margin = relu(x w) ... w, probabilities = softmax(margin), for matrices [features, ..] to [.., classes]."""
    writer = Writer()
    graph = writer.subgraph()
    x = value = writer.tensor(graph, "inputs", [1, len(weights[0])])
    for i, matrix in enumerate(weights):
        w = writer.constant(graph, np.ascontiguousarray(matrix.T))
        b = writer.constant(graph, np.zeros(matrix.shape[1], np.float32))
        options = writer.schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = int(i + 1 < len(weights))  # RELU
        after = writer.tensor(graph, "margin" if i + 1 == len(weights) else f"hidden{i}", [1, matrix.shape[1]])
        writer.operator(graph, 9, [value, w, b], [after], ("FullyConnectedOptions", options))
        value = after
    shares = writer.tensor(graph, "probabilities", [1, weights[-1].shape[1]])
    softmax = writer.schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    writer.operator(graph, 25, [value], [shares], ("SoftmaxOptions", softmax))
    graph.inputs, graph.outputs = [x], [value, shares]
    writer.sign({"inputs": x}, {"margin": value, "probabilities": shares})
    return writer.content()


class Loop:
    """`while i < limit: i += step, x = x + x`, with one thing changed by a test before `content` is asked."""

    def __init__(self, limit: int = 5, step: int = 1, start: int = 0) -> None:
        self.writer = writer = Writer()
        self.main, self.condition, self.body = (writer.subgraph() for _ in range(3))
        schema = writer.schema
        x, first = writer.tensor(self.main, "inputs", [1, 2]), writer.constant(self.main, np.array(start, np.int32))
        count, result = writer.tensor(self.main, "count", [], INT32), writer.tensor(self.main, "result", [1, 2])
        self.loop_options = schema.WhileOptionsT()
        self.loop_options.condSubgraphIndex, self.loop_options.bodySubgraphIndex = 1, 2
        self.loop = writer.operator(self.main, 119, [first, x], [count, result], ("WhileOptions", self.loop_options))
        self.main.inputs, self.main.outputs = [x], [result]

        i, kept = writer.tensor(self.condition, "i", [], INT32), writer.tensor(self.condition, "x", [1, 2])
        self.limit = writer.constant(self.condition, np.array(limit, np.int32), "limit")
        less = writer.tensor(self.condition, "less", [], BOOL)
        self.less = writer.operator(self.condition, 58, [i, self.limit], [less], ("LessOptions", schema.LessOptionsT()))
        self.condition.inputs, self.condition.outputs = [i, kept], [less]

        j, y = writer.tensor(self.body, "i", [], INT32), writer.tensor(self.body, "x", [1, 2])
        self.step = writer.constant(self.body, np.array(step, np.int32), "step")
        after, twice = writer.tensor(self.body, "next", [], INT32), writer.tensor(self.body, "twice", [1, 2])
        self.add_options = schema.AddOptionsT()
        self.add = writer.operator(self.body, 0, [j, self.step], [after], ("AddOptions", self.add_options))
        writer.operator(self.body, 0, [y, y], [twice], ("AddOptions", schema.AddOptionsT()))
        self.body.inputs, self.body.outputs = [j, y], [after, twice]
        writer.sign({"inputs": x}, {"result": result})

    def content(self) -> bytes:
        return self.writer.content()
