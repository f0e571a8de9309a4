"""The door's own description, OpenAPI 3.1, made for the model that runs now; every status that can come is named."""

from typing import Any

from device_agent.doors.http.explaining import SUFFIX
from device_agent.doors.http.metrics import METRICS
from device_agent.doors.http.settings import Limits
from device_agent.doors.oip.tensors import DTYPES, MAX_RANK
from device_agent.scorer import Scorer
from edgefleet import __version__

_ERRORS = {
    "400": "What was sent is wrong; the text says what, with value and limit",
    "401": "The bearer token is missing or wrong",
    "403": "A page of another origin asks",
    "405": "Another method",
    "408": "The request did not arrive in time",
    "411": "A body in chunks",
    "413": "Larger than the limits",
    "421": "The host is not this machine",
    "431": "Too many or too long headers",
    "500": "The model failed",
    "503": "Overload, no model, or no time; Retry-After says when to come again",
}


def openapi(scorer: Scorer | None, version: str, limits: Limits, with_token: bool) -> dict[str, Any]:
    """The document; without a model only the paths that are there."""
    paths: dict[str, Any] = {
        "/v2": {"get": _get("Server metadata", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _get("The process answers", _ref("Live"))},
        "/v2/health/ready": {"get": _get("A model is there", _ref("Ready"), {"503": _json("No model yet", _ref("Ready"))})},
        "/v2/repository/index": {"post": _index()},
        "/ping": {"get": _get("As MLflow's server answers", {"type": "null"}, body=None)},
        "/health": {"get": _get("As MLflow's server answers", {"type": "null"}, body=None)},
        "/metrics": {"get": _get("Prometheus' text form", {"type": "string"}, body=METRICS)},
        "/openapi.json": {"get": _get("This document", {"type": "object"})},
        "/": {"get": _get("One page for people", {"type": "string"}, body="text/html; charset=utf-8")},
    }
    if scorer is not None:
        project = scorer.bundle.manifest.project
        names = [project, project + SUFFIX] if scorer.can_explain else [project]
        for name in names:
            paths |= _model_paths(name, version)
        paths["/invocations"] = {"post": _invocations()}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgefleet device",
            "version": __version__,
            "description": "Open Inference Protocol v2 and MLflow's /invocations. "
            f"Limits: body {limits.body_bytes} bytes, {limits.elements} values a request, {limits.explained_rows} rows an explanation.",
        },
        "paths": paths,
        "components": {"schemas": _schemas(limits)},
    }
    if with_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _model_paths(name: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
        found[base] = {"get": _get("Model metadata", _ref("ModelMetadata"), _GONE)}
        found[f"{base}/ready"] = {"get": _get("The model is ready", _ref("ModelReady"), _GONE)}
        found[f"{base}/infer"] = {"post": _infer()}
    return found


def _get(summary: str, schema: dict[str, Any], more: dict[str, Any] | None = None, body: str | None = "application/json") -> dict[str, Any]:
    answer: dict[str, Any] = {"description": summary}
    answer["content"] = {body or "application/json": {"schema": schema}} if body else {"application/json": {}}
    return {"summary": summary, "responses": {"200": answer, **_errors(), **(more or {})}}


def _infer() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        "summary": "Score rows",
        "parameters": [
            {
                "name": "Inference-Header-Content-Length",
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "Bytes of the JSON part, where binary tensors follow it",
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("InferRequest")}}},
        "responses": {
            "200": {
                "description": "Answers; a refused row among others has nulls and its text in the output `error`",
                "content": {"application/json": {"schema": _ref("InferResponse")}, "application/octet-stream": binary},
            },
            **_errors(),
            **_GONE,
            "415": _json("An unknown Content-Encoding", _ref("Error")),
        },
    }


def _index() -> dict[str, Any]:
    body = {"required": False, "content": {"application/json": {"schema": _object({}, {"ready": {"type": "boolean"}})}}}
    return {"summary": "The models there are", "requestBody": body, "responses": {"200": _json("Index", _ref("Index")), **_errors()}}


def _invocations() -> dict[str, Any]:
    errors = {status: _json(text, _ref("InvocationError")) for status, text in _ERRORS.items()}
    content = {"application/json": {"schema": _ref("Invocation")}, "text/csv": {"schema": {"type": "string"}}}
    return {
        "summary": "Score rows as `mlflow models serve` does",
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _json("One record a row; a refused row among others has `error` and nulls", _ref("Predictions")),
            **{status: _either(one) if status in _BEFORE_ROUTE else one for status, one in errors.items()},
            "415": {"description": "Another content type", "content": {"text/plain; charset=utf-8": {"schema": {"type": "string"}}}},
        },
    }


# Of these the server answers some before it knows the path, in the form of the Open Inference Protocol.
_BEFORE_ROUTE = frozenset({"400", "408", "411", "413", "431", "500", "503"})


def _either(answer: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"anyOf": [_ref("InvocationError"), _ref("Error")]}}}
    return {"description": answer["description"], "content": content}


def _errors() -> dict[str, Any]:
    return {status: _json(text, _ref("Error")) for status, text in _ERRORS.items()}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_GONE = {"404": _json("There is no such model or version, or no longer", _ref("Error"))}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _schemas(limits: Limits) -> dict[str, Any]:
    text, names = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    dimensions = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    tensor_metadata = _object({"name": text, "datatype": {"enum": list(DTYPES)}, "shape": dimensions})
    shape = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": limits.elements}, "minItems": 1, "maxItems": MAX_RANK}
    parameters = {"type": "object"}
    data = {"type": "array", "description": "Flat, or nested as the shape says; null is a missing value"}
    tensor = _object({"name": text, "shape": shape, "datatype": {"enum": list(DTYPES)}}, {"data": data, "parameters": parameters})
    asked = _object({"name": text}, {"parameters": parameters})
    output = _object(
        {"name": text, "shape": {"type": "array", "items": {"type": "integer"}}, "datatype": text},
        {"data": {"type": "array"}, "parameters": parameters},
    )
    model = {"name": text, "versions": names, "platform": text, "inputs": _list(tensor_metadata), "outputs": _list(tensor_metadata)}
    frame = _object({"data": _list({"type": "array"})}, {"columns": names, "index": {"type": "array"}})
    return {
        "Error": _object({"error": text}),
        "InvocationError": _object({"error_code": text, "message": text}),
        "ServerMetadata": _object({"name": text, "version": text, "extensions": names}),
        "Live": _object({"live": {"type": "boolean"}}),
        "Ready": _object({"live": {"type": "boolean"}, "ready": {"type": "boolean"}}, {"error": text}),
        "ModelReady": _object({"name": text, "ready": {"type": "boolean"}}),
        "ModelMetadata": _object(model, {"parameters": parameters}),
        "Index": _list(_object({"name": text, "version": text, "state": text}, {"reason": text})),
        "InferRequest": _object(
            {"inputs": {**_list(tensor), "minItems": 1}}, {"id": text, "parameters": parameters, "outputs": _list(asked)}
        ),
        "InferResponse": _object({"model_name": text, "model_version": text, "outputs": _list(output)}, {"id": text}),
        "Invocation": {
            "oneOf": [
                _object({"dataframe_split": frame}),
                _object({"dataframe_records": _list({"type": "object"})}),
                _object({"instances": {"type": "array"}}),
                _object({"inputs": {"type": ["object", "array"]}}),
            ]
        },
        "Predictions": _object({"predictions": _list({"type": "object"})}),
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
