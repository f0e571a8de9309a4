"""What stands beside the variants of a bundle: what explains them, and the outlier detector.

All of it is made in children. What cannot be made is a reason, not an error, unless the project named it.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec

from converter.explain.halved import GRAPHS, HALVED
from converter.isolate import ChildFailed
from converter.outlier import detector_of
from converter.planning import Plan
from converter.recipes import RECIPES
from converter.workshop import Graph, Task, make_all
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, EdgefleetError, VerdictError
from edgefleet.graphs import check_graph
from edgefleet.manifest import ExplainMethod as Explained
from edgefleet.manifest import Runtime

_OUTLIERS: Final[dict[Runtime, tuple[str, str]]] = {
    "onnxruntime": ("outlier.onnx", "converter.to_onnx.make:make_outlier"),
    "litert": ("outlier.tflite", "converter.to_tflite.make:make_outlier"),
}
_EXPLAIN_TFLITE: Final = "explain.tflite"


@dataclass(frozen=True)
class Explainer:
    """What explains the variants.

    Attributes:
        content: The file that the device's agent reads.
        method: How it explains.
        graphs: The same as a graph, by runtime.
        reasons: Why a runtime has no graph although the method is exact.
        own: By target: what explains a variant that holds other numbers than the float model.
    """

    content: bytes
    method: Explained
    graphs: dict[Runtime, bytes] = field(default_factory=dict)
    reasons: dict[Runtime, str] = field(default_factory=dict)
    own: dict[str, "Explainer"] = field(default_factory=dict)

    def of(self, target: str) -> "Explainer":
        """What explains the variant of a target."""
        return self.own.get(target, self)


@dataclass(frozen=True)
class Outlier:
    """The outlier detector's graphs by runtime, and why a runtime has none."""

    files: dict[Runtime, tuple[str, bytes]]
    method: str
    threshold: float
    reason: str


def explain(plan: Plan, graphs: dict[str, Graph]) -> tuple[Explainer | None, list[str], str]:
    """(what explains, sentences for the card, why nothing does)."""
    if plan.explain == "none":
        return None, [], "the project wants no explanation"
    # A graph that was imported as integers has no float twin.
    known = [target for target in graphs if RECIPES[target].runtime != "c"]
    source = next((target for target in ("onnx-fp32", "tflite-fp32", *known) if target in graphs), None)
    folder = plan.folder / "explanation"
    folder.mkdir()
    job = {
        "method": plan.explain,
        "graph": str(Path(plan.job(source, RECIPES[source].suffix).result)) if source else "",
        "runtime": RECIPES[source].runtime if source else "",
        "folder": str(folder),
        "halved": [target for target in HALVED if target in graphs],
        "integers": {target: str(Path(plan.job(target, RECIPES[target].suffix).result)) for target in graphs if _is_integer(target)},
    }
    inputs = {"method": plan.explain, "graph": sha256_hex(graphs[source].content) if source else "", "runtime": job["runtime"]}
    inputs["halved"] = job["halved"]
    inputs["integers"] = {target: sha256_hex(graphs[target].content) for target in job["integers"]}
    plan.progress("explanation", "started")
    try:
        done, how = plan.child("explanation", "converter.explain.building:make", job, inputs)
    except ChildFailed as err:
        if plan.explain != "auto":
            raise VerdictError(f"[explain] method {plan.explain!r}: {err.reason}") from err
        plan.progress("explanation", err.reason)
        return None, [f"Not explained: {err.reason}"], err.reason
    plan.progress("explanation", how)
    graphs_made = {runtime: Path(path).read_bytes() for runtime, path in done["graphs"].items()}
    try:
        for runtime, graph in graphs_made.items():
            check_graph(graph, runtime, f"the explainer's graph for {runtime}")
    except ArtifactError as err:
        if plan.explain != "auto":
            raise VerdictError(f"[explain] method {plan.explain!r}: {err}") from err
        return None, [f"Not explained: {err}"], str(err)
    method = msgspec.convert(done["method"], Explained)
    own = {target: Explainer(Path(path).read_bytes(), method) for target, path in done["own"].items()}
    return Explainer(Path(done["file"]).read_bytes(), method, graphs_made, dict(done["reasons"]), own), list(done["notes"]), ""


def _is_integer(target: str) -> bool:
    return RECIPES[target].precision == "int8"


def further(plan: Plan, explainer: Explainer | None) -> tuple[Outlier | None, Explainer | None]:
    """The outlier detector's graphs and the explanation's for LiteRT, whose writers are children that work side by side."""
    runtimes = {recipe.runtime for recipe in plan.recipes}
    tasks: list[Task] = []
    outlier = detector = None
    try:
        detector = detector_of(plan.package)
    except EdgefleetError as err:
        # The manifest is JSON, which knows no infinity; without a graph nothing is compared with the threshold.
        outlier = Outlier({}, "", 0.0, str(err)[:300])
    if detector is not None:
        tasks += [Task(plan.job(name, Path(name).suffix), writer) for runtime, (name, writer) in _OUTLIERS.items() if runtime in runtimes]
    explaining = _explaining_graphs(plan, explainer)
    tasks += [Task(plan.job(name, ".tflite"), "converter.to_tflite.make:make_explanation") for name in explaining]
    graphs, failed = make_all(tasks, {}, plan.progress, plan.kept)
    if detector is not None:
        found = {runtime: (name, graphs[name].content) for runtime, (name, _) in _OUTLIERS.items() if name in graphs}
        reasons = [f"{runtime}: {failed[name]}" for runtime, (name, _) in _OUTLIERS.items() if name in failed]
        outlier = Outlier(found, detector.notes.method, detector.notes.threshold, "; ".join(reasons))
    if explainer is not None:
        for name, target in explaining.items():
            one = _with_graph(explainer.of(target), graphs.get(name), failed.get(name, ""))
            own = target in explainer.own
            explainer = replace(explainer, own={**explainer.own, target: one}) if own else replace(one, own=explainer.own)
    return outlier, explainer


def _explaining_graphs(plan: Plan, explainer: Explainer | None) -> dict[str, str]:
    """Explanations that LiteRT shall run, by name, each with a target that it explains."""
    if explainer is None or explainer.method != "treeshap":
        return {}
    targets = [recipe.target for recipe in plan.recipes if recipe.runtime == "litert"]
    return {GRAPHS.get(target, _EXPLAIN_TFLITE) if target in explainer.own else _EXPLAIN_TFLITE: target for target in targets}


def _with_graph(explainer: Explainer, graph: Graph | None, reason: str) -> Explainer:
    if graph is None:
        return replace(explainer, reasons={**explainer.reasons, "litert": reason})
    return replace(explainer, graphs={**explainer.graphs, "litert": graph.content})
