"""What an imported graph is and may become, seen in a child process: its form, and why a target is impossible."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.isolate import ChildFailed, run_isolated
from edgefleet.errors import EdgefleetError, VerdictError
from edgefleet.package import ModelPackage

FAMILIES: Final = ("onnx", "tflite")
_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True)
class Seen:
    """What was seen.

    Attributes:
        form: Target that the file is already, `onnx-fp32` or `tflite-int8` for example; "" where it cannot be wrapped.
        refused: Why it cannot be wrapped, or "".
        reasons: Why a target made from it has nothing to work on, by target.
    """

    form: str = ""
    refused: str = ""
    reasons: dict[str, str] | None = None


def seen(package: ModelPackage) -> Seen:
    """Look at a package's graph; once for each package in a process."""
    return _seen(package.folder.resolve(), package.digest)


@functools.lru_cache(maxsize=8)
def _seen(folder: Path, digest: str) -> Seen:
    del digest  # packages are looked at by content: a folder may hold another one later
    try:
        return msgspec.convert(run_isolated("converter.imported.looking:look", {"package": str(folder)}, timeout_s=_TIMEOUT_S), Seen)
    except ChildFailed as err:
        return Seen(refused=err.reason)


def look(job: dict[str, Any]) -> dict[str, Any]:
    """The child's work: open the graph of `package` (a folder) and say what it is."""
    package = ModelPackage.open(job["package"])
    try:
        found = _onnx(package) if package.index.family == "onnx" else _tflite(package)
    except EdgefleetError as err:
        found = Seen(refused=str(err))
    document: dict[str, Any] = msgspec.to_builtins(found)
    return document


def _onnx(package: ModelPackage) -> Seen:
    from converter.imported.onnx_file import form_of, open_onnx
    from converter.imported.onnx_graph import wrapped_onnx
    from converter.imported.signature import graph_signature
    from converter.quantize.graphs import open_source

    form = form_of(open_onnx(package.read(package.index.model), graph_signature(package)).model)
    graph, reasons = wrapped_onnx(package), {}
    for target in ("onnx-fp16", "onnx-int8", "onnx-int8-dynamic") if form == "onnx-fp32" else ():
        try:
            open_source(graph, target)
        except VerdictError as err:
            reasons[target] = str(err)
    return Seen(form, "", reasons)


def _tflite(package: ModelPackage) -> Seen:
    from converter.imported.answers import check_memory
    from converter.imported.signature import graph_signature
    from converter.imported.tflite_file import WEIGHTED, float_weights, form_of, open_tflite
    from converter.quantize.tflite import WEIGHTED as QUANTIZED

    model = open_tflite(package.read(package.index.model), graph_signature(package)).model
    form = form_of(model)
    check_memory(package)
    reasons = {}
    if form == "tflite-fp32" and not float_weights(model, QUANTIZED):
        nothing = f"none of its operators has float32 weights that can be integer ({', '.join(QUANTIZED)}): there is nothing to quantize"
        reasons = dict.fromkeys(("tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights", "tflite-int16x8"), nothing)
    if form == "tflite-fp32" and not float_weights(model, WEIGHTED):
        reasons["tflite-fp16"] = "none of its operators has float32 weights: half precision would make nothing smaller"
    return Seen(form, "", reasons)
