"""HTTP/1.1 as bytes (RFC 9112): strict where two readers could disagree, because that is where requests are smuggled.

Refused: chunked bodies (411; no client of the protocols sends them), folded headers, spaces before a colon, contradicting lengths.
No sockets in here. `http.server` does the same at several times the cost: it parses headers as an e-mail.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from device_agent.doors.http.exchange import Refused, Response

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MAX_HEADERS: Final = 64
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Head:
    """Request line and headers.

    Attributes:
        method: As it came.
        path: Decoded, without query.
        headers: Lower-case names; a name that came twice has its values joined by commas.
        length: Bytes of the body.
        keep_alive: Whether the client wants another turn.
        expects_continue: Whether it waits for `100 Continue` before it sends the body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    length: int
    keep_alive: bool
    expects_continue: bool


def parse_head(raw: bytes) -> Head:
    """Everything before the empty line.

    Raises:
        Refused: 400, 411 or 505; the connection cannot go on after it.
    """
    text = raw.decode("latin-1")
    lines = text.split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[1]:
        raise _bad(f"the request line {lines[0][:80]!r} is not METHOD PATH HTTP/1.1")
    if (wrong := _CONTROL.search(text)) is not None:
        raise _bad(f"the head has the control character {wrong[0]!r}")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(505, f"{version[:20]!r} is not spoken here; use HTTP/1.1", "malformed")
    headers = _headers(lines[1:])
    if version == "HTTP/1.1" and "host" not in headers:
        raise _bad("the header Host is missing")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    expects = headers.get("expect", "").lower() == "100-continue"
    return Head(method, _path(target), headers, _length(headers), keep_alive, expects)


def phrase(status: int) -> str:
    """The status in words."""
    return _PHRASES.get(status, "")


def format_response(response: Response, close: bool, without_body: bool = False) -> bytes:
    """One answer as the bytes of one write.

    Args:
        response: The answer.
        close: Say that the connection ends here.
        without_body: The answer to a HEAD request.
    """
    lines = [
        f"HTTP/1.1 {response.status} {phrase(response.status)}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nDate: {_date()}\r\n"
    ]
    lines += [f"{name}: {value}\r\n" for name, value in response.headers]
    lines.append("Connection: close\r\n\r\n" if close else "\r\n")
    head = "".join(lines).encode("latin-1")
    return head if without_body else head + response.body


def _headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > MAX_HEADERS:
        raise Refused(431, f"{len(lines)} headers exceed the limit of {MAX_HEADERS}", "malformed")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        lower = _lower(name)
        if not colon or lower is None:
            raise _bad(f"the header {line[:80]!r} is malformed")
        name, value = lower, value.strip(" \t")
        if name in headers:
            if name in ("host", "content-length") and headers[name] != value:
                raise _bad(f"the header {name} came twice, with {headers[name][:40]!r} and {value[:40]!r}")
            value = value if name in ("host", "content-length") else f"{headers[name]}, {value}"
        headers[name] = value
    return headers


@lru_cache(256)
def _lower(name: str) -> str | None:
    """A header's name in lower case, None when it is none; clients send the same few again and again."""
    return name.lower() if _TOKEN.fullmatch(name) else None


def _length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refused(411, "a body in chunks is not read here; send Content-Length", "malformed")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _bad(f"Content-Length {text[:40]!r} is not a number of bytes")
    return int(text)


def _path(target: str) -> str:
    if target.startswith(("http://", "https://")):  # as clients behind a proxy write it
        try:
            target = urlsplit(target).path or "/"
        except ValueError as err:
            raise _bad(f"the address {target[:80]!r} cannot be read") from err
    path = target.partition("?")[0]
    return unquote(path) if "%" in path else path


def _bad(text: str) -> Refused:
    return Refused(400, text, "malformed")


_dated: tuple[int, str] = (0, "")


def _date() -> str:
    global _dated  # noqa: PLW0603  # one text a second serves every answer
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, _http_date(now))
    return _dated[1]


def _http_date(now_s: int) -> str:
    """RFC 9110, section 5.6.7; `email.utils` says the same and takes a megabyte."""
    at = time.gmtime(now_s)
    clock = f"{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
    return f"{_DAYS[at.tm_wday]}, {at.tm_mday:02d} {_MONTHS[at.tm_mon - 1]} {at.tm_year:04d} {clock} GMT"
