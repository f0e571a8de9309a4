"""Layers, kernels and distances to a C function `head(x, margin)`."""

from typing import Final

import numpy as np

from converter.cores import Distance, Kernel, Layers, Votes
from converter.to_c.text import Source, literal

_OPENS: Final = "EXACT static void head(const float *x, float *margin)\n{\n"
# `h < 0 ? 0 : h` and not `h > 0 ? h : 0`: a missing value stays one.
_ACTIVATIONS: Final = {
    "relu": "{0} < 0.0f ? 0.0f : {0}",
    "tanh": "tanhf({0})",
    "logistic": "0.5f + 0.5f * tanhf(0.5f * {0})",
}


def write_layers(head: Layers, source: Source) -> None:
    """Dense layers in float32; every input is added to all units at once, which compilers vectorize without reordering."""
    body, rows = "", "x"
    first = head.layers[0]
    if head.center is not None:
        features = first.weight.shape[0]
        body += f"  float c[{features}];\n  for (int i = 0; i < {features}; i++) c[i] = x[i] - {source.table(head.center)}[i];\n"
        rows = "c"
    for number, layer in enumerate(head.layers):
        inputs, units = layer.weight.shape
        bias = layer.bias
        if number == 0 and head.center is not None:
            bias = bias + head.center.astype(np.float64) @ layer.weight
        result = "margin" if number == len(head.layers) - 1 else f"h{number}"
        if result != "margin":
            body += f"  float {result}[{units}];\n"
        weight = source.table(layer.weight)
        body += (
            f"  for (int j = 0; j < {units}; j++) {result}[j] = 0.0f;\n"
            f"  for (int i = 0; i < {inputs}; i++) {{\n"
            f"    for (int j = 0; j < {units}; j++) {result}[j] += {rows}[i] * {weight}[i * {units} + j];\n  }}\n"
            f"  for (int j = 0; j < {units}; j++) {{\n    {result}[j] += {source.table(bias)}[j];\n"
        )
        if layer.activation != "identity":
            body += f"    {result}[j] = {_ACTIVATIONS[layer.activation].format(f'{result}[j]')};\n"
        body += "  }\n"
        rows = result
    source.function(f"{_OPENS}{body}}}\n")


def write_distance(head: Distance, source: Source) -> None:
    """|(x - mean) @ whitening| in float32; what the mean was rounded by is made good behind the product."""
    near = head.mean.astype(np.float32)
    rest = (near.astype(np.float64) - head.mean) @ head.whitening
    features, sides = head.whitening.shape
    value = "x[i]" if head.fill is None else f"(x[i] != x[i] ? {source.table(head.fill)}[i] : x[i])"
    body = (
        f"  float white[{sides}], square = 0.0f;\n"
        f"  for (int j = 0; j < {sides}; j++) white[j] = {source.table(rest)}[j];\n"
        f"  for (int i = 0; i < {features}; i++) {{\n"
        f"    const float centered = {value} - {source.table(near)}[i];\n"
        f"    for (int j = 0; j < {sides}; j++) white[j] += centered * {source.table(head.whitening)}[i * {sides} + j];\n  }}\n"
        f"  for (int j = 0; j < {sides}; j++) square += white[j] * white[j];\n  margin[0] = sqrtf(square);\n"
    )
    source.function(f"{_OPENS}{body}}}\n")


def write_kernel(head: Kernel, source: Source) -> None:
    """Support vectors, in float64 inside: the summands are large and cancel, and a vote must not turn round by a rounding.

    (x - mean) / scale - support is (x - vector) / scale, with the vector as the row that it was, mostly exact in float32.
    """
    rows = head.support * head.scale + head.mean
    again = (rows.astype(np.float32).astype(np.float64) - head.mean) / head.scale
    # A last bit of float64 is all that standardising back and forth may cost.
    exact = np.allclose(again, head.support, rtol=1e-13, atol=1e-13)
    vectors = source.table(rows, np.float32 if exact else np.float64)
    count, features = rows.shape
    decisions = head.dual.shape[1]
    inverse = source.table(1 / head.scale, np.float64)
    body = (
        f"  double d[{decisions}];\n"
        f"  for (int k = 0; k < {decisions}; k++) d[k] = {source.table(head.intercept, np.float64)}[k];\n"
        f"  for (int m = 0; m < {count}; m++) {{\n    double square = 0.0;\n    for (int i = 0; i < {features}; i++) {{\n"
        f"      const double far = ((double)x[i] - (double){vectors}[m * {features} + i]) * {inverse}[i];\n"
        f"      square += far * far;\n    }}\n    const double near = exp(square * {literal(np.float64(-head.gamma))});\n"
        f"    for (int k = 0; k < {decisions}; k++) d[k] += near * {source.table(head.dual, np.float64)}[m * {decisions} + k];\n  }}\n"
    )
    if head.votes is None:
        body += f"  for (int k = 0; k < {decisions}; k++) margin[k] = (float)d[k];\n"
    else:
        body += _votes(head.votes, source)
    source.function(f"{_OPENS}{body}}}\n")


def _votes(votes: Votes, source: Source) -> str:
    classes = len(votes.slope)
    return (
        f"  double votes[{classes}] = {{0.0}}, sums[{classes}] = {{0.0}};\n"
        f"  for (int i = 0, p = 0; i < {classes}; i++) {{\n    for (int j = i + 1; j < {classes}; j++, p++) {{\n"
        "      votes[d[p] < 0.0 ? j : i] += 1.0;\n      sums[i] += d[p];\n      sums[j] -= d[p];\n    }\n  }\n"
        f"  for (int k = 0; k < {classes}; k++) {{\n"
        "    const double worth = votes[k] + sums[k] / (3.0 * (fabs(sums[k]) + 1.0));\n"
        f"    margin[k] = (float)({source.table(votes.slope, np.float64)}[k] * worth + {source.table(votes.intercept, np.float64)}[k]);\n"
        "  }\n"
    )
