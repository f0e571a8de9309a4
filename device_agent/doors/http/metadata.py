"""What the protocol says about server and models: names, versions, data types and shapes."""

from typing import Any

import msgspec

from device_agent.doors.http.exchange import Refused
from device_agent.doors.http.explaining import SUFFIX, explainer_outputs
from device_agent.doors.http.rows import Output, outputs_of
from device_agent.doors.oip.columns import MATRIX, row_shape, takes_matrix
from device_agent.scorer import Scorer
from edgefleet import __version__
from edgefleet.manifest import Manifest

EXTENSIONS = ["binary_tensor_data"]


def server_metadata() -> dict[str, Any]:
    """Of `GET /v2`."""
    return {"name": "edgefleet", "version": __version__, "extensions": EXTENSIONS}


def model_metadata(scorer: Scorer, versions: list[str], explainer: bool) -> dict[str, Any]:
    """Of `GET /v2/models/M`; `parameters.columns` names the inputs in their order, which each may also be a tensor of its own."""
    manifest = scorer.bundle.manifest
    # The specification knows no platform for TFLite; this one has its form.
    platform = "onnx_onnxv1" if scorer.variant.runtime == "onnxruntime" else "tflite_tflite"
    return {
        "name": manifest.project + (SUFFIX if explainer else ""),
        "versions": versions,
        "platform": platform,
        "inputs": _inputs(manifest),
        "outputs": [_output(one) for one in (explainer_outputs(scorer) if explainer else outputs_of(scorer))],
        "parameters": {
            "bundle_digest": scorer.bundle.digest,
            "model_digest": scorer.digest,
            "variant": scorer.variant.name,
            "columns": [column.name for column in manifest.inputs],
            "classes": manifest.classes,
            **({"segment_rows_back": scorer.segment_rows_back} if explainer and scorer.segment_rows_back else {}),
        },
    }


class _IndexRequest(msgspec.Struct):
    ready: bool = False


def repository_index(body: bytes, scorer: Scorer | None, versions: list[str]) -> list[dict[str, str]]:
    """Of `POST /v2/repository/index`; all models and versions that are here are ready, so that `ready` changes nothing.

    Raises:
        Refused: A body that is neither empty nor an object of the protocol.
    """
    try:
        msgspec.json.decode(body or b"{}", type=_IndexRequest)
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise Refused(400, f"the body is no index request: {str(err)[:200]}", "malformed") from err
    if scorer is None:
        return []
    name = scorer.bundle.manifest.project
    names = [name, name + SUFFIX] if scorer.can_explain else [name]
    return [{"name": one, "version": version, "state": "READY", "reason": ""} for version in versions for one in names]


def _inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """One tensor where all columns are numbers, else one per column, because texts and numbers share no tensor."""
    if takes_matrix(manifest) and all(column.kind == "number" for column in manifest.inputs):
        return [{"name": MATRIX, "datatype": "FP32", "shape": [-1, *row_shape(manifest)]}]
    shape = [-1] if manifest.window_rows == 1 else [-1, manifest.window_rows]
    return [{"name": column.name, "datatype": "FP32" if column.kind == "number" else "BYTES", "shape": shape} for column in manifest.inputs]


def _output(output: Output) -> dict[str, Any]:
    return {"name": output.name, "datatype": output.datatype, "shape": [-1, *output.shape]}
