"""What is not pushed: a graph with an operator that no device is given, or other operators than the manifest says. No server is asked."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefleet.client import FleetClient
from edgefleet.errors import ArtifactError, TransportError
from edgefleet.graphs import check_bundle, graph_files
from edgefleet.manifest import OutlierNote
from tests.faults.hostile_graphs import hostile
from tests.unit.device_agent.agent_world import make_bundle, weights
from tests.unit.device_agent.bundles import numbers, regression_graph, training_rows, write_bundle

# Nothing listens on the port of `discard`: whoever asks the server gets a TransportError.
NOBODY = "http://127.0.0.1:9"


def push(folder: Path) -> None:
    FleetClient(NOBODY, "token", timeout_s=5.0).push(folder, "1")


def test_a_plain_bundle_goes_as_far_as_the_server(tmp_path: Path) -> None:
    make_bundle(tmp_path, weights(1))
    with pytest.raises(TransportError):
        push(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("endless loop", "operator 'Loop' may run without end: it turns up to 4611686018427387904 times, .* unroll the loop"),
        ("random numbers", "operator 'RandomNormal' is not on the list .* build the model of listed operators"),
        ("external data above the folder", "keeps weights outside the file .* save it as one file"),
    ],
)
def test_a_hostile_graph_is_refused_with_operator_file_and_remedy(tmp_path: Path, name: str, said: str) -> None:
    make_bundle(tmp_path, weights(1), graph=hostile(name), operators=["Add", "MatMul", "Softmax"])
    with pytest.raises(ArtifactError, match=rf"onnx-fp32\.onnx: {said}"):
        push(tmp_path)


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        (["MatMul", "Softmax"], "its operators are Add, MatMul, Softmax, the manifest says MatMul, Softmax"),
        (["Add", "Gemm", "MatMul", "Softmax"], "the manifest says Add, Gemm, MatMul, Softmax"),
        ([], "variant 'onnx-fp32' names no operators; convert the package again"),
        (["Scan"], "needs the operator 'Scan', which is not on the list"),
    ],
    ids=["one hidden", "one too many", "none", "not on the list"],
)
def test_a_manifest_that_says_otherwise_than_the_file_is_refused(tmp_path: Path, operators: list[str], said: str) -> None:
    make_bundle(tmp_path, weights(1), operators=operators)
    with pytest.raises(ArtifactError, match=said):
        push(tmp_path)


@pytest.mark.parametrize("place", ["outlier.onnx", "explain-onnx-fp32.onnx", "nobody-names-me.onnx"])
def test_graphs_beside_the_model_are_read_too(tmp_path: Path, place: str) -> None:
    x, _ = training_rows()
    note = OutlierNote(threshold=1.0, files={"onnxruntime": place}, method="mahalanobis") if place.startswith("outlier") else None
    graph = regression_graph(np.ones(5, np.float32))
    made = write_bundle(tmp_path, graph, x, numbers(), [], extra={place: hostile("endless loop")}, changes={"outlier": note})

    with pytest.raises(ArtifactError, match=rf"{place}: operator 'Loop'"):
        push_of_files(made.folder)


def push_of_files(folder: Path) -> None:
    from edgefleet.bundle import Bundle

    bundle = Bundle.open(folder)
    assert len(graph_files(bundle.manifest)) == 2
    check_bundle(bundle)


def test_the_runtime_decides_how_a_file_is_read_not_its_name(tmp_path: Path) -> None:
    make_bundle(tmp_path, weights(1), runtime="litert", operators=["ADD"])
    with pytest.raises(ArtifactError, match="no TFLite graph: the mark TFL3 is missing"):
        push(tmp_path)


def test_the_command_line_ends_with_exit_code_3_and_no_trace(tmp_path: Path) -> None:
    make_bundle(tmp_path, weights(1), graph=hostile("endless loop"))
    for command in (["push", str(tmp_path), "--version", "1", "--server", NOBODY], ["bundle", "verify", str(tmp_path)]):
        done = subprocess.run([sys.executable, "-m", "edgefleet", *command], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (3, "")
        assert "'Loop'" in done.stderr
        assert "Traceback" not in done.stderr
