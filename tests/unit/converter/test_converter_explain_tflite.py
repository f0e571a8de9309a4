"""Trees explained by a TFLite graph, run by LiteRT: what the device's own explainer says, row by row and as a batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cores.reading import core_of
from converter.explain.building import explainer_for
from converter.explain.treeshap import compile_leaves
from converter.explain.treeshap_tflite import MAX_GRAPH_SLOTS, treeshap_in_tensorflow
from device_agent.explain import open_explainer
from device_agent.runtime.explaining import ExplanationGraph
from edgefleet.errors import VerdictError
from edgefleet.graphs import check_graph
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage
from tests.unit.converter.converter_children import call_all
from tests.unit.converter.converter_packages import candidate_package

CELLS: dict[str, tuple[str, Task, int, dict[str, Any]]] = {
    "constant": ("majority", "classification", 2, {}),
    "tree-missing": ("tree", "classification", 3, {"missing": 0.1}),
    "forest": ("forest", "classification", 2, {}),
    "forest-missing": ("forest", "classification", 3, {"missing": 0.1}),
    "value": ("extra_trees", "regression", 0, {}),
    "boosting": ("boosting", "classification", 3, {}),
    "hist_boosting-missing": ("hist_boosting", "classification", 2, {"missing": 0.1}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ModelPackage, dict[str, Any], bytes]]:
    folder = tmp_path_factory.mktemp("explained")
    packages = {name: candidate_package(folder / name, *cell[:3], **cell[3]) for name, cell in CELLS.items()}
    packages["linear"] = candidate_package(folder / "linear", "logistic", "classification", 2)
    jobs = [
        {"package": str(package.folder), "target": "explain.tflite", "result": str(folder / f"{name}.tflite")}
        for name, package in packages.items()
    ]
    answers = call_all("converter.to_tflite.make:make_explanation", jobs, folder / "calls")
    found = {}
    for (name, package), answer in zip(packages.items(), answers, strict=True):
        graph = folder / f"{name}.tflite"
        found[name] = (package, answer, graph.read_bytes() if graph.exists() else b"")
    return found


@pytest.mark.keras
@pytest.mark.conversions
@pytest.mark.parametrize("name", CELLS)
def test_the_graph_says_what_the_device_says(name: str, made: dict[str, tuple[ModelPackage, dict[str, Any], bytes]]) -> None:
    package, answer, content = made[name]
    core = core_of(package)
    names = tuple(column.name for column in package.inputs())
    explainer = open_explainer(explainer_for(core, package).content, "treeshap", names, core.margins)
    x = np.concatenate([package.rows("parity").x[:20], np.full((1, len(names)), np.inf, np.float32)])
    x[3, 1] = -np.inf
    graph = ExplanationGraph.open("litert", content)

    alone = np.concatenate([graph.explain(row[None])[0] for row in x])
    together, base = graph.explain(x)

    columns = range(core.margins) if core.margins > 1 else [1]
    wanted = np.stack([[explainer.explain(row, k, 0.0, lambda r: r).contributions for k in columns] for row in x]).transpose(0, 2, 1)
    size = max(float(np.abs(wanted).max()), 1e-30)
    # Float32 sums: 3e-7 of the largest contribution was seen.
    assert np.abs(alone - wanted).max() <= 2e-6 * size
    assert np.abs(together - wanted).max() <= 2e-6 * size
    assert len(base) == core.margins
    # All of them are on the list of what a device may be given.
    assert check_graph(content, "litert", name) == sorted(answer["operators"])


@pytest.mark.keras
@pytest.mark.conversions
def test_a_model_without_trees_has_no_such_graph(made: dict[str, tuple[ModelPackage, dict[str, Any], bytes]]) -> None:
    assert "this model is none" in made["linear"][1]["refused"]


def test_more_slots_than_the_limit_are_refused_with_what_remains(tmp_path: Path) -> None:
    from dataclasses import replace

    package = candidate_package(tmp_path / "package", "tree", "classification", 2)
    compiled = compile_leaves(core_of(package).head.ensemble)  # type: ignore[union-attr]  # a tree

    with pytest.raises(VerdictError, match=rf"{MAX_GRAPH_SLOTS + 1} slots .* limit of {MAX_GRAPH_SLOTS} .*the arrays of the .npz"):
        treeshap_in_tensorflow(replace(compiled, slots=MAX_GRAPH_SLOTS + 1), 6, missing=False)
