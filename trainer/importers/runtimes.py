"""Foreign model files opened and run. `describe` and `answer` are called in a child process by `edgefleet.isolate`.

Each opener gives (Description, run), where run takes raw rows [n, ...] float32 and a Signature and gives every numeric output by name.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, InputError, MissingPartError
from edgefleet.package import npz_bytes, read_npz
from edgefleet.signature import Signature, Tensor, parse_signature
from edgefleet.skops_nodes import check_nodes
from edgefleet.skops_types import TRUSTED_TYPES
from trainer.importers.signature import Description, plain
from trainer.importers.tensors import Outputs, in_pieces, open_sides, real_values, texts

Run = Callable[[NDArray[np.float32], Signature], Outputs]
_FAMILIES: Final = {
    "RandomForestClassifier": "forest", "RandomForestRegressor": "forest", "ExtraTreesClassifier": "forest",
    "ExtraTreesRegressor": "forest", "GradientBoostingClassifier": "boosting", "GradientBoostingRegressor": "boosting",
    "HistGradientBoostingClassifier": "hist_boosting", "HistGradientBoostingRegressor": "hist_boosting",
    "DecisionTreeClassifier": "tree", "DecisionTreeRegressor": "tree", "LogisticRegression": "linear", "LinearRegression": "linear",
    "Ridge": "linear", "SVC": "svm", "SVR": "svm", "MLPClassifier": "mlp", "MLPRegressor": "mlp", "IsolationForest": "isolation_forest",
    "DummyClassifier": "constant", "DummyRegressor": "constant",
}  # fmt: skip


def describe(job: dict[str, Any]) -> dict[str, Any]:
    """In a child: open the file and say what it is."""
    return plain(open_file(job["kind"], Path(job["path"]))[0])


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """In a child: run raw rows and write the outputs to a file."""
    x = read_npz(Path(job["rows"]).read_bytes(), ("x",), "rows")["x"]
    _, run = open_file(job["kind"], Path(job["path"]))
    outputs = run(x, parse_signature(job["signature"].encode()))
    Path(job["outputs"]).write_bytes(npz_bytes({f"o{i}": array for i, array in enumerate(outputs.values())}))
    return {"names": list(outputs)}


def open_file(kind: str, path: Path) -> tuple[Description, Run]:
    """Open a model file in this process.

    Raises:
        ArtifactError: Damaged.
    """
    opener = {"skops": _open_skops, "onnx": _open_onnx, "tflite": _open_tflite, "keras": _open_keras}[kind]
    try:
        return opener(path)
    except (ArtifactError, InputError, MissingPartError, ModuleNotFoundError):
        raise
    except Exception as err:  # each library raises its own dozen kinds on damaged input
        text = " ".join(str(err)[:2000].split())[:200]
        raise ArtifactError(f"{path.name}: no readable .{kind} model: {text}; copy or save the file again") from err


def _open_skops(path: Path) -> tuple[Description, Run]:
    import sklearn
    import skops.io

    content = path.read_bytes()
    check_archive(content, path.name, ".skops")
    if unknown := sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED_TYPES)):
        raise InputError(f"{path.name} holds the type {unknown[0]!r}, which is not opened; build the model of scikit-learn's own parts")
    check_nodes(content, path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a file of another scikit-learn version only warns, and may then answer wrongly
        model: Any = skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    if not hasattr(model, "predict"):
        raise InputError(f"{path.name} holds a {type(model).__name__}, which answers nothing; save a fitted estimator")
    methods = [name for name in ("predict_proba", "decision_function", "score_samples", "predict") if hasattr(model, name)]
    classes, columns = getattr(model, "classes_", None), getattr(model, "feature_names_in_", None)
    description = Description(
        outputs=[Tensor(name=name) for name in methods],
        classes=None if classes is None else [_class_text(value) for value in np.asarray(classes).tolist()],
        columns=None if columns is None else [str(name) for name in columns],
        features=getattr(model, "n_features_in_", None),
        family=_FAMILIES.get(type(model).__name__, "pipeline"),
        versions={"scikit-learn": sklearn.__version__, "skops": skops.__version__},
    )

    def run(x: NDArray[np.float32], signature: Signature) -> Outputs:
        rows: Any = _table(x, signature) if signature.table else x.reshape(len(x), -1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
            wanted = [signature.output] if signature.output else [name for name in methods if name != "predict" or len(methods) == 1]
            return {name: np.asarray(getattr(model, name)(rows), np.float64) for name in wanted}

    return description, run


def _class_text(value: Any) -> str:
    """As `texts_of` writes labels: whole numbers without a fraction."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _table(x: NDArray[np.float32], signature: Signature) -> Any:
    import pandas

    named_columns = enumerate(signature.categories)
    return pandas.DataFrame({signature.columns[i]: texts(x[:, i], named) if named else x[:, i] for i, named in named_columns})


def _open_onnx(path: Path) -> tuple[Description, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    inputs = [Tensor(name=i.name, shape=open_sides(i.shape), dtype=_onnx_type(i.type)) for i in session.get_inputs()]
    outputs = [Tensor(name=o.name, shape=open_sides(o.shape or []), dtype=_onnx_type(o.type)) for o in session.get_outputs()]
    description = Description(
        inputs=inputs, outputs=outputs, classes=_onnx_classes(path), family="onnx", versions={"onnxruntime": onnxruntime.__version__}
    )
    names = [output.name for output in outputs if output.dtype != "text"]

    def run(x: NDArray[np.float32], signature: Signature) -> Outputs:
        wanted = [signature.output] if signature.output else names
        return in_pieces(x, signature, inputs, lambda feed: dict(zip(wanted, session.run(wanted, feed), strict=True)))

    return description, run


def _onnx_type(text: str) -> str:
    if text.startswith("seq("):
        return "maps"
    known = {"float": "float32", "double": "float64", "string": "text", "float16": "float16"}
    inner = text.removeprefix("tensor(").removesuffix(")")
    return known.get(inner, inner)


def _onnx_classes(path: Path) -> list[str] | None:
    """The class names in a graph that scikit-learn's converter made, where the `onnx` package is there to read it.

    Of a graph that answers dictionaries (ZipMap) in the order of their keys, in which `tensors.in_pieces` reads them.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        return None
    nodes = onnx.load(path, load_external_data=False).graph.node
    for node in sorted(nodes, key=lambda node: node.op_type != "ZipMap"):
        for attribute in node.attribute:
            if attribute.name.startswith("classlabels_") and (attribute.strings or attribute.ints):
                keys = list(attribute.strings) or list(attribute.ints)
                keys = sorted(keys) if node.op_type == "ZipMap" else keys
                return [key.decode() if isinstance(key, bytes) else str(key) for key in keys]
    return None


def _open_tflite(path: Path) -> tuple[Description, Run]:
    import ai_edge_litert
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = ([_lite(entry) for entry in some()] for some in (interpreter.get_input_details, interpreter.get_output_details))
    places = {entry["name"]: entry["index"] for entry in [*interpreter.get_input_details(), *interpreter.get_output_details()]}
    version = getattr(ai_edge_litert, "__version__", "")
    description = Description(inputs=inputs, outputs=outputs, family="tflite", versions={"ai-edge-litert": version} if version else {})

    def call(feed: dict[str, NDArray[Any]]) -> Outputs:
        for name, value in feed.items():
            interpreter.set_tensor(places[name], value)
        interpreter.invoke()
        return {o.name: real_values(np.array(interpreter.get_tensor(places[o.name])), o) for o in outputs}

    def run(x: NDArray[np.float32], signature: Signature) -> Outputs:
        return in_pieces(x, signature, inputs, call)

    return description, run


def _lite(entry: dict[str, Any]) -> Tensor:
    # The batch of a TFLite file is what stands in its shape: it is not resized, whatever the file's signature leaves open.
    shape: list[int | None] = [int(side) for side in entry["shape"]]
    scale, zero_point = entry["quantization"]
    return Tensor(name=entry["name"], shape=shape, dtype=np.dtype(entry["dtype"]).name, scale=float(scale), zero_point=int(zero_point))


def _open_keras(path: Path) -> tuple[Description, Run]:
    from trainer.candidates.keras_files import import_keras

    check_archive(path.read_bytes(), path.name, ".keras")
    keras = import_keras()
    model: Any = keras.models.load_model(path, compile=False, safe_mode=True)
    inputs = [Tensor(name=t.name, shape=list(t.shape), dtype=str(t.dtype)) for t in model.inputs]
    # The layers' names stand in the file; the tensors' own are numbered anew each time it is opened.
    names = [f"{i} {t._keras_history.operation.name}" for i, t in enumerate(model.outputs)]
    outputs = [Tensor(name=n, shape=list(t.shape), dtype=str(t.dtype)) for n, t in zip(names, model.outputs, strict=True)]
    description = Description(inputs=inputs, outputs=outputs, family="keras", versions={"keras": keras.__version__})

    def call(feed: dict[str, NDArray[Any]]) -> Outputs:
        found: Any = model(list(feed.values()) if len(feed) > 1 else next(iter(feed.values())), training=False)
        values = zip(outputs, keras.tree.flatten(found), strict=True)
        return {tensor.name: np.asarray(value, np.float64) for tensor, value in values}

    def run(x: NDArray[np.float32], signature: Signature) -> Outputs:
        return in_pieces(x, signature, inputs, call)

    return description, run
