"""What an explanation costs and how true it is: `python -m benchmarks.explain [--data FOLDER] [--json]`.

Trees: exact contributions of one row, as arrays (`device_agent.treeshap`), as an ONNX and as a TFLite graph, beside shap's compiled
TreeExplainer with its explainer already built, over nine shapes of models; interleaved, medians. Students: how well they point on rows
never seen, and what they cost beside one answer of the network that they explain: of the device's scorer, and of the bare runtime.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.explain_lite import explained_by, graph_of, writer
from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import write_bundle
from converter.cores.reading import core_of_estimator
from converter.ensembles import ensemble_of
from converter.explain.agreement import agreement
from converter.explain.amortised import amortise
from converter.explain.asking import margins_of_graph
from converter.explain.treeshap import compile_leaves, treeshap_bytes
from converter.explain.treeshap_onnx import treeshap_to_onnx
from converter.to_onnx.core import core_to_onnx
from device_agent.explain import open_explainer
from device_agent.scorer import Scorer
from edgefleet.errors import VerdictError
from edgefleet.manifest import Input
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace

Matrix = NDArray[np.float32]

# Largest share of shap's time: the median over the shapes, and any one of them.
ARRAYS_MEDIAN: Final = 0.65
ARRAYS_WORST: Final = 1.15
GRAPH_MEDIAN: Final = 1.0
RELATIVE_ERROR: Final = 2e-6
_TRAINED: Final = 8000
_ROWS: Final = 12_000
_TIMED_ROWS: Final = 2_000
# name -> (estimator, options, features, classes)
SHAPES: Final[dict[str, tuple[str, dict[str, Any], int, int]]] = {
    "boosting 100 x depth 3": ("GradientBoostingClassifier", {"n_estimators": 100, "max_depth": 3}, 14, 2),
    "boosting 300 x depth 4": ("GradientBoostingClassifier", {"n_estimators": 300, "max_depth": 4}, 14, 2),
    "histogram 100 x 31": ("HistGradientBoostingClassifier", {"max_iter": 100, "early_stopping": False}, 14, 2),
    "histogram 100 x 31, 4 classes": ("HistGradientBoostingClassifier", {"max_iter": 100, "early_stopping": False}, 14, 4),
    "histogram 300 x 31, 30 inputs": ("HistGradientBoostingClassifier", {"max_iter": 300, "early_stopping": False}, 30, 2),
    "forest 100 x depth 6": ("RandomForestClassifier", {"n_estimators": 100, "max_depth": 6}, 14, 2),
    "forest 100 x depth 10": ("RandomForestClassifier", {"n_estimators": 100, "max_depth": 10}, 14, 2),
    "forest 100 x depth 10, 40 inputs": ("RandomForestClassifier", {"n_estimators": 100, "max_depth": 10}, 40, 2),
    "forest 100, unlimited": ("RandomForestClassifier", {"n_estimators": 100}, 14, 2),
}
# Least cosine and top 3 overlap of a student on rows never seen.
STUDENTS: Final = {"breast_cancer": (0.98, 0.92), "adult": (0.98, 0.92), "gas_drift": (0.95, 0.80)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description="Cost and truth of explanations.")
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per data set; without it, breast_cancer only")
    parser.add_argument("--only", choices=["trees", "students"], help="one half")
    parser.add_argument("--rows", type=int, default=60, help="explained rows for each shape (default 60)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    figures = [] if options.only == "students" else trees(options.rows)
    if options.only != "trees":
        figures += [figure for name in students_of(options.data) for figure in student(name, options.data)]
    show(figures, options.json)


def students_of(data: Path | None) -> list[str]:
    """Data sets that a student can be measured on: those in the folder, and the one that scikit-learn brings."""
    return [name for name in STUDENTS if name == "breast_cancer" or (data is not None and (data / name).is_dir())]


def trees(rows: int) -> list[Figure]:
    """Every shape, then the medians."""
    figures: list[Figure] = []
    with writer() as pool:
        for name in SHAPES:
            figures += shape(name, rows, pool)
    for way, limit in (("arrays", ARRAYS_MEDIAN), ("graph", GRAPH_MEDIAN), ("TFLite graph", GRAPH_MEDIAN)):
        ratios = [figure.value for figure in figures if figure.name.endswith(f": {way} / shap")]
        figures.append(Figure(f"{way} / shap, median of the shapes", statistics.median(ratios), "ratio", limit, len(ratios)))
    return figures


def shape(name: str, rows: int, pool: ProcessPoolExecutor | None = None) -> list[Figure]:
    """One shape: ratios of medians first, then errors relative to the largest contribution, then the file's size.

    With a `pool` (see `explain_lite.writer`) the third ratio is that of the TFLite graph.
    """
    import onnxruntime

    kind, settings, features, classes = SHAPES[name]
    model, x = _fitted(kind, settings, features, classes)
    compiled = compile_leaves(ensemble_of(model))
    content, columns = treeshap_bytes(compiled), len(compiled.base)
    explainer = open_explainer(content, "treeshap", tuple(f"x{i}" for i in range(features)), columns)
    session = onnxruntime.InferenceSession(treeshap_to_onnx(compiled, features), _one_thread(), providers=["CPUExecutionProvider"])
    reference = _shap(model)
    index = 1 if columns == 1 else columns - 1
    ways: dict[str, Callable[[Matrix], Any]] = {
        "shap": lambda row: reference.shap_values(row[None], check_additivity=False),
        "arrays": lambda row: explainer.explain(row, index, 0.0, _no_model).contributions,
        "graph": lambda row: session.run(["contributions"], {"inputs": row[None]})[0],
    }
    if pool is not None:
        try:
            ways["TFLite graph"] = explained_by(graph_of(pool, compiled, features))
        except VerdictError as err:  # a bundle then has the arrays only
            print(f"{name}: no TFLite graph: {err}", file=sys.stderr)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    errors = {way: 0.0 for way in ways if way != "shap"}
    for row in x[:rows]:
        said = {}
        for way, ask in ways.items():
            # The processor's time: other work on the machine stretches long calls more than short ones.
            began = time.process_time()
            answer = ask(row)
            taken[way].append((time.process_time() - began) * 1e3)
            said[way] = np.asarray(answer, np.float64).reshape(features, -1)[:, -1]
        largest = np.abs(said["shap"]).max()
        errors = {way: max(worst, float(np.abs(said[way] - said["shap"]).max() / largest)) for way, worst in errors.items()}
    median = {way: statistics.median(values) for way, values in taken.items()}
    return [
        Figure(f"{name}: arrays / shap", median["arrays"] / median["shap"], "ratio", ARRAYS_WORST, rows),
        *(Figure(f"{name}: {way} / shap", median[way] / median["shap"], "ratio", None, rows) for way in ways if way.endswith("graph")),
        Figure(f"{name}: arrays", median["arrays"], "ms", None, rows),
        *(Figure(f"{name}: error of {way}", error * 1e6, "1e-6", RELATIVE_ERROR * 1e6, rows) for way, error in errors.items()),
        Figure(f"{name}: file", len(content) / 1e3, "kB", None, 1),
    ]


def student(name: str, data: Path | None) -> list[Figure]:
    """A student of a small network: figures on rows never seen, and its time beside one answer of the network's graph."""
    from sklearn.neural_network import MLPClassifier

    x, y, inputs = _rows(name, data)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    cut = min(len(x) - 200, 20_000) if len(x) > 1000 else 400
    steps = _cleaning(x[:cut], inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stochastic Optimizer")  # not converged is converged enough to be explained
        network = MLPClassifier((32, 16), max_iter=30 if len(x) > 10_000 else 200, random_state=0).fit(steps.run(x[:cut]), y[:cut])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        path.write_bytes(core_to_onnx(core_of_estimator(network, "mlp"), steps))
        margins = margins_of_graph(path, "onnxruntime").margins
        began = time.perf_counter()
        made = amortise(margins, x[:400], x[cut : cut + 100], x[400:416] if cut > 416 else x[:16], inputs, np.arange(len(inputs)))
        fitted_s = time.perf_counter() - began
        whole = np.asarray(margins(x[cut : cut + 100]))
        classes = [str(found) for found in network.classes_]
        scorer = Scorer.open(write_bundle(Path(folder) / "bundle", path.read_bytes(), x[:2000], inputs, classes))
    columns = whole.shape[1]
    picked = np.arange(len(whole)), slice(None), whole.argmax(axis=1)
    figures = agreement(made.values[picked], made.reference.values[picked])
    explainer = open_explainer(made.content, "amortised", tuple(column.name for column in inputs), columns)
    taken: dict[str, list[float]] = {"answer": [], "bare": [], "explained": []}
    ways: dict[str, Callable[[Matrix], Any]] = {
        "answer": scorer.score,
        "bare": lambda row: scorer.session.run(None, {"inputs": row[None]}),
        "explained": lambda row: explainer.explain(row, 1 if columns == 1 else 0, 0.0, _no_model),
    }
    for i in range(_TIMED_ROWS):
        for way, ask in ways.items():
            began = time.process_time()
            ask(x[i % len(x)])
            taken[way].append((time.process_time() - began) * 1e6)
    scorer.close()
    median = {way: statistics.median(values) for way, values in taken.items()}
    cosine, top = STUDENTS[name]
    n = len(whole)
    return [
        Figure(f"{name}: 1 - cosine", 1 - figures["cosine"], "", 1 - cosine, n),
        Figure(f"{name}: 1 - top 3 overlap", 1 - figures["top3"], "", 1 - top, n),
        Figure(f"{name}: 1 - R2", 1 - figures["r2"], "", None, n),
        Figure(f"{name}: explanation / answer", median["explained"] / median["answer"], "ratio", 1.0, _TIMED_ROWS),
        Figure(f"{name}: explanation / bare runtime", median["explained"] / median["bare"], "ratio", None, _TIMED_ROWS),
        Figure(f"{name}: explanation", median["explained"], "us", None, _TIMED_ROWS),
        Figure(f"{name}: file", len(made.content) / 1e3, "kB", None, 1),
        Figure(f"{name}: labels, fit and reference", fitted_s, "s", None, 1),
    ]


def _fitted(kind: str, settings: dict[str, Any], features: int, classes: int) -> tuple[Any, Matrix]:
    from sklearn import ensemble
    from sklearn.datasets import make_classification

    x, y = make_classification(_ROWS, features, n_informative=max(8, features // 2), n_redundant=2, n_classes=classes, random_state=1)
    x = x.astype(np.float32)
    return getattr(ensemble, kind)(random_state=0, **settings).fit(x[:_TRAINED], y[:_TRAINED]), x[_TRAINED:]


def _one_thread() -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return options


def _shap(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap looks for optional packages when imported
        import shap

        return shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")


def _rows(name: str, data: Path | None) -> tuple[Matrix, NDArray[np.int64], list[Input]]:
    """A data set as float32 with category codes, its classes, and its schema."""
    if name == "breast_cancer":
        from sklearn.datasets import load_breast_cancer

        x, y = load_breast_cancer(return_X_y=True)
        return x.astype(np.float32), y.astype(np.int64), [Input(name=f"x{i}") for i in range(x.shape[1])]
    import pandas as pd

    folder = data or Path()
    if name == "adult":
        table = pd.read_csv(folder / "adult" / "adult.data.csv.gz")
        label, table = table.iloc[:, -1], table.iloc[:, :-1]
    else:
        table = pd.concat([pd.read_csv(folder / "gas_drift" / f"batch{batch}.csv.gz") for batch in (1, 2)])
        label, table = table["gas"], table.iloc[:, 2:]
    inputs, columns = [], []
    for column in table:
        values = table[column]
        if pd.api.types.is_numeric_dtype(values):
            inputs.append(Input(name=str(column)))
            columns.append(values.to_numpy(np.float32))
        else:
            codes = values.astype("category").cat
            inputs.append(Input(name=str(column), kind="category", categories=[str(text) for text in codes.categories]))
            columns.append(codes.codes.to_numpy(np.float32))
    return np.column_stack(columns).astype(np.float32), label.astype("category").cat.codes.to_numpy().astype(np.int64), inputs


def _cleaning(x: Matrix, inputs: list[Input]) -> Steps:
    """Numbers scaled, categories as flags."""
    numbers = [i for i, column in enumerate(inputs) if column.kind == "number"]
    trace, sources = Trace((len(inputs),)), list(numbers)
    spread = np.maximum(x[:, numbers].std(axis=0), 1e-9)
    centered = trace.sub(trace.take(0, numbers), x[:, numbers].mean(axis=0).astype(np.float32))
    parts = [trace.mul(centered, (1 / spread).astype(np.float32))]
    for i, column in enumerate(inputs):
        if column.kind == "category":
            codes = np.arange(len(column.categories), dtype=np.float32)
            parts.append(trace.f32(trace.eq(trace.take(0, [i] * len(codes)), codes)))
            sources += [i] * len(codes)
    trace.concat(parts)
    return Steps(tuple(trace.ops), tuple(f"z{i}" for i in range(len(sources))), tuple(sources))


def _no_model(rows: Matrix) -> Matrix:
    raise AssertionError("neither trees nor students ask the model")


if __name__ == "__main__":
    main()
