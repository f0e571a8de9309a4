"""From a package to graphs: which converter takes which family, and what the original answers."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from converter.cleaned import cleaned_inputs
from converter.declared import ExplainMethod
from converter.ensembles import Ensemble, ensemble_of
from converter.explain.treeshap import compile_treeshap, sampled_explainer
from converter.isolate import ChildFailed, run_isolated
from converter.originals import Original, answers_of_trees, check_answers, load_trees
from converter.recipes import Recipe
from converter.to_onnx.boosting import boosting_to_onnx
from converter.to_onnx.forest import forest_to_onnx
from converter.to_onnx.steps import merge_bytes
from converter.write import Explainer
from edgefleet.errors import ConfigError, MissingPartError, VerdictError
from edgefleet.package import ModelPackage, Rows

TENSORFLOW_TIMEOUT_S: Final = 600.0
QUANTIZE_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Built:
    """What the conversion made, not yet judged.

    Attributes:
        graphs: Graph by target.
        failed: Why a target has no graph.
        parity: The original's answers on the parity rows.
        golden: The same on the golden rows.
        explainer: For all variants, or None.
        notes: Sentences for the card.
    """

    graphs: dict[str, bytes]
    failed: dict[str, str]
    parity: Original
    golden: Original
    explainer: Explainer | None
    notes: list[str]


def build_graphs(package: ModelPackage, recipes: list[Recipe], explain: ExplainMethod, folder: Path) -> Built:
    """Convert; a target that fails is a verdict, not an error.

    Args:
        package: What is converted.
        recipes: The targets.
        explain: How answers shall be explained.
        folder: An empty folder for intermediate files.
    """
    parity, golden = package.rows("parity"), package.rows("golden")
    for name, rows in (("parity", parity), ("golden", golden)):
        if len(rows.x) == 0:
            raise VerdictError(f"the package has no {name} rows: nothing can be proven; train again")
    network = package.index.family == "keras"
    if network and explain == "treeshap":
        raise ConfigError("[explain] method 'treeshap' is exact for trees only, and the model is a network; use 'auto' or 'sampled'")
    made = _networks(package, recipes, explain, folder) if network else _trees(package, explain, parity, golden)
    check_answers(made.parity, package, "parity rows")
    check_answers(made.golden, package, "golden rows")
    return made


def _trees(package: ModelPackage, explain: ExplainMethod, parity: Rows, golden: Rows) -> Built:
    family = package.index.family
    steps, model = package.steps(), load_trees(package)
    ensemble = ensemble_of(model)
    answers = [answers_of_trees(model, steps.run(rows.x), family) for rows in (parity, golden)]
    explainer, notes = _tree_explainer(package, ensemble, explain)
    try:
        columns = cleaned_inputs(steps, package.inputs())
        trees = forest_to_onnx(model, columns, steps.run(parity.x)) if family == "forest" else boosting_to_onnx(ensemble)
        graph = merge_bytes(steps, trees)
    except VerdictError as err:
        return Built({}, {"onnx-fp32": str(err)}, answers[0], answers[1], explainer, notes)
    return Built({"onnx-fp32": graph}, {}, answers[0], answers[1], explainer, notes)


def _tree_explainer(package: ModelPackage, ensemble: Ensemble, explain: ExplainMethod) -> tuple[Explainer | None, list[str]]:
    if explain in ("sampled", "none"):
        return _sampled(package, explain), []
    try:
        if not package.steps().is_identity:
            raise VerdictError("the exact method explains cleaned columns, not the inputs in front of the cleaning steps")
        return Explainer(compile_treeshap(ensemble), "treeshap"), []
    except VerdictError as err:
        if explain == "treeshap":
            raise
        return _sampled(package, explain), [f"Explained by sampling: {err}"]


def _require(modules: dict[str, str]) -> None:
    """Say which extra is missing before a child would say it in its own words; looks, but imports nothing."""
    for module, extra in modules.items():
        if importlib.util.find_spec(module) is None:
            raise MissingPartError(f"converting a network needs {module}, which is not installed: pip install 'edgefleet[{extra}]'")


def _networks(package: ModelPackage, recipes: list[Recipe], explain: ExplainMethod, folder: Path) -> Built:
    _require({"tensorflow": "keras", "tf2onnx": "convert", "ai_edge_quantizer": "convert"})
    wanted = [recipe.target for recipe in recipes]
    integers = [target for target in wanted if target.startswith("tflite-int8")]
    floats = [target for target in ("onnx-fp32", "tflite-fp32") if target in wanted or (target == "tflite-fp32" and integers)]
    job = {
        "model": str(package.folder / package.index.model),
        "steps": package.steps().to_json().decode(),
        "targets": floats,
        "folder": str(folder),
        "rows": {name: str(package.folder / "rows" / f"{name}.npz") for name in ("parity", "golden")},
    }
    done = run_isolated("converter.to_tflite.keras:convert_keras", job, timeout_s=TENSORFLOW_TIMEOUT_S)
    graphs = {target: Path(path).read_bytes() for target, path in done["files"].items()}
    failed: dict[str, str] = dict(done["failed"])
    for target in integers:
        if "tflite-fp32" not in graphs:
            failed[target] = f"there is no tflite-fp32 to start from: {failed['tflite-fp32']}"
            continue
        result = folder / f"{target}.graph"
        calibration = str(package.folder / "rows" / "calibration.npz")
        job = {"graph": done["files"]["tflite-fp32"], "calibration": calibration, "target": target, "result": str(result)}
        try:
            run_isolated("converter.quantize.int8:quantize", job, timeout_s=QUANTIZE_TIMEOUT_S)
            graphs[target] = result.read_bytes()
        except ChildFailed as err:
            failed[target] = err.reason
    answers = {name: Original.from_file(Path(path)) for name, path in done["answers"].items()}
    kept = {target: graph for target, graph in graphs.items() if target in wanted}
    return Built(kept, failed, answers["parity"], answers["golden"], _sampled(package, explain), [])


def _sampled(package: ModelPackage, explain: ExplainMethod) -> Explainer | None:
    if explain == "none":
        return None
    background = package.rows("background").x
    return Explainer(sampled_explainer(background), "sampled") if len(background) else None
