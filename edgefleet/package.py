"""The model package: what the trainer hands to the converter.

A folder: package.json (format version, sha256 of each file), exactly one model.{skops,keras,onnx,tflite}, schema.json, reference.npz,
rows/{golden,parity,calibration,background}.npz, evaluation.json, gates.json, provenance.json, card.md; where they are needed also
steps.json (cleaning; without it the model takes raw rows), calibrator.json, signature.json (how an imported model is called),
outlier.{skops,npz} with outlier.json, card.html.
Rows are raw float32 with label (class index, or target), slice and row_id. Parity rows come from validation, never from test.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.archives import check_archive
from edgefleet.digests import canonical_json, sha256_file, sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.files import write_durably
from edgefleet.grid import Sampling
from edgefleet.manifest import FileEntry, Input, Override, Task, check_file_name

if TYPE_CHECKING:
    from edgefleet.steps import Steps

FORMAT_VERSION: Final = 1
STEPS_NAME: Final = "steps.json"
PACKAGE_NAME: Final = "package.json"
MAX_ARRAYS: Final = 10_000
MAX_ARRAYS_BYTES: Final = 4 * 1024**3
RowSet = Literal["golden", "parity", "calibration", "background"]


class PackageIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """package.json.

    Attributes:
        project: Project name.
        task: Kind of prediction.
        model: Name of the model file.
        family: What the model is, for the converter: see `trainer.candidates.fitted.Fitted`; `onnx`, `tflite` and `pipeline` are imported.
        margin_kind: What its margin is (see `Manifest.margin_kind`).
        classes: Class names in the order of the model's outputs.
        shape: Shape of one row's tensor.
        overrides: Gates overruled by a person.
        files: Every other file by content.
        window_rows: Consecutive rows that one answer needs; above 1, x of every row set is [n, window_rows, features].
        threshold: Binary classification: the positive class is answered from this probability on, None: the likelier class. Anomaly: a
            row is strange from this score on.
        positive: Name of the class that binary metrics and the threshold speak of; "" where there are no classes.
        outlier: File of the outlier detector, or None.
        sampling: The grid on which the training rows became windows, or None.
    """

    format_version: int
    project: str
    task: Task
    model: str
    family: str
    margin_kind: str
    classes: list[str]
    shape: list[int]
    overrides: list[Override]
    files: dict[str, FileEntry]
    window_rows: int = 1
    threshold: float | None = None
    positive: str = ""
    outlier: str | None = None
    sampling: Sampling | None = None


@dataclass(frozen=True)
class Rows:
    """A set of rows: x [n, features] float32 or windows [n, rows, features] of it, label [n], slice [n] text, row_id [n] text."""

    x: NDArray[np.float32]
    label: NDArray[Any]
    slice: NDArray[np.str_]
    row_id: NDArray[np.str_]

    def to_bytes(self) -> bytes:
        """A deterministic .npz without pickles."""
        return npz_bytes({"x": self.x, "label": self.label, "slice": self.slice, "row_id": self.row_id})


def npz_bytes(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Bytes of an .npz: equal arrays give equal bytes (numpy writes the zip's fixed date)."""
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_npz(
    content: bytes, names: tuple[str, ...], what: str, optional: tuple[str, ...] = (), *, max_bytes: int = MAX_ARRAYS_BYTES
) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz, never unpickling.

    Args:
        content: The file's bytes.
        names: What must be there; empty reads everything.
        what: What the error calls it.
        optional: Read too where it is there.
        max_bytes: Largest sum of its arrays' sizes.

    Raises:
        ArtifactError: Not an .npz, too large when unpacked, or one of `names` is missing.
    """
    check_archive(content, what, ".npz", max_unpacked_bytes=max_bytes, max_members=MAX_ARRAYS)
    try:
        with np.load(BytesIO(content), allow_pickle=False) as stored:
            found = {name: stored[name] for name in (names or stored.files)} | {name: stored[name] for name in optional if name in stored}
    except KeyError as err:
        raise ArtifactError(f"{what}: array {err} is missing; make the artefact again") from err
    except Exception as err:  # numpy and zipfile raise a dozen kinds on damaged input
        raise ArtifactError(f"{what}: not a readable .npz without pickles: {str(err)[:200]}") from err
    # numpy gives the bytes of a member that does not begin as an array does.
    strange = [name for name, value in found.items() if not isinstance(value, np.ndarray)]
    if strange:
        raise ArtifactError(f"{what}: member {strange[0][:64]!r} is no array; make the artefact again")
    return found


@dataclass(frozen=True)
class ModelPackage:
    """An opened model package; `digest` is the sha256 of package.json's bytes."""

    folder: Path
    index: PackageIndex
    digest: str

    @classmethod
    def open(cls, path: Path | str) -> "ModelPackage":
        """Open and verify a package folder.

        Raises:
            ArtifactError: Unreadable, of an unknown version, or a file differs from what package.json lists.
        """
        folder = Path(path)
        try:
            content = (folder / PACKAGE_NAME).read_bytes()
        except OSError as err:
            raise ArtifactError(f"{folder}: no {PACKAGE_NAME}: {err.strerror}; `edgefleet train` makes a package") from err
        try:
            index = msgspec.json.decode(content, type=PackageIndex)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ArtifactError(f"{folder / PACKAGE_NAME}: {str(err)[:200]}") from err
        if index.format_version != FORMAT_VERSION:
            raise ArtifactError(f"{folder}: package format {index.format_version} is unknown, this program reads {FORMAT_VERSION}")
        for name, entry in index.files.items():
            file = folder / check_file_name(name)
            if not file.is_file() or sha256_file(file) != entry.sha256:
                raise ArtifactError(f"{file}: missing or changed since the package was written; train again")
        return cls(folder=folder, index=index, digest=sha256_hex(content))

    def read(self, name: str) -> bytes:
        """Bytes of a listed file."""
        if name not in self.index.files:
            raise ArtifactError(f"{name!r} is not in the package {self.folder}")
        return (self.folder / name).read_bytes()

    def rows(self, kind: RowSet) -> Rows:
        """One of the row sets."""
        arrays = read_npz(self.read(f"rows/{kind}.npz"), ("x", "label", "slice", "row_id"), f"rows/{kind}.npz")
        return Rows(**arrays)

    def steps(self) -> "Steps":
        """The cleaning between raw rows and the model; the identity where the package has none.

        Raises:
            ArtifactError: Damaged.
        """
        from edgefleet.steps import Steps

        if STEPS_NAME in self.index.files:
            return Steps.from_json(self.read(STEPS_NAME))
        return Steps.identity(self.row_shape)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one raw row: (features,), or (window_rows, features)."""
        features = len(self.inputs())
        return (features,) if self.index.window_rows == 1 else (self.index.window_rows, features)

    def inputs(self) -> list[Input]:
        """The feature schema, in column order."""
        try:
            return msgspec.json.decode(self.read("schema.json"), type=list[Input])
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ArtifactError(f"{self.folder}/schema.json: {str(err)[:200]}") from err


def package_files(index: PackageIndex, files: dict[str, bytes]) -> dict[str, bytes]:
    """`files` and the package.json that lists them.

    Args:
        index: The index with `files` still empty.
        files: Content by name.
    """
    for name in files:
        check_file_name(name)
    entries = {name: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for name, content in sorted(files.items())}
    complete = msgspec.structs.replace(index, files=entries)
    return {**files, PACKAGE_NAME: canonical_json(msgspec.to_builtins(complete))}


def write_files(folder: Path, files: dict[str, bytes]) -> ModelPackage:
    """Write what `package_files` made, package.json last: a folder without it is no package."""
    for name, content in sorted(files.items(), key=lambda entry: (entry[0] == PACKAGE_NAME, entry[0])):
        write_durably(folder / check_file_name(name), content)
    return ModelPackage.open(folder)


def write_package(folder: Path, index: PackageIndex, files: dict[str, bytes]) -> ModelPackage:
    """Write a package.

    Args:
        folder: Where; made when missing.
        index: The index with `files` still empty.
        files: Content by name.
    """
    return write_files(folder, package_files(index, files))
