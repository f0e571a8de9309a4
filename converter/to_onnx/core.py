"""A core to an ONNX graph of the standard operators and TreeEnsembleRegressor (ai.onnx.ml 3); every form of `converter.cores.core`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from converter.calibrators import parse_calibrator
from converter.cores import Core, Distance, Kernel, Layers, Trees, Votes
from converter.to_onnx.graphs import Nodes, finish
from converter.to_onnx.probabilities import calibrated, linked
from converter.to_onnx.steps import merge_bytes
from converter.to_onnx.trees import write_trees
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "logistic": "Sigmoid"}


def core_to_onnx(core: Core, steps: Steps | None = None) -> bytes:
    """The whole model: `inputs` raw rows, the outputs `margin` and, for classifiers, `probabilities`.

    Args:
        core: The model.
        steps: Cleaning in front of it; None for none.

    Raises:
        VerdictError: The graph would be invalid or too large.
    """
    if core.front is not None:
        if steps is not None and not steps.is_identity:
            raise VerdictError("a pipeline that cleans its own rows cannot stand behind cleaning steps; import it without them")
        steps = core.front
    shape = steps.output_shape if steps is not None else (core.features,)
    graph = Nodes()
    rows = "inputs"
    if len(shape) > 1:
        rows = graph.node("Reshape", [rows, graph.constant([-1, core.features], "row", np.int64)], "flat")
    margin = _head(core, graph, rows)
    if core.classes:
        if core.calibrator is None:
            linked(graph, margin, core.link, "probabilities")
        else:
            shares = linked(graph, margin, core.link, "own_probabilities")
            calibrated(graph, parse_calibrator(core.calibrator, core.classes), margin, shares, core.link)
    written = finish(
        graph.nodes, _once(graph), features=core.features, margins=core.margins, classes=core.classes, shape=[int(side) for side in shape]
    )
    return merge_bytes(steps, written) if steps is not None else written


def _once(graph: Nodes) -> Sequence[object]:
    """The constants, each name once: shared ones are asked for where they are needed."""
    return list({constant.name: constant for constant in graph.constants}.values())


def _head(core: Core, graph: Nodes, rows: str) -> str:
    head = core.head
    if isinstance(head, Trees):
        return write_trees(head, graph, rows)
    if isinstance(head, Layers):
        return _layers(head, graph, rows)
    return _kernel(head, graph, rows) if isinstance(head, Kernel) else _distance(head, graph, rows)


def _layers(head: Layers, graph: Nodes, rows: str) -> str:
    center = head.center
    if center is not None:
        rows = graph.node("Sub", [rows, graph.constant(center, "center")], "centered")
    for i, layer in enumerate(head.layers):
        last = i == len(head.layers) - 1
        bias = layer.bias if i or center is None else layer.bias + center.astype(np.float64) @ layer.weight
        result = "margin" if last and layer.activation == "identity" else f"dense{i}"
        rows = graph.node("Gemm", [rows, graph.constant(layer.weight, f"weight{i}"), graph.constant(bias, f"bias{i}")], result)
        if layer.activation != "identity":
            rows = graph.node(_ACTIVATIONS[layer.activation], [rows], "margin" if last else f"active{i}")
    return rows


def _distance(head: Distance, graph: Nodes, rows: str) -> str:
    if head.fill is not None:
        missing = graph.node("IsNaN", [rows], "missing")
        rows = graph.node("Where", [missing, graph.constant(head.fill, "fill"), rows], "filled")
    # Near the mean the difference of two float32 is exact; what the mean itself was rounded by is made good behind the product.
    near = head.mean.astype(np.float32)
    rest = (near.astype(np.float64) - head.mean) @ head.whitening
    centered = graph.node("Sub", [rows, graph.constant(near, "mean")], "centered")
    white = graph.node("Gemm", [centered, graph.constant(head.whitening, "whitening"), graph.constant(rest, "rest")], "white")
    return graph.node("ReduceL2", [white], "margin", axes=[1], keepdims=1)


def _kernel(head: Kernel, graph: Nodes, rows: str) -> str:
    """In float64 inside: squared distances as products cancel, and a vote must not turn round by a rounding.

    The vectors are kept as the float32 rows that they were, where they were such rows, and standardised when the graph is loaded.
    """
    from onnx import TensorProto

    kind = np.float64
    mean, scale = graph.constant(head.mean, "mean", kind), graph.constant(head.scale, "scale", kind)
    wide = graph.node("Cast", [rows], "wide", to=TensorProto.DOUBLE)
    z = graph.node("Div", [graph.node("Sub", [wide, mean], "wide_centered"), scale], "standard")
    support = _support(head, graph, mean, scale)
    axis = graph.constant([1], "support_axis", np.int64)
    lengths = graph.node("ReduceSum", [graph.node("Mul", [z, z], "standard_squares"), axis], "standard_length", keepdims=1)
    across = graph.node("MatMul", [z, graph.node("Transpose", [support], "support_across", perm=[1, 0])], "products")
    twice = graph.node("Mul", [across, graph.constant(-2.0, "minus_two", kind)], "products_twice")
    squares = graph.node("Add", [graph.node("Add", [twice, lengths], "squares_own"), _lengths(head, graph)], "squares")
    near = graph.node("Exp", [graph.node("Mul", [squares, graph.constant(-head.gamma, "minus_gamma", kind)], "exponent")], "kernel")
    weighted = graph.node("MatMul", [near, graph.constant(head.dual, "dual", kind)], "weighted")
    decided = graph.node("Add", [weighted, graph.constant(head.intercept, "intercepts", kind)], "decisions")
    result = decided if head.votes is None else _voted(head.votes, graph, decided)
    return graph.node("Cast", [result], "margin", to=TensorProto.FLOAT)


def _lengths(head: Kernel, graph: Nodes) -> str:
    return graph.constant(np.square(head.support).sum(axis=1), "support_length", np.float64)


def _support(head: Kernel, graph: Nodes, mean: str, scale: str) -> str:
    from onnx import TensorProto

    rows = (head.support * head.scale + head.mean).astype(np.float32)
    again = (rows.astype(np.float64) - head.mean) / head.scale
    # A last bit of float64 is all that standardising back and forth may cost.
    if not np.allclose(again, head.support, rtol=1e-13, atol=1e-13):
        return graph.constant(head.support, "support", np.float64)
    wide = graph.node("Cast", [graph.constant(rows, "support_rows")], "support_wide", to=TensorProto.DOUBLE)
    return graph.node("Div", [graph.node("Sub", [wide, mean], "support_centered"), scale], "support")


def _voted(votes: Votes, graph: Nodes, decided: str) -> str:
    """Votes and confidence by one product each with the matrix of who is asked."""
    from onnx import TensorProto

    classes, kind = len(votes.slope), np.float64
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    sign: NDArray[np.float64] = np.zeros((len(pairs), classes))
    for p, (i, j) in enumerate(pairs):
        sign[p, i], sign[p, j] = 1.0, -1.0
    asked = graph.constant(sign, "sides", kind)
    against = graph.node("Less", [decided, graph.constant(0.0, "tie", kind)], "against")
    lost = graph.node("Cast", [against], "lost", to=TensorProto.DOUBLE)
    # i has a vote unless it lost, j has one if i lost: (1 - lost) for i, lost for j.
    given = graph.node(
        "Sub", [graph.constant((sign > 0).sum(axis=0), "all_votes", kind), graph.node("MatMul", [lost, asked], "turned")], "votes"
    )
    confidence = graph.node("MatMul", [decided, asked], "confidence")
    size = graph.node("Add", [graph.node("Abs", [confidence], "confidence_size"), graph.constant(1.0, "vote_one", kind)], "confidence_more")
    bounded = graph.node(
        "Div", [confidence, graph.node("Mul", [size, graph.constant(3.0, "thrice", kind)], "confidence_limit")], "tie_break"
    )
    worth = graph.node("Add", [given, bounded], "worth")
    sloped = graph.node("Mul", [worth, graph.constant(votes.slope, "vote_slope", kind)], "worth_sloped")
    return graph.node("Add", [sloped, graph.constant(votes.intercept, "vote_intercept", kind)], "vote_margin")
