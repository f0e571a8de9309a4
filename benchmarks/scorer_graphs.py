"""Graphs and bundles for the scorer's benchmarks: invented models with the outputs of a bundle's graph."""

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime import open_runtime
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, Runtime, Tolerance, Variant, manifest_bytes
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference

FEATURES: Final = 20


def forest_graph(x: NDArray[np.float32]) -> bytes:
    """100 trees of depth 6 on invented rows, with the outputs of a bundle's graph."""
    from onnx import helper
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(100, max_depth=6, random_state=0).fit(x, x[:, 0] + x[:, 1] ** 2 > 1)
    graph = to_onnx(model, x[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})
    taken = graph.graph.input[0].name
    for node in graph.graph.node:
        node.input[:] = ["inputs" if i == taken else i for i in node.input]
    graph.graph.input[0].name = "inputs"
    del graph.graph.output[:]
    graph.graph.node.append(helper.make_node("Identity", ["probabilities"], ["margin"]))
    graph.graph.output.extend(helper.make_tensor_value_info(name, 1, [None, 2]) for name in ("margin", "probabilities"))
    return bytes(graph.SerializeToString())


def logistic_graph() -> bytes:
    """The smallest useful model: what a row costs beside it is nearly all ours."""
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(1).normal(size=(FEATURES, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["inputs", "w"], ["margin"]), helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1)],
        "logistic",
        [helper.make_tensor_value_info("inputs", 1, [None, FEATURES])],
        [helper.make_tensor_value_info(name, 1, [None, 2]) for name in ("margin", "probabilities")],
        [numpy_helper.from_array(weights, "w")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def network_graph(hidden: Sequence[int] = (64, 32)) -> bytes:
    """Dense layers with invented weights."""
    from onnx import helper, numpy_helper

    layers = dense_layers(hidden)
    nodes, constants, came = [], [], "inputs"
    for i, (weights, bias) in enumerate(layers):
        last = i == len(layers) - 1
        constants += [numpy_helper.from_array(weights, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [came, f"w{i}", f"b{i}"], ["margin" if last else f"z{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [f"h{i}"]))
        came = f"h{i}"
    nodes.append(helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1))
    outputs = [helper.make_tensor_value_info(name, 1, [None, 2]) for name in ("margin", "probabilities")]
    graph = helper.make_graph(nodes, "network", [helper.make_tensor_value_info("inputs", 1, [None, FEATURES])], outputs, constants)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def dense_layers(hidden: Sequence[int]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Weights and biases of a network from FEATURES inputs to two classes."""
    rng, sizes = np.random.default_rng(2), [FEATURES, *hidden, 2]
    return [((rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), rng.normal(size=b).astype(np.float32)) for a, b in pairwise(sizes)]


def lite_network_graph(hidden: Sequence[int]) -> bytes:
    """The same for LiteRT, written by the converter in a child process: TensorFlow's threads would disturb what is measured here."""
    command = [sys.executable, "-m", "benchmarks.scorer_graphs", *map(str, hidden)]
    return subprocess.run(command, check=True, capture_output=True, timeout=600).stdout


def _golden(graph: bytes, runtime: Runtime, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Golden rows with the graph's own answers."""
    margin, probabilities = open_runtime(runtime, graph).run(x)
    label = probabilities.argmax(axis=1) if probabilities.shape[1] else np.zeros(len(x))
    return {"x": x, "label": label.astype(np.int64), "probabilities": probabilities, "margin": margin}


def write_bundle(
    folder: Path,
    graph: bytes,
    x: NDArray[np.float32],
    inputs: Sequence[Input] = (),
    classes: Sequence[str] = ("no", "yes"),
    runtime: Runtime = "onnxruntime",
) -> Path:
    """The least bundle that a scorer opens and that passes its self-test; numbers of -100 to 100 where no inputs are given."""
    name = "onnx-fp32" if runtime == "onnxruntime" else "tflite-fp32"
    file = f"{name}.{name.split('-')[0]}"
    inputs = list(inputs) or [Input(name=f"f{i}", low=-100.0, high=100.0, range_policy="reject") for i in range(x.shape[1])]
    files = {
        file: graph,
        "reference.npz": build_reference(x, inputs, block_rows=32, classes=len(classes)).to_bytes(),
        "golden.npz": npz_bytes(_golden(graph, runtime, x[:8])),
    }
    digests = {n: sha256_hex(content) for n, content in files.items()}
    tolerance = Tolerance(max_error=1e-5, tie_margin=1e-5)
    variant = Variant(name=name, runtime=runtime, file=file, model_digest=digests[file], tolerance=tolerance)
    manifest = Manifest(
        format_version=1,
        project="benchmark",
        task="classification",
        inputs=inputs,
        classes=list(classes),
        outputs=["margin", "probabilities"],
        margin_kind="logit",
        shape=[x.shape[1]],
        window_rows=1,
        variants=[variant],
        reference="reference.npz",
        reference_digest=digests["reference.npz"],
        golden="golden.npz",
        package_digest="0" * 64,
        files={n: FileEntry(sha256=digests[n], size_bytes=len(content)) for n, content in files.items()},
        mlflow=MlflowNote(reason="a benchmark's bundle"),
    )
    folder.mkdir(parents=True)
    for n, content in files.items():
        (folder / n).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return folder


def _write_lite(hidden: Sequence[int]) -> None:
    import tensorflow as tf

    from converter.to_tflite.graph import to_tflite

    layers = dense_layers(hidden)

    def answer(inputs: Any) -> dict[str, Any]:
        values = inputs
        for weights, bias in layers[:-1]:
            values = tf.nn.relu(tf.matmul(values, weights) + bias)
        margin = tf.matmul(values, layers[-1][0]) + layers[-1][1]
        return {"margin": margin, "probabilities": tf.nn.softmax(margin)}

    sys.stdout.buffer.write(to_tflite(answer, [FEATURES]))


if __name__ == "__main__":
    _write_lite([int(size) for size in sys.argv[1:]])
