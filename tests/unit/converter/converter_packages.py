"""Real model packages for the converter's tests, made of the digits that scikit-learn ships."""

import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.manifest import Input, Override
from edgefleet.package import ModelPackage, PackageIndex, Rows, write_package
from edgefleet.reference import build_reference

TRAINING = slice(0, 1000)
PARITY = slice(1000, 1797)
INPUTS = [Input(name=f"p{i // 8}{i % 8}", low=0.0, high=16.0) for i in range(64)]
CLASSES = [str(i) for i in range(10)]


@functools.cache
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return np.asarray(x, np.float32), np.asarray(y, np.int64)


def fitted(model: Any) -> Any:
    x, y = digits()
    return model.fit(x[TRAINING].astype(np.float64), y[TRAINING])


def tree_package(folder: Path, model: Any, family: str = "forest", **changes: Any) -> ModelPackage:
    import skops.io

    kind = "mean leaf probability" if family == "forest" else "log-odds"
    return package(folder, "model.skops", skops.io.dumps(model), family, kind, **changes)


def package(
    folder: Path,
    model: str,
    content: bytes,
    family: str,
    margin_kind: str,
    *,
    x: NDArray[np.float32] | None = None,
    inputs: list[Input] | None = None,
    overrides: list[Override] | None = None,
    project: dict[str, Any] | None = None,
) -> ModelPackage:
    rows_x, y = digits()
    rows_x = rows_x if x is None else x
    schema = INPUTS if inputs is None else inputs

    def rows(where: slice) -> bytes:
        ids = np.arange(where.start, where.stop)
        slices = np.where(ids % 3 == 0, "site-a", "site-b")
        return Rows(rows_x[where], y[where], slices, ids.astype(str)).to_bytes()

    files = {
        model: content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in schema]),
        "reference.npz": build_reference(rows_x[TRAINING], schema, block_rows=20).to_bytes(),
        "rows/golden.npz": rows(slice(1000, 1032)),
        "rows/parity.npz": rows(PARITY),
        "rows/calibration.npz": rows(slice(0, 300)),
        "rows/background.npz": rows(slice(300, 316)),
        "evaluation.json": b"{}\n",
        "gates.json": canonical_json([{"gate": "G4", "verdict": "pass", "sentence": "accuracy is enough"}]),
        "provenance.json": canonical_json({"project": project or {}}),
        "card.md": b"# digits\n",
    }
    index = PackageIndex(
        format_version=1, project="digits", task="classification", model=model, family=family, margin_kind=margin_kind,
        classes=CLASSES, shape=[8, 8], overrides=overrides or [], files={},
    )  # fmt: skip
    return write_package(folder, index, files)
