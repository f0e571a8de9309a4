"""Imported scikit-learn models that have no core, through skl2onnx: what is known to convert wrongly in silence is refused by name.

Where only the transformers have no core, skl2onnx converts these alone, and the model behind them is written from its own arrays. The
margin is then the core's, else the logarithm of the probabilities (target unit for values). Thresholds behind computed columns may still
decide ties otherwise than scikit-learn does in float64: that is what the parity rows are for.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from converter.cores import Trees
from converter.cores.reading import estimator_core
from converter.to_onnx.core import core_to_onnx
from converter.to_onnx.graphs import OPSET, OPSET_ML, Nodes, finish, in_canonical_form
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage

_LEAST_SHARE: Final = 1e-12
_NATIVE_MISSING: Final = ("RandomForest", "ExtraTree", "DecisionTree")
_PARTS: Final = (
    "steps", "transformers_", "estimators_", "named_estimators_", "calibrated_classifiers_", "estimator", "estimator_", "final_estimator_",
)  # fmt: skip
_LOOPS: Final = ("KNeighborsClassifier", "KNeighborsRegressor", "RadiusNeighborsClassifier", "GaussianProcessRegressor")
# Their answers at training values lie on splits behind them, and float32 puts these on the other side: 296 of 2,000 rows were wrong.
_STEPPED: Final = ("QuantileTransformer", "KBinsDiscretizer", "SplineTransformer")
_WIDE: Final = "wide_inputs"
_ANSWER: Final = "foreign_answer"


def foreign_to_onnx(package: ModelPackage) -> bytes:
    """The graph of an imported model.

    Raises:
        VerdictError: It would be wrong, or skl2onnx cannot convert it; why.
    """
    from converter.originals import load_estimator

    index = package.index
    if not package.steps().is_identity:
        raise VerdictError("an imported model stands behind cleaning steps, which its file does not know; import it without them")
    if index.task == "anomaly":
        raise VerdictError("an imported detector without a core is not converted: its score's sign and offset differ; use IsolationForest")
    if any(column.kind == "category" for column in package.inputs()):
        raise VerdictError("an imported model takes texts behind transformers without a core, which is not converted: encode them first")
    model = load_estimator(package)
    columns = len(package.inputs())
    may_be_missing = any(column.missing for column in package.inputs())
    return estimator_to_onnx(model, columns, len(index.classes), may_be_missing=may_be_missing)


def estimator_to_onnx(model: Any, columns: int, classes: int, *, may_be_missing: bool = False) -> bytes:
    """The graph of a fitted estimator on a matrix of numbers.

    Args:
        model: The estimator.
        columns: Of a row.
        classes: Of its answer; 0 for a value.
        may_be_missing: Whether rows may hold missing values.

    Raises:
        VerdictError: See `foreign_to_onnx`.
    """
    for part in _parts(model):
        _refuse(part, may_be_missing)
        if type(part).__name__ == "VotingClassifier":
            part.flatten_transform = False  # changes `transform` only, and is the form that skl2onnx converts
    whole = _with_own_model(model, columns)
    return whole if whole is not None else by_skl2onnx(model, columns, classes)


def _parts(model: Any) -> Iterator[Any]:
    """The estimator and everything inside it."""
    yield model
    for name in _PARTS:
        inner = getattr(model, name, None)
        values = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, list | tuple | np.ndarray) else [inner]
        for value in np.ravel(np.array([None, *values], object))[1:] if isinstance(inner, np.ndarray) else values:
            part = value[1] if isinstance(value, tuple) else value
            if hasattr(part, "get_params") or type(part).__name__ == "_CalibratedClassifier":
                yield from _parts(part)


def _refuse(part: Any, may_be_missing: bool) -> None:
    name = type(part).__name__
    if name.startswith("HistGradientBoosting") and getattr(part, "is_categorical_", None) is not None and np.any(part.is_categorical_):
        raise VerdictError(f"{name} with categorical_features inside another model is not converted: skl2onnx takes them for numbers")
    if name.startswith(_NATIVE_MISSING) and may_be_missing:
        raise VerdictError(f"{name} inside another model is not converted where inputs may be missing: skl2onnx loses the side they take")
    if name in _LOOPS:
        raise VerdictError(f"{name} is not converted to ONNX: its graph would hold a loop and the training rows")


def _with_own_model(model: Any, columns: int) -> bytes | None:
    """Transformers by skl2onnx and the last model by its core, None where there is no such core."""
    if type(model).__name__ != "Pipeline" or len(model.steps) < 2:
        return None
    from onnx import TensorProto, compose, load_from_string

    try:
        core = estimator_core(model.steps[-1][1])
    except VerdictError:
        return None
    stepped = [name for name in (type(part).__name__ for part in _parts(model[:-1])) if name in _STEPPED]
    if stepped and isinstance(core.head, Trees):
        raise VerdictError(f"trees behind {stepped[0]} are not converted: rounding would move rows across their splits; train without it")
    # The transformers in float64, as scikit-learn computes them: a last bit of float32 would move rows across the splits of trees.
    if isinstance(core.head, Trees):
        nodes, constants = _canonical(_converted(model[:-1], columns, {}, wide=True))
    else:
        nodes, constants = _canonical(_converted(model[:-1], columns, {}))
    behind = load_from_string(core_to_onnx(core))
    renamed = compose.add_prefix(behind, "model:", rename_outputs=False)
    own = Nodes()
    if isinstance(core.head, Trees):
        own.node("Cast", ["inputs"], _WIDE, to=TensorProto.DOUBLE)
    own.nodes += nodes
    own.node("Cast", [_ANSWER], "model:inputs", to=TensorProto.FLOAT)
    own.nodes += list(renamed.graph.node)
    own.constants += [*constants, *renamed.graph.initializer]
    return finish(own.nodes, own.constants, features=columns, margins=core.margins, classes=core.classes)


def by_skl2onnx(model: Any, columns: int, classes: int) -> bytes:
    """skl2onnx's own graph of the whole model, with our names; `classes` 0 for a value."""
    converted = _converted(model, columns, {id(model): {"zipmap": False}} if classes else {})
    nodes, constants = _canonical(converted)
    graph = Nodes()
    graph.nodes += nodes
    graph.constants += constants
    if not classes:
        graph.node("Reshape", [_ANSWER, graph.constant([-1, 1], "one_column", np.int64)], "margin")
    else:
        graph.node("Identity", [_ANSWER], "probabilities")
        graph.node("Log", [graph.node("Max", [_ANSWER, graph.constant(_LEAST_SHARE, "least_share")], "kept_shares")], "margin")
    return finish(graph.nodes, graph.constants, features=columns, margins=classes or 1, classes=classes)


def _canonical(converted: Any) -> tuple[list[Any], list[Any]]:
    """Nodes and constants of the graph's last output, which is called _ANSWER."""
    from onnx import helper

    converted.graph.node.append(helper.make_node("Identity", [converted.graph.output[-1].name], [_ANSWER]))
    return in_canonical_form(converted.graph, [_ANSWER])


def _converted(model: Any, columns: int, options: dict[Any, Any], *, wide: bool = False) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    takes = (_WIDE, DoubleTensorType([None, columns])) if wide else ("inputs", FloatTensorType([None, columns]))

    try:
        return to_onnx(
            model,
            initial_types=[takes],
            options=options,
            target_opset={"": OPSET, "ai.onnx.ml": OPSET_ML},
        )
    except Exception as err:  # skl2onnx raises a dozen kinds, some of them 50,000 lines long
        reason = " ".join(str(err)[:1000].split())[:200]
        raise VerdictError(f"skl2onnx does not convert {type(model).__name__}: {reason}") from err
