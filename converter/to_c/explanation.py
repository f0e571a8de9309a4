"""What moved an answer, in C: a second function of model.c that is exact, or not written at all.

Linear models by the closed form, trees by path-dependent TreeSHAP (`tree_explanation.py`). Everything else would need rows to compare with,
or a network of its own; the reason is said in model.h. Tables and functions that only the explanation needs can be left out by a macro.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from converter.cores import Core, Layers
from converter.explain.exact import Exact, exact_of
from converter.to_c.text import Source
from converter.to_c.tree_explanation import raw_index, write_tree_explanation
from converter.to_c.trees import Nodes
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage

_EXACT: Final = ("auto", "linear", "treeshap")


@dataclass(frozen=True)
class Explanation:
    """How a model in C is explained.

    Attributes:
        exact: What its function computes, None for nothing.
        reason: Why nothing, else "".
    """

    exact: Exact | None = None
    reason: str = ""


def explanation_of(core: Core, package: ModelPackage, wish: str) -> Explanation:
    """What a package's model gets.

    Args:
        core: The model.
        package: With steps and rows.
        wish: The project's `[explain] method`.
    """
    if wish == "none":
        return Explanation(reason="the project wants no explanation")
    if wish not in _EXACT:
        return Explanation(reason=f"C explains exactly or not at all, and the project wants {wish!r}")
    rows = package.rows("calibration").x
    steps = (package.steps(), *((core.front,) if core.front is not None else ()))
    try:
        exact = exact_of(core, rows if len(rows) else package.rows("background").x, len(package.inputs()), *steps)
    except VerdictError as err:
        return Explanation(reason=str(err))
    if wish not in ("auto", exact.method):
        return Explanation(reason=f"the project wants {wish!r}, and the model is explained by {exact.method!r}")
    return Explanation(exact)


def write_explanation(core: Core, exact: Exact, nodes: Nodes | None, before: Source) -> Source:
    """Write `static void explain(const float *x, int column, float *base, float *contributions)` of cleaned rows.

    Args:
        core: The model.
        exact: What is computed.
        nodes: Of trees, as `write_trees` wrote them; None for linear models.
        before: The model's own part.

    Raises:
        VerdictError: The constants become larger than the limit.
    """
    source = Source("e", before)
    base = source.table(exact.base)
    if nodes is not None:
        write_tree_explanation(nodes, core.margins, exact.sources, source)
        body = "  explain_trees(x, column, contributions);\n"
    else:
        body = _closed_form(core, exact, source)
    source.function(
        "EXACT static void explain(const float *x, int column, float *base, float *contributions)\n{\n"
        f"  for (int i = 0; i < {exact.inputs}; i++) contributions[i] = 0.0f;\n{body}  *base = {base}[column];\n}}\n"
    )
    return source


def _closed_form(core: Core, exact: Exact, source: Source) -> str:
    assert isinstance(core.head, Layers)  # noqa: S101  # `exact_of` calls nothing else linear
    assert exact.mean is not None  # noqa: S101  # and gives it a mean
    near = exact.mean.astype(np.float32)
    rest = (exact.mean - near).astype(np.float32)
    # A mean between two float32 is subtracted in two parts: its rounding may be large beside the spread.
    far = f"x[i] - {source.table(near)}[i]"
    far = f"({far}) - {source.table(rest)}[i]" if rest.any() else far
    weight = source.table(core.head.layers[0].weight)
    return (
        f"  for (int i = 0; i < {core.features}; i++) {{\n"
        f"    contributions[{raw_index(exact.sources, 'i', source)}] += ({far}) * {weight}[i * {core.margins} + column];\n  }}\n"
    )
