"""A request and its answer, free of sockets, so that any HTTP server can carry them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

JSON: Final = "application/json"  # exactly: kserve's client loses the message of an error with `; charset=utf-8`
TEXT: Final = "text/plain; charset=utf-8"
RETRY: Final = (("Retry-After", "1"),)


@dataclass(slots=True)
class Request:
    """One request as it came.

    Attributes:
        method: Upper case.
        path: Without query.
        headers: Lower-case names.
        body: Whole.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """One answer; `headers` without Content-Type and Content-Length."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())


class Refused(Exception):
    """A request that gets an answer other than what it asked for.

    Attributes:
        status: HTTP status.
        reason: Under which its rows are counted as rejected; "shed" counts them as shed.
        headers: For the answer.
    """

    def __init__(self, status: int, text: str, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.status, self.reason, self.headers = status, reason, headers
        super().__init__(text)


def json_response(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """JSON; NaN and infinity become null."""
    return Response(status, msgspec.json.encode(value), JSON, headers)


def error_response(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """The protocol's form of an error."""
    return json_response({"error": text}, status, headers)
