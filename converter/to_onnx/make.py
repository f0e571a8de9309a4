"""The writer of the target onnx-fp32, called in a child process; see `converter.targets` for what it is asked and leaves."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Trees
from converter.cores.reading import FAMILIES, core_of
from converter.imported.looking import seen
from converter.imported.targets import WRAPPED, answers_missing, why_not
from converter.targets import Made, answer, job_of
from converter.to_onnx.core import core_to_onnx
from converter.to_onnx.graphs import describe
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write a package's model as ONNX.

    Raises:
        VerdictError: The model has no exact form; named.
    """
    task = job_of(job)
    package = ModelPackage.open(task.package)
    if package.index.family == "keras":
        raise VerdictError("a network is converted by converter.to_tflite.make:make_networks, with TensorFlow in a process of its own")
    if package.index.family == "onnx":
        from converter.imported.onnx_graph import wrapped_onnx

        return _left(Path(task.result), wrapped_onnx(package), [WRAPPED], answers_missing(package, task.target))
    if (reason := why_not_onnx(package)) is not None:
        raise VerdictError(reason)
    steps, notes = package.steps(), []
    try:
        core = core_of(package)
        graph = core_to_onnx(core, steps)
        takes_missing = _takes_missing(package, core, steps)
    except VerdictError as err:
        if package.index.family not in ("pipeline", "svm"):
            raise
        from converter.to_onnx.foreign import foreign_to_onnx

        graph = foreign_to_onnx(package)
        takes_missing = True
        notes.append(f"Converted by skl2onnx, not node by node: {err}.")
    return _left(Path(task.result), graph, notes, takes_missing)


def make_outlier(job: dict[str, Any]) -> dict[str, Any]:
    """Write the package's outlier detector: the same raw rows, `margin` [n, 1], larger = stranger.

    Raises:
        VerdictError: The package has none.
    """
    from converter.outlier import detector_of

    task = job_of(job)
    package = ModelPackage.open(task.package)
    detector = detector_of(package)
    if detector is None:
        raise VerdictError("the package has no outlier detector")
    return _left(Path(task.result), core_to_onnx(detector.core, package.steps()), [], True)


def why_not_onnx(package: ModelPackage) -> str | None:
    """Why the package cannot become onnx-fp32, or None; looks at package.json only, so that a later refusal is possible."""
    index = package.index
    if index.family == "keras":
        return None
    if index.family in ("onnx", "tflite"):
        return why_not(package, seen(package).form if index.family == "onnx" else "onnx-fp32")
    if index.family not in FAMILIES:
        return f"a model of the family {index.family!r} is not converted to ONNX; one of {', '.join(FAMILIES)}, keras and onnx is"
    if not index.model.endswith(".skops"):
        return f"the model file {index.model!r} is not the .skops file that the family {index.family!r} is converted from"
    return None


def _left(path: Path, graph: bytes, notes: list[str], takes_missing: bool) -> dict[str, Any]:
    path.write_bytes(graph)
    operators, opset = describe(graph)
    return answer(Made(notes=notes, operators=operators, opset=opset, takes_missing=takes_missing))


def _takes_missing(package: ModelPackage, core: Core, steps: Steps) -> bool:
    """Whether rows with missing values that the schema allows are answered as the original does; it refuses some of them itself."""
    if isinstance(core.head, Trees) and package.index.family != "boosting":
        return True
    z = _probes(package, steps)
    return not np.isnan(z if core.front is None else core.front.run(z)).any()


def _probes(package: ModelPackage, steps: Steps) -> NDArray[np.float32]:
    """Cleaned rows that show every way to be missing, because no step looks at other columns."""
    columns = package.inputs()
    absent = [np.nan if column.missing else 0.0 for column in columns]
    unseen = [-1.0 if column.kind == "category" else 0.0 for column in columns]
    probes = np.array([absent, unseen, [0.0] * len(columns)], np.float32)
    if len(steps.input_shape) > 1:
        probes = np.repeat(probes[:, None, :], steps.input_shape[0], axis=1)
    return steps.run(probes)
