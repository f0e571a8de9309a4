"""Which file of what the user named is the model, and what is never opened."""

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal
from zipfile import BadZipFile, ZipFile

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, InputError
from trainer.importers.mlmodel import MLMODEL_NAME, read_flavours

Kind = Literal["skops", "onnx", "tflite", "keras"]
MAX_MODEL_BYTES: Final = 512 * 1024 * 1024
PICKLES: Final = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".pt", ".pth")
_REMEDY: Final = (
    "save it with skops (mlflow.sklearn.log_model(..., serialization_format='skops'), or skops.io.dump), or as ONNX (mlflow.onnx.log_model)"
)


@dataclass(frozen=True)
class Found:
    """A model file.

    Attributes:
        kind: Its format.
        path: The file.
        content: Its bytes.
        origin: Where it came from, for provenance: `MLflow flavour sklearn` or `file`.
        foreign_version: Version of the library that wrote it, as MLflow noted it, or "".
    """

    kind: Kind
    path: Path
    content: bytes
    origin: str
    foreign_version: str = ""


def find_model(source: Path) -> Found:
    """Find the model in a file or an MLflow model directory.

    Raises:
        InputError: A pickle, or a format that is not imported; names the remedy.
        ArtifactError: Missing, too large, or not what its name says.
    """
    if source.is_dir():
        if not (source / MLMODEL_NAME).is_file():
            raise ArtifactError(f"{source}: no {MLMODEL_NAME} in it; name an MLflow model directory or a model file")
        return _in_mlflow(source)
    return _file(source, "file")


def _in_mlflow(folder: Path) -> Found:
    flavours = read_flavours(folder / MLMODEL_NAME)
    if "sklearn" in flavours:
        own = flavours["sklearn"]
        if own.get("serialization_format") != "skops":
            form = own.get("serialization_format", "pickle")
            raise InputError(f"{folder}: its scikit-learn model is a {form} file, which can run any code and is never opened; {_REMEDY}")
        return _file(_inside(folder, own.get("pickled_model", "model.skops")), "MLflow flavour sklearn", own.get("sklearn_version", ""))
    if "onnx" in flavours:
        own = flavours["onnx"]
        return _file(_inside(folder, own.get("data", "model.onnx")), "MLflow flavour onnx", own.get("onnx_version", ""))
    for name in ("keras", "tensorflow"):
        if name in flavours:
            return _keras(folder, name, flavours[name])
    there = ", ".join(sorted(flavours)[:10])
    raise InputError(f"{folder}: none of its flavours ({there}) is imported; log it as sklearn with skops, as onnx or as keras")


def _keras(folder: Path, name: str, own: dict[str, str]) -> Found:
    data = _inside(folder, own.get("data", own.get("saved_model_dir", "data")))
    if any(file.suffix in PICKLES or "custom_objects" in file.name for file in data.glob("*")):
        raise InputError(f"{folder}: it brings custom objects as a pickle, which is never opened; build the model of Keras' own layers")
    files = sorted(data.glob("*.keras"))
    if len(files) != 1:
        raise InputError(f"{folder}: {data.name} holds {len(files)} .keras files, expected one; save it with Keras 3 in the .keras format")
    return _file(files[0], f"MLflow flavour {name}", own.get("keras_version", ""))


def _inside(folder: Path, name: str) -> Path:
    """A path that MLmodel names, if it stays inside the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder / MLMODEL_NAME}: names {name[:100]!r}, which lies outside the directory; it is not opened")
    return path


def _file(path: Path, origin: str, version: str = "") -> Found:
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise InputError(f"{path}: a {suffix} file can run any code and is never opened; {_REMEDY}")
    if suffix in {".h5", ".hdf5", ".pb"}:
        raise InputError(f"{path}: {suffix} is not imported; load it where it was made and save it as .keras")
    kinds: dict[str, Kind] = {".skops": "skops", ".onnx": "onnx", ".tflite": "tflite", ".keras": "keras"}
    if suffix not in kinds:
        raise InputError(f"{path}: {suffix or 'no suffix'} is not imported; it must be .skops, .onnx, .tflite or .keras")
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise ArtifactError(f"{path}: {size} bytes exceed the limit of {MAX_MODEL_BYTES}")
        content = path.read_bytes()
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read: {err.strerror}") from err
    _check_form(path, kinds[suffix], content)
    return Found(kinds[suffix], path, content, origin, version)


def _check_form(path: Path, kind: Kind, content: bytes) -> None:
    """Cheap checks before a native parser sees the bytes; they also tell a pickle under another name."""
    if content[:1] == b"\x80" and content[-1:] == b".":
        raise InputError(f"{path}: this is a pickle under another name; it can run any code and is never opened; {_REMEDY}")
    if kind == "tflite" and content[4:8] != b"TFL3":
        raise ArtifactError(f"{path}: {len(content)} bytes are no TFLite model: the mark TFL3 is missing; copy the file again")
    if kind in {"skops", "keras"}:
        inner = "schema.json" if kind == "skops" else "config.json"
        there = inner in check_archive(content, str(path), f".{kind}")
        try:
            with ZipFile(BytesIO(content)) as archive:
                broken = archive.testzip()
        except (BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error) as err:  # RuntimeError: encrypted
            raise ArtifactError(f"{path}: {len(content)} bytes are no readable .{kind} file: {err}; copy the file again") from err
        if broken is not None or not there:
            raise ArtifactError(f"{path}: {f'{broken} in it is damaged' if broken else f'no {inner} in it'}; copy the file again")
    if kind == "onnx" and not content:
        raise ArtifactError(f"{path}: empty; copy the file again")
