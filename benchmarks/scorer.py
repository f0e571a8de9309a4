"""The scorer's price list: `python -m benchmarks.scorer [--rounds N] [--only PART] [--json]`.

Rows and batches beside the bare runtime (`scorer_rows.py`), statistics beside whylogs (`scorer_statistics.py`), explanations beside shap
(`explain.py`). Ratios are to be trusted, microseconds belong to the machine.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import FEATURES, forest_graph, lite_network_graph, logistic_graph, network_graph, write_bundle
from benchmarks.scorer_rows import Matrix, measure_batch, measure_rows
from benchmarks.scorer_statistics import measure_statistics
from edgefleet.manifest import Runtime

ROWS: Final = 1280
TREES_LIMIT: Final = 1.0
NETWORK_LIMIT: Final = 1.0
LOGISTIC_LIMIT: Final = 1.1
# LiteRT's bare call is quicker: below 10 microseconds the same bookkeeping weighs more.
LITE_SMALL_LIMIT: Final = 1.25
LITE_LARGE_LIMIT: Final = 1.1
BATCH_TREES_LIMIT: Final = 1.1
BATCH_MORE_US: Final = 0.3
EXPLAIN_MEDIAN: Final = 0.7
EXPLAIN_WORST: Final = 1.2
PARTS: Final = ("onnx", "litert", "batch", "statistics", "explain")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorer", description="The scorer beside runtime, whylogs, shap.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--rounds", type=int, default=45, help="interleaved rounds of 256 rows (default 45)")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part only; repeatable")
    options = parser.parse_args()
    x = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in options.only or PARTS:
            figures += _part(part, Path(folder), x, options.rounds)
    show(figures, options.json)


def _part(part: str, folder: Path, x: Matrix, rounds: int) -> list[Figure]:
    if part == "litert":
        small = _bundle(folder, "dense-64-32, LiteRT", lite_network_graph((64, 32)), x, "litert")
        large = _bundle(folder, "dense-1024-512, LiteRT", lite_network_graph((1024, 512)), x, "litert")
        return [
            *measure_rows(small.name, small, x, rounds, LITE_SMALL_LIMIT),
            *measure_rows(large.name, large, x, rounds, LITE_LARGE_LIMIT),
        ]
    if part == "statistics":
        figures, missing = measure_statistics(folder, x)
        if missing:
            print(missing, file=sys.stderr)
        return figures
    if part == "explain":
        return _explanations()
    graphs = {"forest-100x6": forest_graph(x), "dense-64-32": network_graph(), "logistic": logistic_graph()}
    limits = {"forest-100x6": TREES_LIMIT, "dense-64-32": NETWORK_LIMIT, "logistic": LOGISTIC_LIMIT}
    bundles = {name: _bundle(folder / part, name, graph, x) for name, graph in graphs.items()}
    if part == "onnx":
        return [figure for name, bundle in bundles.items() for figure in measure_rows(name, bundle, x, rounds, limits[name])]
    return [
        measure_batch(name, bundle, x, rounds, *((BATCH_TREES_LIMIT, None) if name == "forest-100x6" else (None, BATCH_MORE_US)))
        for name, bundle in bundles.items()
    ]


def _explanations() -> list[Figure]:
    """Exact contributions of one row of trees beside shap's TreeExplainer, over the shapes of `benchmarks.explain`."""
    from benchmarks.explain import SHAPES, shape

    ratios = {name: shape(name, 40)[0] for name in SHAPES}
    figures = [Figure(f"explain {found.name}", found.value, found.unit, EXPLAIN_WORST, found.n) for found in ratios.values()]
    median = statistics.median(found.value for found in ratios.values())
    return [*figures, Figure("explain: arrays / shap, median of the shapes", median, "ratio", EXPLAIN_MEDIAN, len(ratios))]


def _bundle(folder: Path, name: str, graph: bytes, x: Matrix, runtime: Runtime = "onnxruntime") -> Path:
    return write_bundle(folder / name, graph, x, runtime=runtime)


if __name__ == "__main__":
    main()
