"""TFLite files whose constants stand behind the tables, as the quantizer writes those of larger models."""

from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # ships no types
import numpy as np
import pytest

from benchmarks.scorer_graphs import FEATURES, lite_network_graph
from converter.to_tflite.flat import read_model, write_model
from device_agent.runtime.tflite import open_interpreter
from edgefleet.errors import ArtifactError


def packed(model: Any) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_constants_behind(graph: bytes, beyond: int = 0) -> bytes:
    """The same model, its largest constant appended to the file; `beyond` bytes further than it is there."""
    model = read_model(graph)
    buffer = max(model.buffers, key=lambda one: 0 if one.data is None else len(one.data))
    content = bytes(buffer.data)
    buffer.data, buffer.offset, buffer.size = None, 1 << 40, len(content)
    tables = -(-len(packed(model)) // 16) * 16
    buffer.offset = tables + beyond
    return packed(model).ljust(tables, b"\0") + content


def answer(graph: bytes, row: np.ndarray) -> np.ndarray:
    interpreter = open_interpreter(graph)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def test_a_file_with_constants_behind_its_tables_is_written_whole() -> None:
    graph = lite_network_graph((64, 32))
    row = np.random.default_rng(1).normal(size=(1, FEATURES)).astype(np.float32)
    behind = with_constants_behind(graph)

    whole = write_model(read_model(behind))

    assert np.array_equal(answer(behind, row), answer(graph, row))  # LiteRT reads such files
    assert np.array_equal(answer(whole, row), answer(graph, row))
    assert not any(buffer.size for buffer in read_model(whole).buffers)


def test_a_constant_beyond_the_end_of_the_file_is_refused_with_its_place() -> None:
    with pytest.raises(ArtifactError, match="beyond its end"):
        read_model(with_constants_behind(lite_network_graph((64, 32)), beyond=16))
