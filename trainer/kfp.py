"""A project as a Kubeflow pipeline: check the rows, train, convert, each a container that runs the ordinary command.

Written as Kubeflow Pipelines IR YAML 2.1.0 without kfp. The image must hold edgefleet and the project folder, and is pinned by digest:
KFP's cache key holds the image's text, so that a tag that moved would give results of the old image. Check and train are not cached by
KFP, because rows may live outside of the image. Finer steps than the commands are not exported: search and evaluation do not run on
their own.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgefleet import __version__
from edgefleet.errors import ConfigError
from trainer.project import Project

SCHEMA_VERSION: Final = "2.1.0"
SDK_VERSION: Final = f"edgefleet-{__version__}"
PROJECT_IN_IMAGE: Final = "/project"
_IMAGE: Final = re.compile(r"[^\s@\"']+@sha256:[0-9a-f]{64}")
_PLAIN_KEY: Final = re.compile(r"(?!(?:y|n|yes|no|on|off|null|true|false)$)[a-z][A-Za-z0-9_-]*")  # others mean something to YAML
_WORK: Final = "/tmp/edgefleet-runs"  # noqa: S108  # inside the container, which is nobody else's
_ARTIFACT: Final = {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}


def check_image(image: str) -> str:
    """Return `image` if it is pinned by digest, else raise ConfigError."""
    if not _IMAGE.fullmatch(image):
        raise ConfigError(
            f"image {image[:200]!r} is not pinned: write NAME@sha256:DIGEST, because a tag can move and KFP's cache would then return "
            "results of another image; `docker inspect --format '{{index .RepoDigests 0}}' IMAGE` prints it"
        )
    return image


def pipeline_ir(project: Project, image: str, project_in_image: str = PROJECT_IN_IMAGE) -> str:
    """The pipeline of a project as IR YAML; equal projects give equal text.

    Args:
        project: From `load_project`.
        image: NAME@sha256:DIGEST of an image with edgefleet (train, keras and convert extras) and the project folder.
        project_in_image: Where the project folder lies in it; a parameter of the pipeline.

    Raises:
        ConfigError: The image is not pinned.
    """
    check_image(image)
    parameter = {"project_dir": {"parameterType": "STRING", "defaultValue": project_in_image}}
    given = {"parameters": {"project_dir": {"componentInputParameter": "project_dir"}}}
    folder = "{{$.inputs.parameters['project_dir']}}"
    package = {"package": {"artifactType": _ARTIFACT}}
    bundle = {"bundle": {"artifactType": _ARTIFACT}}
    train = ["train", folder, "--runs-dir", _WORK, "--output", "{{$.outputs.artifacts['package'].path}}"]
    convert = ["convert", "{{$.inputs.artifacts['package'].path}}", "--output", "{{$.outputs.artifacts['bundle'].path}}"]
    taken = {"taskOutputArtifact": {"producerTask": "train", "outputArtifactKey": "package"}}
    document = {
        "components": {
            "comp-check": {"executorLabel": "exec-check", "inputDefinitions": {"parameters": parameter}},
            "comp-train": {
                "executorLabel": "exec-train",
                "inputDefinitions": {"parameters": parameter},
                "outputDefinitions": {"artifacts": package},
            },
            "comp-convert": {
                "executorLabel": "exec-convert",
                "inputDefinitions": {"artifacts": package},
                "outputDefinitions": {"artifacts": bundle},
            },
        },
        "deploymentSpec": {
            "executors": {
                f"exec-{name}": {"container": {"image": image, "command": ["edgefleet"], "args": arguments}}
                for name, arguments in (("check", ["data", "check", folder]), ("train", train), ("convert", convert))
            }
        },
        "pipelineInfo": {
            "name": project.name,
            "description": f"{project.goal.question} (edgefleet project {project.name}, settings {project.digest})",
        },
        "root": {
            "dag": {
                "outputs": {
                    "artifacts": {
                        "package": {"artifactSelectors": [{"producerSubtask": "train", "outputArtifactKey": "package"}]},
                        "bundle": {"artifactSelectors": [{"producerSubtask": "convert", "outputArtifactKey": "bundle"}]},
                    }
                },
                "tasks": {
                    "check": _task("check", given, [], cached=False),
                    "train": _task("train", given, ["check"], cached=False),
                    "convert": _task("convert", {"artifacts": {"package": taken}}, ["train"], cached=True),
                },
            },
            "inputDefinitions": {"parameters": {"project_dir": {**parameter["project_dir"], "isOptional": True}}},
            "outputDefinitions": {"artifacts": package | bundle},
        },
        "schemaVersion": SCHEMA_VERSION,
        "sdkVersion": SDK_VERSION,
    }
    return "\n".join(_yaml(document)) + "\n"


def _task(name: str, inputs: dict[str, Any], after: list[str], *, cached: bool) -> dict[str, Any]:
    task: dict[str, Any] = {"cachingOptions": {"enableCache": True} if cached else {}, "componentRef": {"name": f"comp-{name}"}}
    if after:
        task["dependentTasks"] = after
    return task | {"inputs": inputs, "taskInfo": {"name": name}}


def _yaml(value: Any, indent: int = 0) -> Iterator[str]:
    """Block YAML of tables and lists; every text is quoted as JSON, which YAML reads the same, except for plain keys."""
    pad = "  " * indent
    for key, below in value.items() if isinstance(value, Mapping) else (("-", entry) for entry in value):
        start = "-" if not isinstance(value, Mapping) else f"{key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)}:"
        if isinstance(below, Mapping | list) and below:
            if start == "-":
                first, *rest = list(_yaml(below, indent + 1))
                yield f"{pad}- {first.lstrip()}"
                yield from rest
            else:
                yield f"{pad}{start}"
                yield from _yaml(below, indent + 1)
        else:
            yield f"{pad}{start} {json.dumps(below, ensure_ascii=True)}"
