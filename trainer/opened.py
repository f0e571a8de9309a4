"""A model package as a function: its own answers to raw rows, through cleaning, model, calibrator and threshold."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ArtifactError, InputError
from edgefleet.isolate import ChildFailed, run_isolated
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage, npz_bytes, read_npz
from edgefleet.signature import SIGNATURE_NAME, Signature, parse_signature
from trainer.answers import STRANGE, Answers
from trainer.candidates.fitted import Predict, Problem
from trainer.settings import Tables

if TYPE_CHECKING:
    from trainer.project import Project

CALIBRATOR_NAME: Final = "calibrator.json"
IN_CHILD: Final = ("onnx", "tflite")
TIMEOUT_S: Final = 300.0
MEMORY_BYTES: Final = 16 * 1024**3  # address space; see `edgefleet.isolate`


def open_predict(package: ModelPackage) -> Callable[[NDArray[np.float32]], Answers]:
    """The package's own answers to raw rows [n, features] or windows [n, rows, features].

    Models of ONNX and TFLite files run in a child process, one for each call.

    Raises:
        ArtifactError: A file is damaged, or of a format that the trainer cannot run.
    """
    index = package.index
    steps = package.steps()
    shape = package.row_shape
    predict = _model(package)
    positive = index.classes.index(index.positive) if index.positive in index.classes else len(index.classes) - 1
    calibrator = _json(package, CALIBRATOR_NAME) if CALIBRATOR_NAME in index.files else None

    def answers(x: NDArray[np.float32]) -> Answers:
        if x.shape[1:] != shape:
            raise InputError(f"rows of shape {x.shape[1:]} do not fit package {package.digest[:12]}, which takes {shape}")
        predictions = predict(steps.run(x))
        if index.task != "classification":
            return Answers(value=predictions, threshold=index.threshold, positive=STRANGE)
        if calibrator is not None:
            from trainer.calibration import calibrate

            predictions = calibrate(calibrator, predictions)
        return Answers(probabilities=predictions, threshold=index.threshold, positive=positive)

    return answers


def speaking_of(answers: Answers, classes: list[str], positive: str) -> Answers:
    """The same answers with the class that a goal's binary metrics speak of, where it names another than the package.

    Raises:
        InputError: The package decides by a threshold of its own class.
    """
    if answers.probabilities is None or positive not in classes or answers.positive == classes.index(positive):
        return answers
    if answers.threshold is not None:
        raise InputError(f"goal.positive = {positive!r}, but the package's threshold speaks of {classes[answers.positive]!r}; name that")
    return replace(answers, positive=classes.index(positive))


def other_inputs(one: Sequence[Input], other: Sequence[Input]) -> str:
    """In what two schemas give a row's numbers another meaning: names, kinds, or the order of categories; empty where they do not."""
    if [column.name for column in one] != [column.name for column in other]:
        return "other names"
    changed = [a.name for a, b in zip(one, other, strict=True) if (a.kind, a.categories) != (b.kind, b.categories)]
    return f"another kind or other categories of {', '.join(changed[:5])}" if changed else ""


def project_of(package: ModelPackage) -> "Project":
    """The settings that made a package, from its provenance.

    Raises:
        ArtifactError: Its provenance holds none.
    """
    from trainer.project import Project

    tables = _json(package, "provenance.json").get("project")
    try:
        settings = msgspec.convert(tables, Tables)
    except msgspec.ValidationError as err:
        raise ArtifactError(f"{package.folder}: provenance.json holds no settings of this version: {str(err)[:200]}; train again") from err
    values = {name: getattr(settings, name) for name in Tables.__struct_fields__}
    digest = sha256_hex(canonical_json(msgspec.to_builtins(settings)))
    return Project(
        **values,
        folder=package.folder.resolve(),
        name=package.index.project,
        inputs=package.inputs(),
        shape=package.index.shape,
        digest=digest,
    )


def foreign_predict(path: Path, signature: "Signature") -> Predict:
    """An imported model's file as a function from raw rows to probabilities, values or scores."""
    from trainer.importers.outputs import meant

    if signature.kind in IN_CHILD:
        return lambda x: meant(run_in_child(path, signature, x)[signature.output], signature, x)
    from trainer.importers.runtimes import open_file

    _, run = open_file(signature.kind, path)
    return lambda x: meant(run(x, signature)[signature.output], signature, x)


def run_in_child(path: Path, signature: "Signature", x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Outputs by name of raw rows, computed in a child process with limits.

    Raises:
        ArtifactError: The child crashed, ran out of time or memory, or the model refused the rows.
    """
    with tempfile.TemporaryDirectory(prefix="edgefleet-rows-") as name:
        rows, outputs = Path(name) / "rows.npz", Path(name) / "outputs.npz"
        rows.write_bytes(npz_bytes({"x": x}))
        job = {"kind": signature.kind, "path": str(path), "rows": str(rows), "outputs": str(outputs)}
        job["signature"] = msgspec.json.encode(signature).decode()
        done = in_child("trainer.importers.runtimes:answer", job, path)
        arrays = read_npz(outputs.read_bytes(), (), "the child's outputs")
        return {str(key): arrays[f"o{i}"] for i, key in enumerate(done["names"])}


def in_child(function: str, job: dict[str, Any], path: Path) -> dict[str, Any]:
    """Call a function about a model file in a child process; its failure is the file's fault.

    Raises:
        ArtifactError: It crashed, hung or raised.
    """
    try:
        return run_isolated(function, job, timeout_s=TIMEOUT_S, memory_bytes=MEMORY_BYTES)
    except ChildFailed as err:
        raise ArtifactError(f"{path.name}: the model could not be opened and run in a child process: {err.reason}") from err


def _model(package: ModelPackage) -> Predict:
    name = package.index.model
    if SIGNATURE_NAME in package.index.files:
        return foreign_predict(package.folder / name, parse_signature(package.read(SIGNATURE_NAME)))
    if Path(name).suffix not in {".skops", ".keras"}:
        raise ArtifactError(f"{package.folder}: {name!r} without {SIGNATURE_NAME} cannot be run; import the model again")
    from trainer.candidates import open_model

    index, steps = package.index, package.steps()
    # An image project without steps hands networks its image; everything else is as the steps leave it.
    image = steps.is_identity and len(index.shape) > 1 and index.window_rows == 1
    shape = tuple(index.shape) if image else tuple(steps.output_shape)
    return open_model(package.read(name), name, Problem(task=index.task, classes=len(index.classes), shape=shape, seed=0))


def _json(package: ModelPackage, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(package.read(name), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"{package.folder / name}: {str(err)[:200]}; make the package again") from err
