"""The files that make a bundle an MLflow model directory as well. Written by hand: YAML whose texts are quoted as JSON strings."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from edgefleet.manifest import Input

_PINNED: Final = ("numpy", "onnx", "onnxruntime")


def mlflow_files(
    graph: str, model_digest: str, package_digest: str, inputs: list[Input], window: tuple[int, ...] | None = None
) -> dict[str, bytes]:
    """MLmodel, requirements.txt and python_env.yaml for the ONNX variant.

    Args:
        graph: Name of the graph's file; it lies beside MLmodel, where `mlflow.onnx` looks for it.
        model_digest: Sha256 of the graph.
        package_digest: Sha256 of the package's index.
        inputs: Schema in column order.
        window: Shape of one row's tensor where the model takes windows, else None.
    """
    python = platform.python_version()
    requirements = ["mlflow>=3", *(f"{name}=={version(name)}" for name in _PINNED)]
    env = ["python: " + _quoted(python), "build_dependencies: []", "dependencies:", '- "-r requirements.txt"']
    return {
        "MLmodel": _lines(_model(graph, model_digest, package_digest, _signature(inputs, window), python)),
        "requirements.txt": _lines(requirements),
        "python_env.yaml": _lines(env),
    }


def _signature(inputs: list[Input], window: tuple[int, ...] | None) -> list[dict[str, Any]]:
    if window is not None:
        return [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *window]}}]
    # Double and not required: float32, float64, int32 and NaN pass (int64 does not); columns of type float would refuse float64.
    return [{"type": "double", "name": column.name, "required": False} for column in inputs]


def _model(graph: str, model_digest: str, package_digest: str, columns: list[dict[str, Any]], python: str) -> list[str]:
    # Equal bundles have equal bytes: identity and time come from the digests, not from the clock.
    created = datetime.fromtimestamp(int(model_digest[:7], 16), UTC).strftime("%Y-%m-%d %H:%M:%S.000000")
    return [
        "flavors:",
        "  onnx:",
        "    code: null",
        f"    data: {_quoted(graph)}",
        f"    onnx_version: {_quoted(version('onnx'))}",
        "    providers:",
        '    - "CPUExecutionProvider"',
        "  python_function:",
        f"    data: {_quoted(graph)}",
        "    env:",
        '      virtualenv: "python_env.yaml"',
        '    loader_module: "mlflow.onnx"',
        f"    python_version: {_quoted(python)}",
        "metadata:",
        f"  edgefleet_model: {_quoted(model_digest)}",
        f"  edgefleet_package: {_quoted(package_digest)}",
        f"model_uuid: {_quoted(model_digest[:32])}",
        "signature:",
        f"  inputs: {_quoted(json.dumps(columns, ensure_ascii=False))}",
        "  outputs: null",
        "  params: null",
        f"utc_time_created: {_quoted(created)}",
    ]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
