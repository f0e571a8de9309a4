"""A graph with an operator that no device is given, or another than its writer says, is no variant."""

from pathlib import Path

import numpy as np
import pytest

from converter.isolate import ChildFailed
from converter.workshop import read_graph
from tests.faults.hostile_graphs import hostile
from tests.unit.edgefleet.flat_graphs import Loop, dense_graph

WEIGHTS = np.ones((5, 3), np.float32)


def test_a_graph_that_is_as_its_writer_says_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "graph.tflite"
    path.write_bytes(dense_graph(WEIGHTS))

    assert read_graph(path, {"operators": ["FULLY_CONNECTED", "SOFTMAX"]}).content == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "operators", "said"),
    [
        ("graph.onnx", hostile("endless loop"), ["Loop"], "operator 'Loop' may run without end: it turns up to 4611686018427387904 times"),
        ("graph.tflite", Loop(limit=100_000).content(), ["ADD", "LESS", "WHILE"], "turns up to 100000 times"),
        ("graph.tflite", dense_graph(WEIGHTS), ["FULLY_CONNECTED"], "left another graph than it says"),
        ("graph.onnx", b"rubbish", [], "no readable ONNX graph"),
    ],
    ids=["loop", "long loop", "unsaid", "rubbish"],
)
def test_any_other_graph_is_that_targets_failure(tmp_path: Path, name: str, content: bytes, operators: list[str], said: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ChildFailed, match=said):
        read_graph(tmp_path / name, {"operators": operators})


def test_c_source_has_no_graph_to_read(tmp_path: Path) -> None:
    (tmp_path / "graph.c").write_text("int x;")

    assert read_graph(tmp_path / "graph.c", {}).content == b"int x;"
