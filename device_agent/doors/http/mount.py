"""The same application under a WSGI server, for more requests a second than the door's own server answers.

`granian --interface wsgi --factory device_agent.doors.http.mount:from_environment` serves the bundle folder that EDGEFLEET_BUNDLE names,
with the bearer token in the file EDGEFLEET_TOKEN_FILE if that is set. TLS, connections and times are then that server's matter.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from device_agent.doors.answering import Answering
from device_agent.doors.http.access import read_token
from device_agent.doors.http.application import Application
from device_agent.doors.http.exchange import Refused, Request, Response
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.wire import phrase
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_HEADERS: Final = {
    "HTTP_HOST": "host",
    "HTTP_ORIGIN": "origin",
    "HTTP_AUTHORIZATION": "authorization",
    "HTTP_CONTENT_ENCODING": "content-encoding",
    "HTTP_INFERENCE_HEADER_CONTENT_LENGTH": "inference-header-content-length",
    "CONTENT_TYPE": "content-type",
}


def from_environment() -> WsgiApp:
    """A WSGI application for the bundle that the environment names.

    Raises:
        ConfigError: EDGEFLEET_BUNDLE is not set.
    """
    folder = os.environ.get("EDGEFLEET_BUNDLE")
    if not folder:
        raise ConfigError("EDGEFLEET_BUNDLE is not set; set it to a bundle folder")
    token_file = os.environ.get("EDGEFLEET_TOKEN_FILE")
    models = Answering()
    models.install(Scorer.open(folder))
    token = read_token(Path(token_file)) if token_file else None
    return wsgi(Application(models, Limits(), token, local_only=False), Limits())


def wsgi(application: Application, limits: Limits) -> WsgiApp:
    """The application as a WSGI callable."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = _answer(application, limits, environ)
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body
        headers = [("Content-Type", response.content_type), ("Content-Length", str(len(response.body))), *response.headers]
        start_response(f"{response.status} {phrase(response.status)}", headers)
        return [body]

    return call


def _answer(application: Application, limits: Limits, environ: dict[str, Any]) -> Response:
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
    text = environ.get("CONTENT_LENGTH") or "0"
    scoring = method == "POST" and (path == "/invocations" or path.endswith("/infer"))
    if "HTTP_TRANSFER_ENCODING" in environ or not (text.isascii() and text.isdigit() and len(text) <= 18):
        return application.refuse_unread(Refused(411, "a body needs a Content-Length", "malformed"), scoring)
    length = int(text)
    if length > limits.body_bytes:
        text = f"a body of {length} bytes exceeds the limit of {limits.body_bytes}; send fewer rows at once, or binary tensors"
        return application.refuse_unread(Refused(413, text, "body-size"), scoring)
    headers = {ours: environ[theirs] for theirs, ours in _HEADERS.items() if theirs in environ}
    return application(Request(method, path, headers, environ["wsgi.input"].read(length) if length else b""))
