"""Which layers suffer most from integers: one is quantized at a time, all others stay float; `sensitivity(job)` is a child's whole work."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.quantize.calibration import choose
from converter.quantize.graphs import answers_of, open_source, quantize
from converter.targets import job_of
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage

# Each layer costs one quantization and one pass over the rows; of deeper networks only the first ones are measured.
MAX_LAYERS: Final = 64
_MAX_ROWS: Final = 512


def sensitivity(job: dict[str, Any]) -> dict[str, Any]:
    """Damage by layer, against the float graph on the calibration rows.

    Args:
        job: As for `converter.quantize.make`; `keep_float` and `result` are not looked at.

    Returns:
        `layers` [{name, error}], largest error first: the mean absolute error of the probabilities, or of values and scores in units of
        their spread; `rows` that it was measured on, `layers_total`. A layer that cannot be integer alone is left out.

    Raises:
        VerdictError: Nothing can be quantized, or no layer alone.
    """
    asked = job_of(job)
    package = ModelPackage.open(asked.package)
    source = open_source(Path(asked.source).read_bytes(), asked.target)
    chosen = choose(package, asked.calibration_rows)
    rows = chosen.x[np.linspace(0, len(chosen.x) - 1, min(len(chosen.x), _MAX_ROWS)).astype(int)]
    exact = answers_of(source.content, source.is_onnx, rows)
    found: list[tuple[float, str]] = []
    refused = ""
    for name in source.names[:MAX_LAYERS]:
        try:
            content = quantize(source, [name], chosen.x)
        except VerdictError as err:
            refused = str(err)
            continue
        found.append((damage(exact, answers_of(content, source.is_onnx, rows)), name))
    if not found:
        raise VerdictError(f"no layer of this graph can be quantized alone for {asked.target}: {refused}")
    layers = [{"name": name, "error": error} for error, name in sorted(found, key=lambda entry: -entry[0])]
    return {"layers": layers, "rows": len(rows), "layers_total": len(source.names)}


def damage(exact: dict[str, NDArray[np.float32]], changed: dict[str, NDArray[np.float32]]) -> float:
    """Mean absolute error of the answers.

    >>> damage({"probabilities": np.float32([[0.5, 0.5]])}, {"probabilities": np.float32([[0.25, 0.75]])})
    0.25
    """
    name = "probabilities" if "probabilities" in exact else "margin"
    unit = 1.0 if name == "probabilities" else float(exact[name].std()) or 1.0
    return float(np.abs(exact[name].astype(np.float64) - changed[name]).mean() / unit)
