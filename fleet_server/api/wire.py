"""Bodies in, bodies out, errors out: the one place where HTTP's forms are known."""

import logging
from typing import Any, Final, TypeVar

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from edgefleet.errors import EdgefleetError, InputError
from fleet_server.errors import LengthRequiredError, TooLargeError, UnsupportedMediaError, status_of

LOG = logging.getLogger(__name__)

PROBLEM: Final = "application/problem+json"
JSON: Final = "application/json"
API_PATHS: Final = ("/api/", "/healthz")
MAX_LIMIT: Final = 1_000
MAX_HOURS: Final = 8_760

T = TypeVar("T")


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies: unknown fields are errors, because a misspelt field is never what was meant."""


class Why(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of what asks for a person's reason and for nothing else."""

    reason: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457: what went wrong, for programs (status, title) and people (detail)."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"


def parse(kind: type[T]) -> T:
    """The request's JSON body as `kind`, strictly.

    Raises:
        UnsupportedMediaError: Another content type.
        LengthRequiredError: No Content-Length, so that a cut-off body could not be seen.
        TooLargeError: Larger than accepted.
        InputError: Not JSON, or not of this form.
    """
    if request.mimetype != JSON:
        raise UnsupportedMediaError(f"content type {request.mimetype[:60] or 'none'!r} is not accepted; send {JSON}")
    declared_length()
    try:
        return msgspec.json.decode(request.get_data(cache=False), type=kind)
    except RequestEntityTooLarge as err:
        raise TooLargeError(f"the body exceeds the limit of {request.max_content_length} bytes") from err
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InputError(f"the body is not what this address takes: {str(err)[:300]}") from err


def declared_length() -> int:
    """Content-Length of the request.

    Raises:
        LengthRequiredError: It is missing.
        TooLargeError: It is above this address's limit.
    """
    length = request.content_length
    if length is None:
        raise LengthRequiredError("the request has no Content-Length; send the body in one piece with its length")
    limit = request.max_content_length
    if limit is not None and length > limit:
        raise TooLargeError(f"the body has {length} bytes, the limit is {limit}")
    return length


def reply(value: Any, status: int = 200, *, etag: str | None = None) -> Response:
    """A JSON answer; times are ISO 8601 in UTC, NaN is null."""
    response = Response(msgspec.json.encode(value), status, content_type=JSON)
    response.headers["Cache-Control"] = "no-store"
    if etag is not None:
        response.set_etag(etag)
        response.headers["Cache-Control"] = "no-cache"
        response.make_conditional(request)
    return response


def number(name: str, default: int, least: int, most: int) -> int:
    """A query parameter that is a whole number.

    Raises:
        InputError: It is none, or out of range.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise InputError(f"{name} = {text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)


def register_errors(app: Flask) -> None:
    """Deliberate errors and HTTP's own become problems; anything else is logged and says nothing about the inside."""

    @app.errorhandler(EdgefleetError)
    def deliberate(error: EdgefleetError) -> Response:
        status = status_of(error)
        if status >= 500:
            LOG.error("%s %s: %s", request.method, request.path, error)
        response = _problem(status, str(error))
        if status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="edgefleet"'
        return response

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> Response | HTTPException:
        if not request.path.startswith(API_PATHS):
            return error
        response = _problem(error.code or 500, error.description or error.name)
        for name, value in error.get_headers():
            if name in ("Allow", "Retry-After"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        LOG.exception("%s %s failed", request.method, request.path, exc_info=error)
        return _problem(500, "the server failed at this request; its log says why")


def _problem(status: int, detail: str) -> Response:
    body = Problem(status=status, title=_TITLES.get(status, "Error"), detail=detail)
    # A lone surrogate in a message cannot be encoded; what it stood for matters less than the answer.
    try:
        content = msgspec.json.encode(body)
    except UnicodeEncodeError:
        content = msgspec.json.encode(Problem(status=status, title=body.title, detail=ascii(detail)))
    return Response(content, status, content_type=PROBLEM, headers={"Cache-Control": "no-store"})


_TITLES: Final = {
    400: "Bad request",
    401: "Who are you",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    415: "Unsupported content type",
    416: "Range not satisfiable",
    422: "Not accepted",
    500: "Server error",
    503: "Not available",
    507: "Storage refused",
}
