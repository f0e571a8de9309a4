"""The writer of every integer and half-precision target, called in a child process; starts from the package's float graph."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.quantize import onnx_dynamic
from converter.quantize.calibration import MIN_ROWS, choose
from converter.quantize.graphs import FLOAT_ARITHMETIC, STATIC, TARGETS, Source, answers_of, missing_reaches, open_source, quantize
from converter.targets import Job, Made, answer, job_of
from edgefleet.errors import ConfigError, VerdictError
from edgefleet.package import ModelPackage

_TREES: Final = ("tree", "forest", "boosting", "hist_boosting", "isolation_forest")
NO_TREES: Final = "trees are not quantized: thresholds would move; limit depth or count instead"
_PROBES: Final = 64
_MAX_NAMED: Final = 32


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write one target; see `converter.targets`.

    Raises:
        ConfigError: The target is none of this writer, or a layer to keep float is unknown.
        VerdictError: It cannot be made; why.
    """
    asked = job_of(job)
    if asked.target not in TARGETS:
        raise ConfigError(f"target {asked.target!r} is not made by quantizing: one of {', '.join(TARGETS)}")
    package = ModelPackage.open(asked.package)
    if (reason := why_not(package, asked.target)) is not None:
        raise VerdictError(reason)
    source = open_source(Path(asked.source).read_bytes(), asked.target)
    names = _wanted(source, asked)
    chosen = choose(package, asked.calibration_rows) if asked.target in STATIC else None
    content = quantize(source, names, None if chosen is None else chosen.x)
    if len(content) >= len(source.content):
        raise VerdictError(
            f"{asked.target} would take {len(content)} bytes instead of {len(source.content)}: the layers are too small; keep the float one"
        )
    Path(asked.result).write_bytes(content)
    facts: dict[str, Any] = {"quantized_layers": len(names), "float_layers": list(asked.keep_float)[:_MAX_NAMED]}
    if chosen is not None:
        facts["calibration"] = chosen.facts
    operators, opset = _operators(source, content)
    taken = takes_missing(package, source, names)
    return answer(Made(notes=_notes(asked), operators=operators, opset=opset, takes_missing=taken, facts=facts))


def why_not(package: ModelPackage, target: str) -> str | None:
    """Why a package has no such target, without looking into its model; None where it may have it."""
    family = package.index.family
    if family in _TREES:
        return NO_TREES
    if family == "constant":
        return "a constant has no weights: there is nothing to quantize"
    if family == "svm" and target.startswith("onnx"):
        return "support vectors are compared in float64: integers would lose the distances; use onnx-fp32"
    if target in STATIC and (count := len(package.rows("calibration").x)) < MIN_ROWS:
        return f"{count} calibration rows are too few, at least {MIN_ROWS} are needed; train with more rows"
    return None


def takes_missing(package: ModelPackage, source: Source, names: list[str]) -> bool:
    """Whether rows with missing values are answered as the float graph answers them.

    Integer arithmetic that meets NaN answers it with confidence; so no NaN may reach it for any row that the schema allows. Float
    arithmetic passes NaN on, which a network does as well; what the float variant answers with a number, this one does too.
    """
    rows = missing_rows(package)
    if len(rows) == 0:
        return True
    if source.target in FLOAT_ARITHMETIC:
        found = answers_of(source.content, source.is_onnx, rows)
        return package.index.family == "keras" or all(bool(np.isfinite(values).all()) for values in found.values())
    return not missing_reaches(source, names, rows)


def missing_rows(package: ModelPackage) -> NDArray[np.float32]:
    """Calibration rows with missing values wherever the schema allows them: all at once, and every third in turn; none if it allows none.

    Categories are unseen in the first of them, which an imputer may also turn into NaN.
    """
    inputs = package.inputs()
    open_columns = np.array([column.missing for column in inputs])
    categories = np.array([column.kind == "category" for column in inputs])
    x = package.rows("calibration").x[:_PROBES].copy()
    if len(x) == 0:
        x = np.zeros((1, *package.row_shape), np.float32)
    if not (open_columns.any() or categories.any()):
        return x[:0]
    first = x[:1].copy()
    first[..., categories] = -1.0
    first[..., open_columns] = np.nan
    for i in range(len(x)):
        x[i][..., open_columns & ((np.arange(len(inputs)) + i) % 3 == 0)] = np.nan
    unseen = first.copy()
    unseen[..., open_columns] = 0.0
    return np.concatenate([first, unseen, x])


def _wanted(source: Source, asked: Job) -> list[str]:
    unknown = sorted(set(asked.keep_float) - set(source.names))
    if unknown:
        raise ConfigError(f"no layer {unknown[0]!r} to keep float; the graph has {', '.join(source.names[:_MAX_NAMED])}")
    names = [name for name in source.names if name not in set(asked.keep_float)]
    if not names:
        raise VerdictError("every layer is kept float: nothing is left to quantize")
    return names


def _operators(source: Source, content: bytes) -> tuple[list[str], int]:
    if source.is_onnx:
        from converter.quantize.onnx_layers import operators_of, opset_of, read_onnx

        model = read_onnx(content)
        return operators_of(model), opset_of(model)
    from converter.to_tflite.flat import checked_operators

    return checked_operators(content), 0


def _notes(asked: Job) -> list[str]:
    notes = []
    if asked.target == "onnx-fp16":
        notes.append("Weights are stored in half precision and widened when the graph is loaded: a smaller file, the speed of fp32.")
    if asked.target == "onnx-int8-dynamic":
        notes.append(onnx_dynamic.NOTE)
    if asked.target == "tflite-int16x8":
        notes.append("Few processors have fast kernels for 16-bit activations: expect it to be slower than fp32.")
    if asked.keep_float:
        notes.append(f"Layers kept float: {', '.join(asked.keep_float[:_MAX_NAMED])}.")
    return notes
