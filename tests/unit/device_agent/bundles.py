"""Tiny real bundles for the scorer's tests: a scikit-learn model through skl2onnx, with reference, golden rows and explainer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_agent.runtime import open_runtime
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, Variant, manifest_bytes
from edgefleet.package import npz_bytes
from edgefleet.reference import Reference, build_reference

FEATURES = 5


@dataclass(frozen=True)
class Made:
    """A bundle folder, and what it was made of."""

    folder: Path
    model: Any
    x: NDArray[np.float32]
    reference: Reference


def training_rows(n: int = 400, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, FEATURES)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] ** 2 > 1).astype(np.int64) + (x[:, 2] > 1.2)


def numbers(**changes: Any) -> list[Input]:
    """Five numeric inputs f0..f4; `changes` apply to f0."""
    return [Input(name=f"f{i}", **(changes if i == 0 else {})) for i in range(FEATURES)]


def forest_graph(model: Any) -> bytes:
    """Forest as a bundle's graph: both outputs are the mean leaf probability."""
    from onnx import helper
    from skl2onnx import to_onnx

    graph = to_onnx(
        model, np.zeros((1, model.n_features_in_), np.float32), options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3}
    )
    assert graph.graph.output[1].name == "probabilities"
    del graph.graph.output[:]
    graph.graph.node.append(helper.make_node("Identity", ["probabilities"], ["margin"]))
    for name in ("margin", "probabilities"):
        graph.graph.output.append(helper.make_tensor_value_info(name, 1, [None, len(model.classes_)]))
    _rename_input(graph)
    return bytes(graph.SerializeToString())


def logistic_graph(weights: NDArray[np.float32], bias: NDArray[np.float32]) -> bytes:
    """margin = x w + b; probabilities are its sigmoid (one column: two classes) or softmax."""
    from onnx import helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["inputs", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["margin"])]
    if weights.shape[1] == 1:
        nodes += [
            helper.make_node("Sigmoid", ["margin"], ["one"]),
            helper.make_node("Sub", ["unit", "one"], ["zero"]),
            helper.make_node("Concat", ["zero", "one"], ["probabilities"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1))
    constants = {"w": weights, "b": bias, "unit": np.ones(1, np.float32)}
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("inputs", 1, [None, len(weights)])],
        [
            helper.make_tensor_value_info("margin", 1, [None, weights.shape[1]]),
            helper.make_tensor_value_info("probabilities", 1, [None, max(weights.shape[1], 2)]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def regression_graph(weights: NDArray[np.float32]) -> bytes:
    """One output `margin` [n, 1] in the target's unit."""
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["inputs", "w"], ["margin"])],
        "regression",
        [helper.make_tensor_value_info("inputs", 1, [None, len(weights)])],
        [helper.make_tensor_value_info("margin", 1, [None, 1])],
        [numpy_helper.from_array(weights.reshape(-1, 1), "w")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def forest_arrays(model: Any) -> dict[str, NDArray[Any]]:
    """The treeshap arrays of a forest, by an independent walk over its trees."""
    by_depth: dict[int, list[tuple[NDArray[np.float64], dict[int, tuple[float, float, bool, float]]]]] = {}
    classes = len(model.classes_)
    base = np.zeros(classes)
    for tree in (t.tree_ for t in model.estimators_):
        share = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True) / len(model.estimators_)
        for leaf, path in _leaves(tree):
            base += share[leaf] * np.prod([p[3] for p in path.values()])
            if path:
                by_depth.setdefault(len(path), []).append((share[leaf], path))
    arrays: dict[str, NDArray[Any]] = {
        "method": np.array("treeshap"),
        "base": base,
        "features": np.array(model.n_features_in_),
        "depths": np.array(sorted(by_depth)),
    }
    for depth, leaves in by_depth.items():
        rows = [[(f, *path[f]) for f in sorted(path)] for _, path in leaves]
        table = np.array(rows, np.float64)
        arrays |= {
            f"feat_{depth}": table[..., 0].astype(np.int32),
            f"lo_{depth}": _down(table[..., 1]),
            f"hi_{depth}": _down(table[..., 2]),
            f"missing_{depth}": table[..., 3] > 0,
            f"z_{depth}": table[..., 4].astype(np.float32),
            f"value_{depth}": np.array([v for v, _ in leaves], np.float32),
        }
    return arrays


def forest(classes: int = 3, seed: int = 0) -> tuple[Any, NDArray[np.float32]]:
    from sklearn.ensemble import RandomForestClassifier

    x, y = training_rows(seed=seed)
    return RandomForestClassifier(12, max_depth=4, random_state=seed).fit(x, np.minimum(y, classes - 1)), x


def forest_bundle(folder: Path, inputs: list[Input] | None = None) -> Made:
    """Three classes, onnx-fp32 with treeshap."""
    model, x = forest()
    made = npz_bytes(forest_arrays(model))
    return write_bundle(folder, forest_graph(model), x, inputs or numbers(), ["low", "mid", "high"], ("treeshap", made), model=model)


def logistic_bundle(folder: Path, inputs: list[Input] | None = None, columns: int = 1, variant: str = "onnx-fp32", **more: Any) -> Made:
    """Two classes from one column of log-odds (or `columns` classes), with a sampled explanation."""
    x, _ = training_rows()
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(FEATURES, columns)).astype(np.float32), rng.normal(size=columns).astype(np.float32)
    explainer = npz_bytes({"method": np.array("sampled"), "background": x[:16]})
    classes = ["no", "yes"] if columns == 1 else [f"c{i}" for i in range(columns)]
    graph = logistic_graph(weights, bias)
    return write_bundle(
        folder, graph, x, inputs or numbers(), classes, ("sampled", explainer), model=(weights, bias), variant=variant, **more
    )


def write_bundle(
    folder: Path,
    graph: bytes,
    x: NDArray[np.float32],
    inputs: list[Input],
    classes: list[str],
    explainer: tuple[str, bytes] | None = None,
    *,
    model: Any = None,
    variant: str = "onnx-fp32",
    runtime: str = "onnxruntime",
    changes: dict[str, Any] | None = None,
    takes_missing: bool = True,
    extra: dict[str, bytes] | None = None,
    reference: Reference | None = None,
) -> Made:
    """Write the folder; `changes` replace fields of the manifest, `extra` are more files (golden.npz among them replaces ours)."""
    reference = reference or build_reference(x, inputs, block_rows=50, classes=len(classes))
    name = f"{variant}.{'onnx' if runtime == 'onnxruntime' else 'tflite'}"
    steps = (changes or {}).get("window_rows", 1)
    given = x[:8] if steps == 1 else np.stack([np.resize(x[i:], (steps, x.shape[1])) for i in range(8)])
    files = {name: graph, "reference.npz": reference.to_bytes(), **(extra or {})}
    if "golden.npz" not in files:  # a hostile graph comes with rows of its own, and is not run here
        files["golden.npz"] = _golden(graph, runtime, given)
    if explainer is not None:
        files[f"explain-{variant}.npz"] = explainer[1]
    chosen = msgspec.convert(
        {
            "name": variant,
            "runtime": runtime,
            "file": name,
            "model_digest": sha256_hex(graph),
            "tolerance": {"max_error": 1e-5, "tie_margin": 1e-5},
            "explainer": None if explainer is None else f"explain-{variant}.npz",
            "explain_method": None if explainer is None else explainer[0],
            "takes_missing": takes_missing,
        },
        Variant,
    )
    manifest = Manifest(
        format_version=1,
        project="tiny",
        task="classification" if classes else "regression",
        inputs=inputs,
        classes=classes,
        outputs=["margin", "probabilities"] if classes else ["margin"],
        margin_kind="log-odds",
        shape=[len(inputs)],
        window_rows=1,
        variants=[chosen],
        reference="reference.npz",
        reference_digest=sha256_hex(files["reference.npz"]),
        golden="golden.npz",
        package_digest="0" * 64,
        files={n: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for n, content in sorted(files.items())},
        mlflow=MlflowNote(reason="a test's bundle"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for n, content in files.items():
        (folder / n).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(msgspec.structs.replace(manifest, **(changes or {}))))
    return Made(folder, model, x, reference)


def _rename_input(graph: Any) -> None:
    old = graph.graph.input[0].name
    for node in graph.graph.node:
        node.input[:] = ["inputs" if i == old else i for i in node.input]
    graph.graph.input[0].name = "inputs"


def _leaves(tree: Any) -> list[tuple[int, dict[int, tuple[float, float, bool, float]]]]:
    found = []
    stack: list[tuple[int, dict[int, tuple[float, float, bool, float]]]] = [(0, {})]
    while stack:
        node, path = stack.pop()
        left, right = tree.children_left[node], tree.children_right[node]
        if left < 0:
            found.append((node, path))
            continue
        feature, threshold = int(tree.feature[node]), tree.threshold[node]
        lo, hi, missing, z = path.get(feature, (-np.inf, np.inf, True, 1.0))
        cover = tree.weighted_n_node_samples
        stack.append((left, {**path, feature: (lo, min(hi, threshold), False, z * cover[left] / cover[node])}))
        stack.append((right, {**path, feature: (max(lo, threshold), hi, missing, z * cover[right] / cover[node])}))
    return found


def _down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.where(near.astype(np.float64) > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _golden(graph: bytes, runtime: str, x: NDArray[np.float32]) -> bytes:
    """Golden rows with the graph's own answers; of a graph that cannot be opened, or that takes other rows, the rows alone."""
    try:
        margin, probabilities = open_runtime(runtime, graph).run(x)
    except Exception:  # a runtime raises kinds of its own
        return npz_bytes({"x": x})
    label = probabilities.argmax(axis=1) if probabilities.shape[1] else np.zeros(len(x))
    return npz_bytes({"x": x, "label": label.astype(np.int64), "probabilities": probabilities, "margin": margin})
