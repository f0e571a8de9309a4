"""What `Scorer.score` with complete statistics costs beside the runtime's bare `run` on the same rows.

Rounds are interleaved and the rows rotate, because the same row again and again flatters trees by branch prediction. The ratio is of means,
so that folding the statistics, which one row in 256 pays, is in it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure, show
from device_agent.scorer import Scorer
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, Tolerance, Variant, manifest_bytes
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference

FEATURES: Final = 20
RING: Final = 256  # a round is one full ring, so that every round folds once
ROWS: Final = 5 * RING
MEAN_RATIO_LIMIT: Final = 1.25


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorer", description="Cost of Scorer.score beside the bare runtime.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=45, help="interleaved rounds of 256 rows (default 45)")
    options = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in (("forest-100x6", forest_graph(x)), ("logistic", logistic_graph())):
            figures += measure(name, write_bundle(Path(folder) / name, graph, x), x, options.rounds)
    show(figures, options.json)


def measure(name: str, bundle: Path, x: NDArray[np.float32], rounds: int) -> list[Figure]:
    """Figures of one model, n = rounds x 256 calls each."""
    start = time.perf_counter_ns()
    scorer = Scorer.open(bundle)
    opened_ms = (time.perf_counter_ns() - start) / 1e6
    session, rows, lists = scorer.session, list(x), x.tolist()
    ways: dict[str, Callable[[int], Any]] = {
        "raw": lambda i: session.run(None, {"inputs": x[i : i + 1]}),
        "array": lambda i: scorer.score(rows[i]),
        "list": lambda i: scorer.score(lists[i]),
        "list, label and score read": lambda i: _read(scorer.score(lists[i])),
    }
    means: dict[str, list[float]] = {way: [] for way in ways}
    medians: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        first = turn * RING % len(x)
        for way, call in ways.items():
            taken = _times_ns(call, range(first, first + RING))
            means[way].append(statistics.fmean(taken) / 1e3)
            medians[way].append(statistics.median(taken) / 1e3)
    raw, raw_p50, n = statistics.median(means["raw"]), statistics.median(medians["raw"]), rounds * RING
    figures = [Figure(f"{name}: open", opened_ms, "ms", None, 1), Figure(f"{name}: raw run, mean", raw, "us", None, n)]
    for way in list(ways)[1:]:
        limit = None if "read" in way else MEAN_RATIO_LIMIT
        figures.append(Figure(f"{name}: score({way}) / raw run, means", statistics.median(means[way]) / raw, "ratio", limit, n))
        figures.append(Figure(f"{name}: score({way}) / raw run, p50", statistics.median(medians[way]) / raw_p50, "ratio", None, n))
    start = time.perf_counter_ns()
    scorer.score_batch(x)
    figures.append(Figure(f"{name}: score_batch per row", (time.perf_counter_ns() - start) / 1e3 / len(x), "us", None, len(x)))
    scorer.close()
    return figures


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


def write_bundle(
    folder: Path, graph: bytes, x: NDArray[np.float32], inputs: Sequence[Input] = (), classes: Sequence[str] = ("no", "yes")
) -> Path:
    """The least bundle that a scorer opens; numbers of -100 to 100 where no inputs are given."""
    inputs = list(inputs) or [Input(name=f"f{i}", low=-100.0, high=100.0, range_policy="reject") for i in range(x.shape[1])]
    files = {
        "onnx-fp32.onnx": graph,
        "reference.npz": build_reference(x, inputs, block_rows=32, classes=len(classes)).to_bytes(),
        "golden.npz": npz_bytes({"x": x[:8]}),
    }
    digests = {name: sha256_hex(content) for name, content in files.items()}
    tolerance = Tolerance(max_error=1e-5, tie_margin=1e-5)
    variant = Variant(
        name="onnx-fp32", runtime="onnxruntime", file="onnx-fp32.onnx", model_digest=digests["onnx-fp32.onnx"], tolerance=tolerance
    )
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
        files={name: FileEntry(sha256=digests[name], size_bytes=len(content)) for name, content in files.items()},
        mlflow=MlflowNote(reason="a benchmark's bundle"),
    )
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return folder


def _times_ns(call: Callable[[int], Any], rows: range) -> list[int]:
    taken = []
    for i in rows:
        start = time.perf_counter_ns()
        call(i)
        taken.append(time.perf_counter_ns() - start)
    return taken


def _read(score: Any) -> tuple[str | None, float]:
    return score.label, score.score


if __name__ == "__main__":
    main()
