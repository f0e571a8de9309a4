"""Damaged graphs whose digests match: refused with a typed error, the same answers, or caught by the golden rows, never a harm."""

import json
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from device_agent.runtime import open_runtime
from device_agent.update.selftest import try_bundle
from edgefleet.bundle import Bundle
from edgefleet.package import npz_bytes, read_npz
from tests.faults.damage import KINDS, damaged
from tests.faults.damaged_worker import MEMORY_BYTES, with_files
from tests.unit.device_agent.agent_world import make_bundle, weights
from tests.unit.device_agent.bundles import forest, forest_graph, logistic_graph
from tests.unit.edgefleet.flat_graphs import dense_graph

ROOT = Path(__file__).resolve().parents[2]
FIRST_STAGE, SECOND_STAGE = 300, 2100
HANG_S = 15.0
START_S = 60.0
ENDS_WELL = {"refused", "same", "caught", "unchanged"}


@contextmanager
def child(folder: Path, first: int, end: int) -> Iterator["subprocess.Popen[bytes]"]:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "tests.faults.damaged_worker", str(folder), str(first), str(end), place]
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()
            running.communicate()


def lines(running: "subprocess.Popen[bytes]") -> Iterator[dict[str, Any]]:
    """What the child tells, until it ends or says nothing for too long."""
    assert running.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(running.stdout, selectors.EVENT_READ)
        waiting_s, left = START_S, b""
        while selector.select(waiting_s):
            piece = running.stdout.read1(65_536)  # type: ignore[attr-defined]  # a BufferedReader
            if not piece:
                return
            *whole, left = (left + piece).split(b"\n")
            yield from (json.loads(line) for line in whole)
            waiting_s = HANG_S
    running.kill()


def what_becomes(folder: Path, count: int) -> dict[int, tuple[str, str]]:
    """Outcome of each damage; a child that ends or hangs is followed by the next, which goes on behind what ended it."""
    found: dict[int, tuple[str, str]] = {}
    first = 0
    while first < count:
        begun = None
        with child(folder, first, count) as running:
            for line in lines(running):
                if "begins" in line:
                    begun = int(line["begins"])
                else:
                    found[int(line["number"])] = (line["kind"], line["words"])
            code = running.wait()
        if len(found) == count:
            break
        assert begun is not None, f"the child ended with {code} before it began"
        if begun not in found:
            found[begun] = ("ended", f"exit {code}")
        first = begun + 1
    return found


def check(folder: Path, count: int) -> Counter[str]:
    """Open a bundle damaged in `count` ways; how often what came of it."""
    variant = Bundle.open(folder).manifest.variants[0].name
    assert try_bundle(folder, variant).ok

    found = what_becomes(folder, count)

    assert sorted(found) == list(range(count))
    wrong = {number: outcome for number, outcome in found.items() if outcome[0] not in {*ENDS_WELL, "ended"}}
    assert not wrong
    for number in [number for number, (kind, _) in found.items() if kind == "ended"]:
        assert_it_ends_in_the_child(folder, number)
    return Counter(kind for kind, _ in found.values())


def assert_it_ends_in_the_child(folder: Path, number: int) -> None:
    """What ended a worker ends the self-test's child, and the parent says how."""
    bundle = Bundle.open(folder)
    variant = bundle.manifest.variants[0]
    with tempfile.TemporaryDirectory() as name:
        again = Path(name) / "bundle"
        with_files(bundle, again, {variant.file: damaged(bundle.read(variant.file), number)})
        result = try_bundle(again, variant.name, timeout_s=HANG_S, memory_bytes=MEMORY_BYTES)
    assert not result.ok
    assert not result.crashed or result.reason.startswith(("crashed(signal ", "timeout"))


def graph_bundle(folder: Path, runtime: str, graph: bytes) -> Path:
    """A bundle around a graph of 5 features and 3 classes, whose golden rows are what it answers."""
    bare = make_bundle(folder.with_name(f"{folder.name}-bare"), weights(1), explain=False, runtime=runtime, graph=graph, operators=[])
    golden = read_npz(bare.read("golden.npz"), (), "golden rows")
    session = open_runtime(runtime, graph)
    margin, probabilities = (np.concatenate(parts) for parts in zip(*(session.run(row[None]) for row in golden["x"]), strict=True))
    golden |= {"margin": margin.astype(np.float64), "probabilities": probabilities.astype(np.float64)}
    with_files(bare, folder, {"golden.npz": npz_bytes(golden)})
    return folder


def network() -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(7)
    return tuple(rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((5, 32), (32, 16), (16, 3)))


def onnx_network() -> bytes:
    nodes, constants, value = [], [], "inputs"
    for i, matrix in enumerate(network()):
        nodes.append(helper.make_node("MatMul", [value, f"m{i}"], [f"v{i}"]))
        nodes.append(helper.make_node("Relu" if i < 2 else "Identity", [f"v{i}"], ["margin" if i == 2 else f"r{i}"]))
        constants.append(numpy_helper.from_array(matrix, f"m{i}"))
        value = f"r{i}"
    nodes.append(helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1))
    widths = {"inputs": 5, "margin": 3, "probabilities": 3}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name, width in widths.items()]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


_CONVOLUTION = """
import sys
import numpy as np
import tensorflow as tf

rng, path = np.random.default_rng(0), sys.argv[1]
filters, weights = (tf.constant(rng.normal(0, 0.5, shape).astype(np.float32)) for shape in ((3, 1, 1, 8), (24, 3)))

class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([1, 5], tf.float32, name="inputs")])
    def serve(self, inputs):
        seen = tf.nn.relu(tf.nn.conv2d(tf.reshape(inputs, [1, 5, 1, 1]), filters, 1, "VALID"))
        margin = tf.matmul(tf.reshape(seen, [1, 24]), weights)
        return {"margin": margin, "probabilities": tf.nn.softmax(margin)}

model = Model()
tf.saved_model.save(model, path + ".saved", signatures={"serving_default": model.serve})
converter = tf.lite.TFLiteConverter.from_saved_model(path + ".saved")
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([rng.normal(size=(1, 5)).astype(np.float32)] for _ in range(100))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
open(path, "wb").write(converter.convert())
"""


def int8_convolution(folder: Path) -> bytes:
    path = folder / "convolution.tflite"
    done = subprocess.run([sys.executable, "-c", _CONVOLUTION, str(path)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return path.read_bytes()


def test_a_damaged_onnx_graph_is_refused_answers_the_same_or_is_caught(tmp_path: Path) -> None:
    kinds = check(graph_bundle(tmp_path / "bundle", "onnxruntime", onnx_network()), FIRST_STAGE)
    assert min(kinds["refused"], kinds["same"], kinds["caught"]) > 10


def test_a_damaged_tflite_graph_is_refused_answers_the_same_or_is_caught(tmp_path: Path) -> None:
    kinds = check(graph_bundle(tmp_path / "bundle", "litert", dense_graph(*network())), FIRST_STAGE)
    assert min(kinds["refused"], kinds["same"], kinds["caught"]) > 10


@pytest.mark.conversions
@pytest.mark.parametrize("name", ["network", "forest", "logistic"])
def test_thousands_of_damaged_onnx_graphs_do_no_harm(tmp_path: Path, name: str) -> None:
    graphs: dict[str, Callable[[], bytes]] = {
        "network": onnx_network,
        "forest": lambda: forest_graph(forest()[0]),
        "logistic": lambda: logistic_graph(weights(1), np.zeros(3, np.float32)),
    }
    kinds = check(graph_bundle(tmp_path / name, "onnxruntime", graphs[name]()), SECOND_STAGE)
    assert kinds["refused"] > SECOND_STAGE / 10
    assert kinds["caught"] > 0


@pytest.mark.conversions
@pytest.mark.keras
@pytest.mark.parametrize("name", ["network", "convolution"])
def test_thousands_of_damaged_tflite_graphs_do_no_harm(tmp_path: Path, name: str) -> None:
    graph = dense_graph(*network()) if name == "network" else int8_convolution(tmp_path)
    kinds = check(graph_bundle(tmp_path / name, "litert", graph), SECOND_STAGE)
    assert kinds["refused"] > SECOND_STAGE / 10
    assert kinds["caught"] > 0


def test_damage_is_the_same_each_time_and_of_every_kind() -> None:
    content = np.random.default_rng(0).bytes(2000)

    made = [damaged(content, number) for number in range(20 * KINDS)]

    assert made == [damaged(content, number) for number in range(20 * KINDS)]
    assert len(set(made)) > 19 * KINDS
    assert sum(one == content for one in made) <= KINDS
