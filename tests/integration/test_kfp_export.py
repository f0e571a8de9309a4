"""The exported pipeline in kfp itself, of the pinned version, in an environment without edgefleet."""

import json
from pathlib import Path

import pytest

from tests.integration import foreign
from trainer import load_project
from trainer.kfp import pipeline_ir

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]

IMAGE = f"registry.example.org/pumps@sha256:{'a' * 64}"
DIGITS = Path(__file__).parents[2] / "examples" / "digits"

NEST = """
import json, sys, yaml
from kfp import compiler, components, dsl

inner = components.load_component_from_file(sys.argv[1])

@dsl.container_component
def deploy(bundle: dsl.Input[dsl.Model]):
    return dsl.ContainerSpec(image="busybox", command=["ls", "deploy"], args=[bundle.path])

@dsl.pipeline(name="outer")
def outer(folder: str = "/other"):
    trained = inner(project_dir=folder)
    deploy(bundle=trained.outputs["bundle"])
    inner()

compiler.Compiler().compile(outer, sys.argv[2])
components.load_component_from_file(sys.argv[2])
print(json.dumps({"spec": inner.component_spec.name, "outputs": sorted(inner.component_spec.outputs),
                  "inputs": {k: v.default for k, v in inner.component_spec.inputs.items()},
                  "again": list(yaml.safe_load_all(open(sys.argv[2])))[0]}))
"""


def test_kfp_loads_the_exported_pipeline_nests_it_and_compiles_it_again(tmp_path: Path) -> None:
    python = foreign.environment(tmp_path / "foreign", *foreign.KFP)
    (tmp_path / "pipeline.yaml").write_text(pipeline_ir(load_project(DIGITS), IMAGE))

    read = json.loads(foreign.run(python, NEST, str(tmp_path / "pipeline.yaml"), str(tmp_path / "outer.yaml")))

    assert read["spec"] == load_project(DIGITS).name
    assert read["outputs"] == ["bundle", "package"]
    assert read["inputs"] == {"project_dir": "/project"}
    containers = [entry["container"] for entry in read["again"]["deploymentSpec"]["executors"].values() if "deploy" not in str(entry)]
    assert {container["image"] for container in containers} == {IMAGE}
    assert {tuple(container["command"] + container["args"][:1]) for container in containers} == {
        ("edgefleet", "data"),
        ("edgefleet", "train"),
        ("edgefleet", "convert"),
    }
