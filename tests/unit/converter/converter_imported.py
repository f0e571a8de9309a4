"""Packages around .onnx and .tflite files, called as the trainer's own import finds out."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.manifest import Input, Task
from edgefleet.package import ModelPackage, PackageIndex, Rows, write_package
from edgefleet.reference import build_reference
from edgefleet.signature import Signature
from trainer.importers.outputs import choose_output, meant
from trainer.importers.runtimes import open_file
from trainer.importers.signature import plain

PARITY = 600


def imported_package(
    folder: Path,
    content: bytes,
    kind: str,
    x: NDArray[np.float32],
    task: Task = "classification",
    classes: int = 3,
    label: NDArray[Any] | None = None,
    **files: bytes,
) -> ModelPackage:
    """A package as `edgefleet import` writes it, without gates and explanation.

    Args:
        folder: Where; the file lies beside it.
        content: The model.
        kind: `onnx` or `tflite`.
        x: [n, ...] raw rows; the first PARITY are parity rows, the rest is for calibration.
        task: Kind of prediction.
        classes: Number of classes.
        label: [n]; the model's own answers when left out.
        files: Further files, `calibrator` and `steps`.
    """
    path = folder.with_suffix(f".{kind}")
    path.write_bytes(content)
    description, run = open_file(kind, path)
    columns = [f"x{i}" for i in range(x.shape[-1])]
    bare = Signature(kind=kind, inputs=description.inputs, columns=columns, categories=[[] for _ in columns])  # type: ignore[arg-type]
    outputs = run(x, bare)
    chosen = choose_output(description, outputs, task, x[0].size)
    signature = msgspec.structs.replace(bare, output=chosen.output, meaning=chosen.meaning, sign=chosen.sign)
    return write(folder, content, kind, x, task, classes, signature, meant(outputs[chosen.output], signature, x), label, files)


def write(
    folder: Path,
    content: bytes,
    kind: str,
    x: NDArray[np.float32],
    task: Task,
    classes: int,
    signature: Signature,
    answers: NDArray[np.float64] | None = None,
    label: NDArray[Any] | None = None,
    extra: dict[str, bytes] | None = None,
) -> ModelPackage:
    """The same with a signature that is known."""
    if label is None:
        if answers is None:
            label = np.arange(len(x)) % max(classes, 1)
        elif task == "classification":
            label = answers.argmax(axis=1)
        else:
            label = answers if task == "regression" else (answers > np.quantile(answers, 0.8)).astype(np.int64)

    def rows(where: slice) -> bytes:
        ids = np.arange(len(x))[where]
        return Rows(x[where], label[where], np.where(ids % 2 == 0, "even", "odd"), ids.astype(str)).to_bytes()

    inputs = [Input(name=f"x{i}") for i in range(x.shape[-1])]
    newest = x if x.ndim == 2 else x[:, -1, :]
    all_files = {
        f"model.{kind}": content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in inputs]),
        "signature.json": canonical_json(plain(signature)),
        "reference.npz": build_reference(newest, inputs, block_rows=20).to_bytes(),
        "rows/golden.npz": rows(slice(0, 24)),
        "rows/parity.npz": rows(slice(0, PARITY)),
        "rows/calibration.npz": rows(slice(PARITY, None)),
        "rows/background.npz": rows(slice(0, 16)),
        "evaluation.json": b"{}\n",
        "gates.json": b"[]\n",
        "provenance.json": canonical_json({"project": {"explain": {"method": "none"}}}),
        "card.md": b"# made elsewhere\n",
        **{f"{name}.json": document for name, document in (extra or {}).items()},
    }
    index = PackageIndex(
        format_version=1, project="elsewhere", task=task, model=f"model.{kind}", family=kind, margin_kind="logit",
        classes=[str(i) for i in range(classes)] if task == "classification" else [], shape=[x.shape[-1]], overrides=[], files={},
        window_rows=x.shape[1] if x.ndim == 3 else 1,
    )  # fmt: skip
    return write_package(folder, index, all_files)
