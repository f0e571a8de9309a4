"""From margins to probabilities, and the package's calibrator, as ONNX nodes; see `converter.calibrators` for the maths."""

import numpy as np

from converter.calibrators import LEAST_SHARE, LIMIT, Calibrator, Curve, Odds, Powers
from converter.cores import Link
from converter.to_onnx.graphs import Nodes


def linked(graph: Nodes, margin: str, link: Link, result: str) -> str:
    """Probabilities [n, classes] of margins [n, K]; every link but `none`."""
    if link == "logistic":
        return pair(graph, margin, result)
    if link == "softmax":
        return graph.node("Softmax", [margin], result, axis=1)
    if link == "ovr":
        # The softmax of the logistics' logarithms is each over their sum, and stays finite where all of them vanish.
        against = graph.node("Softplus", [graph.node("Neg", [margin], "ovr_negative")], "ovr_softplus")
        return graph.node("Softmax", [graph.node("Neg", [against], "ovr_logs")], result, axis=1)
    return graph.node("Identity", [margin], result)


def pair(graph: Nodes, logit: str, result: str) -> str:
    """[n, 2] probabilities of the logit [n, 1] of the second class; softmax([-m/2, m/2]) is exact in both tails, 1 - p would not be."""
    both = graph.node("Concat", [graph.node("Neg", [logit], f"{result}_negative"), logit], f"{result}_both", axis=1)
    halved = graph.node("Mul", [both, graph.constant(0.5, f"{result}_half")], f"{result}_halved")
    return graph.node("Softmax", [halved], result, axis=1)


def calibrated(graph: Nodes, calibrator: Calibrator, margin: str, probabilities: str, link: Link) -> str:
    """Write `probabilities`, calibrated.

    Args:
        graph: Where to.
        calibrator: The package's.
        margin: Name of [n, K].
        probabilities: Name of [n, classes] as the model gives them.
        link: How it gives them.
    """
    result = "probabilities"
    if isinstance(calibrator, Powers):
        powers = graph.node("Mul", [_logs(graph, probabilities), graph.constant(calibrator.slope, "temperature")], "sharpened")
        return graph.node("Softmax", [powers], result, axis=1)
    if isinstance(calibrator, Odds):
        scaled = graph.node("Mul", [_odds(graph, margin, probabilities, link), graph.constant(calibrator.slope, "slope")], "sloped")
        return pair(graph, graph.node("Add", [scaled, graph.constant(calibrator.intercept, "intercept")], "calibrated_logit"), result)
    curves = list(calibrator.curves)
    if len(curves) == 1:
        second = _along(graph, probabilities, curves, [1])
        return graph.node("Concat", [graph.node("Sub", [graph.constant(1.0, "one"), second], "first_share"), second], result, axis=1)
    found = _along(graph, probabilities, curves, list(range(len(curves))))
    total = graph.node("ReduceSum", [found, graph.constant([1], "class_axis", np.int64)], "curve_total", keepdims=1)
    some = graph.node("Greater", [total, graph.constant(0.0, "nothing")], "curve_some")
    safe = graph.node("Where", [some, total, graph.constant(1.0, "one")], "curve_safe")
    return graph.node("Where", [some, graph.node("Div", [found, safe], "curve_shares"), probabilities], result)


def _logs(graph: Nodes, probabilities: str) -> str:
    return graph.node("Log", [graph.node("Max", [probabilities, graph.constant(LEAST_SHARE, "least_share")], "kept_shares")], "log_shares")


def _odds(graph: Nodes, margin: str, probabilities: str, link: Link) -> str:
    """[n, 1] log-odds of the second of two classes, kept inside +-LIMIT."""
    odds = margin
    if link != "logistic":  # of two shares: both are exact where they are small
        place = [graph.constant([k], f"class{k}", np.int64) for k in (0, 1)]
        logs = _logs(graph, probabilities)
        both = [graph.node("Gather", [logs, place[k]], f"log_share{k}", axis=1) for k in (0, 1)]
        odds = graph.node("Sub", [both[1], both[0]], "log_odds")
    return graph.node("Clip", [odds, graph.constant(-LIMIT, "least_odds"), graph.constant(LIMIT, "most_odds")], "kept_odds")


def _along(graph: Nodes, probabilities: str, curves: list[Curve], columns: list[int]) -> str:
    """[n, curves] answers; all segments of all curves side by side, added up by one product."""
    low = np.concatenate([curve.low for curve in curves])
    inverse = np.concatenate([curve.inverse_width for curve in curves])
    counts = [len(curve.rise) for curve in curves]
    if not len(low):  # curves of one step each
        low, inverse, counts = np.zeros(1), np.ones(1), [1, *[0] * (len(curves) - 1)]
        curves = [Curve(curve.start, curve.low, curve.inverse_width, np.zeros(n)) for curve, n in zip(curves, counts, strict=True)]
    rise = np.zeros((len(low), len(curves)))
    for k, end in enumerate(np.cumsum(counts)):
        rise[end - counts[k] : end, k] = curves[k].rise
    column = np.repeat(columns, counts)
    share = graph.node("Gather", [probabilities, graph.constant(column, "segment_class", np.int64)], "segment_share", axis=1)
    inside = graph.node("Sub", [share, graph.constant(low, "segment_low")], "segment_inside")
    part = graph.node("Mul", [inside, graph.constant(inverse, "segment_inverse_width")], "segment_part")
    ends = [graph.constant(0.0, "segment_start"), graph.constant(1.0, "segment_end")]
    reached = graph.node("Clip", [part, *ends], "segment_reached")
    start = graph.constant([curve.start for curve in curves], "curve_start")
    return graph.node("Gemm", [reached, graph.constant(rise, "segment_rise"), start], "curve_share")
