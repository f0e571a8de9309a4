"""Pieces of TFLite files joined in one: tables of one file appended to another's, without any runtime or TensorFlow."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from converter.to_tflite.flat import read_model, write_model
from edgefleet.errors import VerdictError


class Splice:
    """A file under way: a stranger's, in the middle, with pieces of ours in front of and behind it."""

    def __init__(self, middle: Any) -> None:
        """Start with a copy of `middle`, a `ModelT`; its own tensors and operators keep their numbers."""
        self.model = copy.deepcopy(middle)
        self.graph = self.model.subgraphs[0]
        self.before: list[Any] = []
        self.behind: list[Any] = []
        self._codes = {_key(code): i for i, code in enumerate(self.model.operatorCodes)}
        self._leave_out_notes()

    def piece(self, content: bytes, known: Mapping[str, int], *, front: bool) -> dict[str, int]:
        """Append a piece; numbers of its outputs by name.

        Args:
            content: A file with one subgraph and one signature.
            known: Numbers of tensors that stand for its inputs and outputs of these names; the others are appended.
            front: Whether it runs before the stranger's operators.
        """
        other = read_model(content)
        if len(other.subgraphs) != 1:
            raise VerdictError("cleaning steps or calibrator need loops in TFLite, which are not joined with an imported file")
        ends = other.signatureDefs[0]
        places = {_text(end.name): int(end.tensorIndex) for end in [*ends.inputs, *ends.outputs]}
        numbers = {places[name]: number for name, number in known.items() if name in places}
        for number, tensor in enumerate(other.subgraphs[0].tensors):
            if number not in numbers:
                tensor.buffer = self._buffer(other.buffers[tensor.buffer])
                tensor.name = f"{'front' if front else 'behind'}:{number}".encode()
                numbers[number] = self._tensor(tensor)
        codes = [self._code(code) for code in other.operatorCodes]
        for operator in other.subgraphs[0].operators:
            operator.opcodeIndex = codes[operator.opcodeIndex]
            operator.inputs = [numbers.get(int(number), -1) for number in operator.inputs]
            operator.outputs = [numbers[int(number)] for number in operator.outputs]
            (self.before if front else self.behind).append(operator)
        return {_text(end.name): numbers[int(end.tensorIndex)] for end in ends.outputs}

    def stored(self, source: int, target: int) -> None:
        """In front: float32 rows in `source` become the integers of `target`."""
        self.before.append(self._operator("QUANTIZE", source, target))

    def real(self, number: int) -> int:
        """Behind: number of a float32 tensor that holds what `number` stands for; itself where that is float32."""
        from ai_edge_litert import schema_py_generated as schema

        old = self.graph.tensors[number]
        if old.type == schema.TensorType.FLOAT32:
            return number
        fresh = self.float_tensor([int(side) for side in old.shape], f"behind:real{number}")
        self.behind.append(self._operator("DEQUANTIZE", number, fresh))
        return fresh

    def float_tensor(self, shape: list[int], name: str) -> int:
        """A float32 tensor without content; its number."""
        from ai_edge_litert import schema_py_generated as schema

        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name, tensor.hasRank = shape, schema.TensorType.FLOAT32, 0, name.encode(), True
        return self._tensor(tensor)

    def constant(self, values: Any) -> int:
        """A constant of whole numbers; its number."""
        from ai_edge_litert import schema_py_generated as schema

        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values, "<i4").tobytes(), np.uint8)
        tensor.shape, tensor.type, tensor.buffer, tensor.hasRank = [len(values)], schema.TensorType.INT32, self._buffer(buffer), True
        return self._tensor(tensor)

    def finished(self, inputs: int, shape: list[int], outputs: dict[str, int], *, open_batch: bool) -> bytes:
        """The file with one signature: `inputs` and the named outputs.

        Args:
            inputs: Number of the tensor that takes rows.
            shape: Of one row.
            outputs: Numbers by name, in order.
            open_batch: Whether it takes any number of rows, else one.
        """
        from ai_edge_litert import schema_py_generated as schema

        self.graph.operators = [*self.before, *self.graph.operators, *self.behind]
        self.graph.inputs, self.graph.outputs = [inputs], list(outputs.values())
        tensor = self.graph.tensors[inputs]
        tensor.shape, tensor.shapeSignature, tensor.hasRank = [1, *shape], [-1, *shape] if open_batch else None, True
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_end("inputs", inputs)]
        signature.outputs = [_end(name, number) for name, number in outputs.items()]
        self.model.signatureDefs = [signature]
        self._name_apart()
        for number, name in [(inputs, "inputs"), *((number, name) for name, number in outputs.items())]:
            self.graph.tensors[number].name = name.encode()
        return write_model(self.model)

    def _name_apart(self) -> None:
        """Quantizers find operators by the names of tensors; a stranger's may repeat."""
        seen: set[bytes] = {b"inputs", b"margin", b"probabilities"}
        for number, tensor in enumerate(self.graph.tensors):
            name = tensor.name if isinstance(tensor.name, bytes) else str(tensor.name or "").encode()
            tensor.name = f"t{number}".encode() if not name or name in seen else name
            seen.add(tensor.name)

    def _leave_out_notes(self) -> None:
        """Metadata speaks of the file as it was: of its size, its converter, its label files."""
        used = {tensor.buffer for subgraph in self.model.subgraphs for tensor in subgraph.tensors}
        for number, buffer in enumerate(self.model.buffers):
            if number not in used:
                buffer.data = None
        self.model.metadata, self.model.metadataBuffer, self.model.description = None, None, b"edgefleet"

    def _tensor(self, tensor: Any) -> int:
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _buffer(self, buffer: Any) -> int:
        if buffer.data is None or len(buffer.data) == 0:
            return 0  # the format's empty one
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _code(self, code: Any) -> int:
        if _key(code) not in self._codes:
            self._codes[_key(code)] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        return self._codes[_key(code)]

    def _operator(self, kind: str, source: int, target: int) -> Any:
        from ai_edge_litert import schema_py_generated as schema

        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, kind)
        # 3: the first version that reads and writes 16-bit integers.
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 3
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self._code(code), [source], [target]
        return operator


def _end(name: str, number: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    end = schema.TensorMapT()
    end.name, end.tensorIndex = name.encode(), number
    return end


def _key(code: Any) -> tuple[int, bytes, int]:
    return max(code.builtinCode, code.deprecatedBuiltinCode), bytes(code.customCode or b""), int(code.version)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
