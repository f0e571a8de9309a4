"""Real model packages for the converter's tests, made of the digits that scikit-learn ships."""

import functools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.manifest import Input, Override, Task
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


def candidate_package(
    folder: Path, name: str, task: Task, classes: int = 2, features: int = 6, rows: int = 900, **changes: Any
) -> ModelPackage:
    """A package of one of the trainer's scikit-learn candidates, fitted on rows of a simple truth.

    Args:
        folder: Where.
        name: The candidate.
        task: Kind of prediction.
        classes: Number of classes.
        features: Number of inputs.
        rows: Number of rows; a third each for training, parity and nothing.
        changes: `missing` (share of missing values), `calibrator` (document), `threshold`, `explain` (a method; none when left out, because
            most tests do not ask and a student takes seconds).
    """
    from trainer.candidates.fitted import Problem
    from trainer.candidates.scikit import fit_scikit

    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (rows, features)).astype(np.float32).round(2)
    signal = x[:, 0] + 0.5 * x[:, 1] * x[:, 2] + 0.2 * rng.normal(0, 1, rows)
    if task == "classification":
        label: NDArray[Any] = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])).astype(np.int64)
    elif task == "regression":
        label = (100 + 20 * signal).astype(np.float64)
    else:
        label = (np.arange(rows) % 15 == 0).astype(np.int64)
        x[label == 1] *= 4
    missing = float(changes.get("missing", 0.0))
    x[rng.random(x.shape) < missing] = np.nan
    problem = Problem(task=task, classes=classes if task == "classification" else 0, shape=(features,), seed=1)
    train = slice(0, rows // 3)
    fitted_one = fit_scikit(name, x[train], label[train], problem)
    inputs = [Input(name=f"x{i}", missing=missing > 0) for i in range(features)]

    def row_set(where: slice) -> bytes:
        ids = np.arange(where.start, where.stop)
        return Rows(x[where], label[where], np.where(ids % 2 == 0, "even", "odd"), ids.astype(str)).to_bytes()

    files = {
        fitted_one.model: fitted_one.content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in inputs]),
        "reference.npz": build_reference(x[train], inputs, block_rows=20).to_bytes(),
        "rows/golden.npz": row_set(slice(rows // 3, rows // 3 + 32)),
        "rows/parity.npz": row_set(slice(rows // 3, rows)),
        "rows/calibration.npz": row_set(train),
        "rows/background.npz": row_set(slice(0, 16)),
        "evaluation.json": b"{}\n",
        "gates.json": b"[]\n",
        "provenance.json": canonical_json({"project": {"explain": {"method": changes.get("explain", "none")}}}),
        "card.md": b"# candidate\n",
    }
    if "calibrator" in changes:
        files["calibrator.json"] = canonical_json(changes["calibrator"])
    index = PackageIndex(
        format_version=1, project="candidate", task=task, model=fitted_one.model, family=fitted_one.family,
        margin_kind=fitted_one.margin_kind, classes=[f"c{i}" for i in range(problem.classes)], shape=[features], overrides=[], files={},
        threshold=changes.get("threshold"), positive="c1" if problem.classes == 2 else "",
    )  # fmt: skip
    return write_package(folder, index, files)
