"""Mixed precision: an integer variant that fails its gate gets its most damaged layers back as float, one more each time, until it passes.

Which layers suffer most is measured once (`converter.quantize.mixed`). The cost shows in the table: the variant that passes is larger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from converter.isolate import ChildFailed, run_isolated
from converter.recipes import RECIPES, Recipe
from converter.workshop import TIMEOUT_S, Graph, read_graph

if TYPE_CHECKING:
    from converter.conversion import VariantReport
    from converter.planning import Plan

MAX_ROUNDS: Final = 4
_STATIC: Final = frozenset({"onnx-int8", "tflite-int8"})
# Gates that say that the answers changed; budgets and explanations are no reason to keep layers float.
_ABOUT_ANSWERS: Final = frozenset({"C1", "C2", "C3", "C4"})


@dataclass(frozen=True)
class Mixed:
    """A graph and its verdict."""

    graph: Graph
    report: "VariantReport"


def mix(plan: "Plan", recipe: Recipe, first: Mixed, judge: Callable[[Recipe, Graph], "VariantReport"]) -> Mixed:
    """The first variant, or one with some layers float that passes where the first fails.

    Args:
        plan: The conversion.
        recipe: The target.
        first: All layers integer, and its verdict.
        judge: Runs and judges a graph.
    """
    if recipe.target not in _STATIC or not recipe.source or not _answers_changed(first.report):
        return first
    source = Path(plan.job(recipe.source, RECIPES[recipe.source].suffix).result)
    job = msgspec.structs.replace(plan.job(recipe.target, recipe.suffix), source=str(source))
    try:
        layers = run_isolated("converter.quantize.mixed:sensitivity", msgspec.to_builtins(job), timeout_s=TIMEOUT_S)["layers"]
    except ChildFailed as err:
        plan.progress(recipe.target, f"no layer can be kept float: {err.reason}")
        return first
    names = [str(layer["name"]) for layer in layers]
    for count in range(1, min(MAX_ROUNDS, len(names) - 1) + 1):
        keep = names[:count]
        plan.progress(recipe.target, f"tried again with {', '.join(keep)} as float")
        again = msgspec.structs.replace(job, keep_float=keep)
        try:
            graph = read_graph(Path(job.result), run_isolated(recipe.writer, msgspec.to_builtins(again), timeout_s=TIMEOUT_S))
        except ChildFailed:
            continue
        report = judge(recipe, graph)
        if not _answers_changed(report):
            return Mixed(graph, report)
    return first


def _answers_changed(report: "VariantReport") -> bool:
    return any(gate.gate in _ABOUT_ANSWERS and gate.verdict == "fail" for gate in report.gates)
