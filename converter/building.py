"""From a package to graphs: the original's answers, every target's graph, and what stands beside them (`beside.py`).

All foreign work happens in children (`workshop.py`); a target that fails is a verdict, not an error.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converter.beside import Explainer, Outlier, explain, further
from converter.isolate import ChildFailed
from converter.originals import Original, check_answers
from converter.planning import Plan
from converter.recipes import RECIPES, Recipe
from converter.workshop import Graph, Task, make_all, read_graph
from edgefleet.errors import ConfigError, MissingPartError, VerdictError
from edgefleet.package import ModelPackage

_ROW_SETS: Final = ("parity", "golden")


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
    explainer, more, unexplained = explain(plan, first.graphs)
    outlier, explainer = further(plan, explainer)
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
    own = {recipe.target: recipe for recipe in plan.recipes}
    return [own.get(target, recipe) for target, recipe in RECIPES.items() if target in wanted]


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
