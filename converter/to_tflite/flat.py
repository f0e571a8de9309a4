"""TFLite files as flatbuffers: which operators they hold, and the same file with changed tables. Needs no TensorFlow."""

from typing import Any, Final

import numpy as np

from edgefleet.errors import ArtifactError, VerdictError

# Variables are weights that stay outside: such a file loads, runs and answers NaN.
_VARIABLES: Final = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
_IDENTIFIER: Final = b"TFL3"


def read_model(graph: bytes) -> Any:
    """The file's tables as objects (`ModelT` of the schema), with every constant in its buffer.

    Raises:
        ArtifactError: No TFLite file, or one whose constants lie beyond its end.
    """
    from ai_edge_litert import schema_py_generated as schema

    if graph[4:8] != _IDENTIFIER:
        raise ArtifactError(f"{len(graph)} bytes that begin with {graph[:8]!r} are no TFLite file; convert again")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(graph), 0))
    except Exception as err:  # struct, numpy and flatbuffers each raise their own on damaged offsets
        raise ArtifactError(f"a TFLite file of {len(graph)} bytes is damaged: {str(err)[:200]}; convert again") from err
    for buffer in model.buffers or ():
        _bring_in(buffer, graph)
    return model


def _bring_in(buffer: Any, graph: bytes) -> None:
    """Take a constant into its buffer that stands behind the tables: so the quantizer writes those of larger models."""
    place, size = int(buffer.offset), int(buffer.size)
    if size == 0 or place <= 1:  # the schema's "not used", and what stands for it
        return
    if place + size > len(graph):
        raise ArtifactError(f"a TFLite file of {len(graph)} bytes has a constant of {size} bytes at {place}, beyond its end; convert again")
    buffer.data, buffer.offset, buffer.size = np.frombuffer(graph, np.uint8, size, place), 0, 0


def write_model(model: Any) -> bytes:
    """Bytes of a `ModelT`; constants stand at multiples of 16 bytes, as runtimes that read them in place want, equal names only once."""
    for buffer in model.buffers:
        buffer.Pack = _aligned(buffer)
    builder = _builder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _builder() -> Any:
    """A builder that writes equal strings only once."""
    import flatbuffers  # type: ignore[import-untyped]  # ships no types

    class Builder(flatbuffers.Builder):  # type: ignore[misc]  # its type is not known
        places: dict[Any, int]

        def CreateString(self, text: Any, *rest: Any) -> int:  # noqa: N802  # the library's name
            if text not in self.places:
                self.places[text] = super().CreateString(text, *rest)
            return self.places[text]

    builder = Builder(1024)
    builder.places = {}
    return builder


def _aligned(buffer: Any) -> Any:
    """The buffer's writer; the generated one aligns to 4 bytes, whatever the schema says."""
    from ai_edge_litert import schema_py_generated as schema

    def pack(builder: Any) -> Any:
        place = None
        if buffer.data is not None and len(buffer.data):
            content = bytes(buffer.data)
            builder.StartVector(1, len(content), 16)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return schema.BufferEnd(builder)

    return pack


def operator_names(model: Any) -> list[str]:
    """Name of each entry of the file's operator table; a custom operator has its own name."""
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found = []
    for code in model.operatorCodes:
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = (code.customCode or b"").decode("utf-8", "replace") if isinstance(code.customCode, bytes | None) else str(code.customCode)
        found.append(f"custom {custom}" if number == schema.BuiltinOperator.CUSTOM else names.get(number, f"number {number}"))
    return found


def checked_operators(graph: bytes) -> list[str]:
    """Names of the operators of a file, sorted.

    Raises:
        VerdictError: One of them is not built into every LiteRT; named.
    """
    found = sorted(set(operator_names(read_model(graph))))
    for name in found:
        if name.startswith("custom Flex"):
            raise VerdictError(f"the graph needs the TensorFlow operator {name[11:]!r}, which devices do not have; use another layer")
        if name.startswith(("custom", "number")):
            raise VerdictError(f"the graph needs the operator {name}, which is not built into LiteRT; use another layer")
        if name in _VARIABLES:
            raise VerdictError(f"the graph keeps its weights outside the file ({name}); it would answer NaN; save the model for inference")
    return found
