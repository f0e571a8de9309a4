"""An imported ONNX graph with our ends: `inputs` [n, F] float32 in, `margin` and, for classifiers, `probabilities` out.

Its own nodes are renamed by place and otherwise stay. Where it takes one row at a time, the batch is opened if the opened graph answers
rows together as it does one by one; else it stays one row at a time, which devices know.
"""

from typing import Any, Final

import msgspec
import numpy as np

from converter.calibrators import parse_calibrator
from converter.cores import Link
from converter.imported.batches import Opening, first_that_works
from converter.imported.onnx_file import OnnxFile, nodes_of, open_onnx
from converter.imported.signature import columns_of, graph_signature, row_sides
from converter.to_onnx.canonical import canonical
from converter.to_onnx.graphs import IR_VERSION, Nodes
from converter.to_onnx.probabilities import calibrated, pair
from converter.to_onnx.steps import merge_bytes
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature

CALIBRATOR_NAME: Final = "calibrator.json"
_LEAST_SHARE: Final = 1e-12
_NEWEST_OF_OLD_IR: Final = 17


def wrapped_onnx(package: ModelPackage) -> bytes:
    """The graph of a package whose model is an .onnx file, its cleaning steps in front of it.

    Raises:
        VerdictError: It cannot be wrapped; why.
        ArtifactError: A file of the package is damaged.
    """
    signature, steps = graph_signature(package), package.steps()
    file = open_onnx(package.read(package.index.model), signature)

    def assembled(opening: Opening) -> bytes:
        return merge_bytes(steps, _assembled(file, signature, package, opening))

    return first_that_works(assembled, file.batch, package, _asked)


def _asked(content: bytes, x: Any) -> Any:
    """Margins of rows at once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(["margin"], {"inputs": x})[0]


def _assembled(file: OnnxFile, signature: Signature, package: ModelPackage, opening: Opening) -> bytes:
    shape = [int(side) for side in package.steps().output_shape]
    classes = len(package.index.classes) if package.index.task == "classification" else 0
    values = int(np.prod(shape))
    graph = Nodes()
    model = type(file.model)()
    model.CopyFrom(file.model)
    if opening == "mended":
        _mend(model, file.batch or 1)
    rows, *ends = _unused(model.graph, ["model:rows", "model:raw"] + (["model:end"] if file.end else []))
    _front(graph, file, row_sides(signature, values), shape, rows)
    source = file.input
    model.graph.input[0].name = rows
    model.graph.node.insert(0, _identity(rows, source))
    model.graph.node.extend(_identity(name, end) for name, end in zip([file.raw, file.end], ends, strict=False))
    nodes, constants = canonical(model.graph, ends)
    graph.nodes += nodes
    graph.constants += constants
    columns = columns_of(signature, classes, values)
    raw = _flat(graph, ends[0], columns, "raw")
    if file.order is not None:
        raw = graph.node("Gather", [raw, graph.constant(file.order, "class_order", np.int64)], "ordered", axis=1)
    end = _flat(graph, ends[1], columns, "end") if file.end else ""
    widths = _tail(graph, signature, raw, end, values, package)
    return _finished(graph, file, shape, widths, opening)


def _unused(graph: Any, names: list[str]) -> list[str]:
    """The names, changed where the graph has them already: it may be one of ours, wrapped before."""
    taken = {name for node in nodes_of(graph) for name in [*node.input, *node.output]} | {tensor.name for tensor in graph.initializer}
    found = []
    for name in names:
        while name in taken:
            name += "'"  # noqa: PLW2901  # until nobody has it
        found.append(name)
    return found


def _front(graph: Nodes, file: OnnxFile, sides: list[int], shape: list[int], result: str) -> None:
    """The rows as the graph's tensor, under the name `result`, of its own: a stranger's value may be called `inputs` too."""
    from onnx import TensorProto

    rows = "inputs"
    if sides != shape:
        rows = graph.node("Reshape", [rows, graph.constant([-1, *sides], "model:sides", np.int64)], "model:shaped")
    if file.input_kind != TensorProto.FLOAT:
        rows = graph.node("Cast", [rows], "model:typed", to=file.input_kind)
    graph.node("Identity", [rows], result)


def _identity(source: str, result: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [source], [result])


def _flat(graph: Nodes, name: str, columns: int, result: str) -> str:
    """[n, columns] float32 of an output of any rank and float type."""
    from onnx import TensorProto

    typed = graph.node("Cast", [name], f"{result}:typed", to=TensorProto.FLOAT)
    return graph.node("Reshape", [typed, graph.constant([-1, columns], f"{result}:sides", np.int64)], f"{result}:flat")


def _tail(graph: Nodes, signature: Signature, raw: str, end: str, values: int, package: ModelPackage) -> dict[str, int]:
    """Write `margin` and `probabilities`; columns of each."""
    meaning, classes = signature.meaning, len(package.index.classes)
    if meaning in ("value", "score"):
        graph.node("Neg" if signature.sign < 0 else "Identity", [raw], "margin")
        return {"margin": 1}
    if meaning == "reconstruction":
        flat = graph.node("Reshape", ["inputs", graph.constant([-1, values], "row_sides", np.int64)], "row")
        apart = graph.node("Sub", [raw, flat], "apart")
        total = graph.node("ReduceSum", [graph.node("Mul", [apart, apart], "squares"), graph.constant([1], "columns", np.int64)], "sum")
        graph.node("Mul", [total, graph.constant(1 / values, "share")], "margin")
        return {"margin": 1}
    link, margins, shares = _classified(graph, meaning, raw, end, classes)
    if CALIBRATOR_NAME in package.index.files:
        calibrator = parse_calibrator(msgspec.json.decode(package.read(CALIBRATOR_NAME)), classes)
        calibrated(graph, calibrator, "margin", shares, link)
    else:
        graph.node("Identity", [shares], "probabilities")
    return {"margin": margins, "probabilities": classes}


def _classified(graph: Nodes, meaning: str, raw: str, end: str, classes: int) -> tuple[Link, int, str]:
    """Write `margin`; how probabilities come of it, its columns, and the name of the model's own probabilities."""
    if meaning in ("logit", "sigmoid"):
        odds = raw if meaning == "logit" else end or _log_odds(graph, raw)
        graph.node("Identity", [odds], "margin")
        return "logistic", 1, pair(graph, "margin", "shares")
    if meaning == "logits":
        graph.node("Identity", [raw], "margin")
        return "softmax", classes, graph.node("Softmax", ["margin"], "shares", axis=1)
    shares = raw
    if not end:  # not made by a softmax: rounded, or not quite of sum 1
        positive = graph.node("Max", [raw, graph.constant(0.0, "nothing_less")], "positive")
        total = graph.node("ReduceSum", [positive, graph.constant([1], "all_classes", np.int64)], "total", keepdims=1)
        least = graph.constant(_LEAST_SHARE, "least_total")
        shares = graph.node("Div", [positive, graph.node("Max", [total, least], "some_total")], "shares")
        logs = graph.node("Log", [graph.node("Max", [shares, graph.constant(_LEAST_SHARE, "least_log")], "loggable")], "logs")
    graph.node("Identity", [end or logs], "margin")
    return "softmax", classes, shares


def _log_odds(graph: Nodes, second: str) -> str:
    least = graph.constant(_LEAST_SHARE, "least_log")
    first = graph.node("Sub", [graph.constant(1.0, "whole"), second], "first")
    logs = [graph.node("Log", [graph.node("Max", [share, least], f"{share}:kept")], f"{share}:log") for share in (second, first)]
    return graph.node("Sub", logs, "odds")


def _mend(model: Any, batch: int) -> None:
    """Let reshapes to one row (a constant first side as large as the batch) take any number of rows."""
    from onnx import numpy_helper

    graph = model.graph
    places = {tensor.name: tensor for tensor in graph.initializer}
    made = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")}
    for i, node in enumerate(graph.node):
        shape = places.get(node.input[1], made.get(node.input[1])) if node.op_type == "Reshape" else None
        if shape is None:
            continue
        sides = numpy_helper.to_array(shape)
        if sides.ndim == 1 and len(sides) > 1 and int(sides[0]) == batch and -1 not in sides:
            # A constant of its own: others may read the old one.
            (name,) = _unused(graph, [f"model:sides{i}"])
            graph.initializer.append(numpy_helper.from_array(np.array([-1, *sides[1:]], np.int64), name))
            node.input[1] = name


def _finished(graph: Nodes, file: OnnxFile, shape: list[int], widths: dict[str, int], opening: Opening) -> bytes:
    from onnx import TensorProto, checker, helper

    first: str | int = 1 if opening == "one row" else "n"

    def tensor(name: str, *sides: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, *sides])

    ends = [tensor(name, width) for name, width in widths.items()]
    written = helper.make_graph(graph.nodes, "edgefleet", [tensor("inputs", *shape)], ends, graph.constants)
    # Those of loops and branches too.
    domains = sorted({"" if node.domain == "ai.onnx" else node.domain for node in nodes_of(written)} | {""})
    versions = {"" if entry.domain == "ai.onnx" else entry.domain: int(entry.version) for entry in file.model.opset_import}
    opsets = [helper.make_opsetid(domain, versions.get(domain, 1)) for domain in domains]
    version = IR_VERSION if versions[""] <= _NEWEST_OF_OLD_IR else max(IR_VERSION, int(file.model.ir_version))
    model = helper.make_model(written, producer_name="edgefleet", opset_imports=opsets, ir_version=version)
    try:
        checker.check_model(model, full_check=True)
    except Exception as err:  # the checker and shape inference raise two unrelated kinds
        raise VerdictError(f"the wrapped graph is invalid: {' '.join(str(err).split())[:200]}") from err
    return bytes(model.SerializeToString(deterministic=True))
