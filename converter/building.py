"""From a package to graphs: the original's answers, every target's graph, the outlier detector's, and what explains them.

All foreign work happens in children (`workshop.py`); a target that fails is a verdict, not an error.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.declared import ExplainMethod
from converter.isolate import ChildFailed, run_isolated
from converter.kept import Kept
from converter.originals import Original, check_answers
from converter.outlier import detector_of
from converter.recipes import RECIPES, Recipe
from converter.targets import Job
from converter.workshop import TIMEOUT_S, Graph, Progress, Task, make_all, read_graph
from edgefleet.digests import sha256_hex
from edgefleet.errors import ConfigError, EdgefleetError, MissingPartError, VerdictError
from edgefleet.manifest import ExplainMethod as Explained
from edgefleet.manifest import Runtime
from edgefleet.package import ModelPackage

_ROW_SETS: Final = ("parity", "golden")
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
    """

    content: bytes
    method: Explained
    graphs: dict[Runtime, bytes] = field(default_factory=dict)
    reasons: dict[Runtime, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outlier:
    """The outlier detector's graphs by runtime, and why a runtime has none."""

    files: dict[Runtime, tuple[str, bytes]]
    method: str
    threshold: float
    reason: str


@dataclass(frozen=True)
class Built:
    """What the conversion made, not yet judged.

    Attributes:
        graphs: Graph by target.
        failed: Why a target has no graph.
        parity: The original's answers on the parity rows.
        golden: The same on the golden rows.
        explainer: For all variants, or None.
        unexplained: Why there is no explainer, else "".
        outlier: The outlier detector, or None.
        notes: Sentences for the card.
    """

    graphs: dict[str, Graph]
    failed: dict[str, str]
    parity: Original
    golden: Original
    explainer: Explainer | None = None
    outlier: Outlier | None = None
    notes: tuple[str, ...] = ()
    unexplained: str = ""


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        package: What is converted.
        recipes: The targets.
        explain: How answers shall be explained.
        calibration_rows: Most calibration rows to look at; 0 takes all.
        folder: An empty folder for intermediate files.
        progress: Told what happens.
        kept: What earlier children made; None: every child works anew.
    """

    package: ModelPackage
    recipes: Sequence[Recipe]
    explain: ExplainMethod
    calibration_rows: int
    folder: Path
    progress: Progress
    kept: Kept | None = None

    def job(self, target: str, suffix: str, keep_float: Sequence[str] = ()) -> Job:
        """One target's job, with a folder of its own."""
        folder = self.folder / target
        folder.mkdir(parents=True, exist_ok=True)
        return Job(
            package=str(self.package.folder),
            target=target,
            result=str(folder / f"graph{suffix}"),
            folder=str(folder),
            calibration_rows=self.calibration_rows,
            keep_float=list(keep_float),
            explain=self.explain if target == "c" else "auto",
        )

    def child(self, step: str, function: str, job: dict[str, Any], inputs: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """(a child's answer, "done" or "cached"); see `Kept.child`."""
        document = {"package": str(self.package.folder), **job}
        if self.kept is None:
            return run_isolated(function, document, timeout_s=TIMEOUT_S), "done"
        said, before = self.kept.child(step, function, document, inputs)
        return said, "cached" if before else "done"


def build(plan: Plan) -> Built:
    """Convert.

    Raises:
        VerdictError: The package has no rows to prove anything with, or the original cannot answer them.
        ConfigError: The wished explanation is impossible.
        MissingPartError: A library is not installed.
    """
    package = plan.package
    for name in _ROW_SETS:
        if len(package.rows(name).x) == 0:
            raise VerdictError(f"the package has no {name} rows: nothing can be proven; train again")
    network = package.index.family == "keras"
    if network and plan.explain in ("treeshap", "linear"):
        raise ConfigError(f"[explain] method {plan.explain!r} is exact for trees or linear models, and the model is a network; use 'auto'")
    first = _networks(plan) if network else _others(plan)
    parity, golden = first.answers
    check_answers(parity, package, "parity rows")
    check_answers(golden, package, "golden rows")
    wanted = {recipe.target for recipe in plan.recipes}
    graphs = {target: graph for target, graph in first.graphs.items() if target in wanted}
    notes = [note for target in sorted(graphs) for note in graphs[target].made.notes]
    explainer, more, unexplained = _explainer(plan, first.graphs)
    outlier, explainer = _further(plan, explainer)
    if explainer is not None:
        more += [f"The explanation is no graph for {runtime}: {reason}" for runtime, reason in explainer.reasons.items() if reason]
    return Built(graphs, first.failed, parity, golden, explainer, outlier, tuple(dict.fromkeys(notes + more)), unexplained)


@dataclass(frozen=True)
class _First:
    graphs: dict[str, Graph]
    failed: dict[str, str]
    answers: tuple[Original, Original]


def _needed(plan: Plan) -> list[Recipe]:
    """The recipes, and those whose graphs they start from."""
    wanted = {recipe.target for recipe in plan.recipes} | {recipe.source for recipe in plan.recipes if recipe.source}
    return [recipe for target, recipe in RECIPES.items() if target in wanted]


def _rows(package: ModelPackage) -> dict[str, str]:
    return {name: str(package.folder / "rows" / f"{name}.npz") for name in _ROW_SETS}


def _others(plan: Plan) -> _First:
    folder = plan.folder / "original"
    folder.mkdir()
    plan.progress("original", "started")
    job = {"rows": _rows(plan.package), "folder": str(folder)}
    try:
        done, how = plan.child("original", "converter.originals:answer", job, {"rows": list(_ROW_SETS)})
    except ChildFailed as err:
        raise VerdictError(f"the original model does not answer its own rows: {err.reason}") from err
    plan.progress("original", how)
    tasks = [Task(plan.job(r.target, r.suffix), r.writer, r.source) for r in _needed(plan)]
    graphs, failed = make_all(tasks, {}, plan.progress, plan.kept)
    return _First(graphs, failed, _answers(done["answers"]))


def _networks(plan: Plan) -> _First:
    """All float graphs of a network come from one TensorFlow process; if that dies, each target gets a process of its own."""
    _require({"tensorflow": "keras", "tf2onnx": "convert"})
    needed = _needed(plan)
    floats = [recipe for recipe in needed if not recipe.source and recipe.runtime != "c"]
    if any(recipe.source for recipe in needed):
        _require({"ai_edge_quantizer": "convert"})
    for recipe in floats:
        plan.progress(recipe.target, "started")
    try:
        graphs, failed, answers, how = _tensorflow(plan, [recipe.target for recipe in floats], "networks")
    except ChildFailed as err:
        graphs, failed, how = {}, {}, "done"
        answers = _tensorflow_or_refuse(plan, err)
        for recipe in floats:
            try:
                one, missing, _, _ = _tensorflow(plan, [recipe.target], f"networks-{recipe.target}")
                graphs |= one
                failed |= missing
            except ChildFailed as crash:
                failed[recipe.target] = crash.reason
    for recipe in floats:
        plan.progress(recipe.target, failed.get(recipe.target, how))
    places = {}
    for target, graph in graphs.items():
        places[target] = Path(plan.job(target, RECIPES[target].suffix).result)
        places[target].write_bytes(graph.content)
    rest = [Task(plan.job(r.target, r.suffix), r.writer, r.source) for r in needed if r not in floats]
    more, missing = make_all([task for task in rest if task.after not in failed], places, plan.progress, plan.kept)
    missing |= {t.job.target: f"there is no {t.after} to start from: {failed[t.after]}" for t in rest if t.after in failed}
    return _First(graphs | more, failed | missing, answers)


def _tensorflow_or_refuse(plan: Plan, first: ChildFailed) -> tuple[Original, Original]:
    try:
        return _tensorflow(plan, [], "original")[2]
    except ChildFailed as err:
        raise VerdictError(f"the original model does not answer its own rows: {first.reason}") from err


def _tensorflow(plan: Plan, targets: list[str], name: str) -> tuple[dict[str, Graph], dict[str, str], tuple[Original, Original], str]:
    """(graphs, failures, the original's answers, "done" or "cached")."""
    folder = plan.folder / name
    folder.mkdir()
    job = {"targets": targets, "folder": str(folder), "rows": _rows(plan.package)}
    inputs = {"targets": targets, "rows": list(_ROW_SETS)}
    done, how = plan.child("networks", "converter.to_tflite.make:make_networks", job, inputs)
    graphs = {target: read_graph(Path(path), done["made"][target]) for target, path in done["files"].items()}
    return graphs, dict(done["failed"]), _answers(done["answers"]), how


def _answers(paths: dict[str, str]) -> tuple[Original, Original]:
    parity, golden = (Original.from_file(Path(paths[name])) for name in _ROW_SETS)
    return parity, golden


def _require(modules: dict[str, str]) -> None:
    """Say which extra is missing before a child would say it in its own words; looks, but imports nothing."""
    for module, extra in modules.items():
        if importlib.util.find_spec(module) is None:
            raise MissingPartError(f"converting a network needs {module}, which is not installed: pip install 'edgefleet[{extra}]'")


def _explainer(plan: Plan, graphs: dict[str, Graph]) -> tuple[Explainer | None, list[str], str]:
    """(what explains, sentences for the card, why nothing does)."""
    if plan.explain == "none":
        return None, [], "the project wants no explanation"
    source = next((target for target in ("onnx-fp32", "tflite-fp32") if target in graphs), None)
    folder = plan.folder / "explanation"
    folder.mkdir()
    job = {
        "method": plan.explain,
        "graph": str(Path(plan.job(source, RECIPES[source].suffix).result)) if source else "",
        "runtime": RECIPES[source].runtime if source else "",
        "folder": str(folder),
    }
    inputs = {"method": plan.explain, "graph": sha256_hex(graphs[source].content) if source else "", "runtime": job["runtime"]}
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
    method = msgspec.convert(done["method"], Explained)
    return Explainer(Path(done["file"]).read_bytes(), method, graphs_made, dict(done["reasons"])), list(done["notes"]), ""


def _further(plan: Plan, explainer: Explainer | None) -> tuple[Outlier | None, Explainer | None]:
    """The outlier detector's graphs and the explanation's for LiteRT, whose writers are children that work side by side."""
    runtimes = {recipe.runtime for recipe in plan.recipes}
    tasks: list[Task] = []
    outlier = detector = None
    try:
        detector = detector_of(plan.package)
    except EdgefleetError as err:
        outlier = Outlier({}, "", float("inf"), str(err)[:300])
    if detector is not None:
        tasks += [Task(plan.job(name, ""), writer) for runtime, (name, writer) in _OUTLIERS.items() if runtime in runtimes]
    explains = explainer is not None and explainer.method == "treeshap" and "litert" in runtimes
    if explains:
        tasks.append(Task(plan.job(_EXPLAIN_TFLITE, ""), "converter.to_tflite.make:make_explanation"))
    graphs, failed = make_all(tasks, {}, plan.progress, plan.kept)
    if detector is not None:
        found = {runtime: (name, graphs[name].content) for runtime, (name, _) in _OUTLIERS.items() if name in graphs}
        reasons = [f"{runtime}: {failed[name]}" for runtime, (name, _) in _OUTLIERS.items() if name in failed]
        outlier = Outlier(found, detector.notes.method, detector.notes.threshold, "; ".join(reasons))
    if explains and explainer is not None:
        if _EXPLAIN_TFLITE in graphs:
            explainer = replace(explainer, graphs={**explainer.graphs, "litert": graphs[_EXPLAIN_TFLITE].content})
        else:
            explainer = replace(explainer, reasons={**explainer.reasons, "litert": failed[_EXPLAIN_TFLITE]})
    return outlier, explainer
