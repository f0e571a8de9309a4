"""HTTP as the fleet server's API speaks it: one server, one token; a refusal becomes the error of the one who must act."""

import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from edgefleet.errors import ConfigError, EdgefleetError, InputError, TransportError

API: Final = "/api/v1"
TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024

Json = dict[str, Any]


class ServerRefusedError(InputError):
    """The server said no.

    Attributes:
        status: HTTP status of the answer.
    """

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(detail)


class Api:
    """Calls of one server's API.

    Args:
        url: http://HOST:PORT or https://...
        token: Bearer token, None for what needs none.
        timeout_s: Of one call.

    Raises:
        ConfigError: No such address.
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"server {url[:80]!r} is not understood: use http://HOST:PORT")
        self.url = url.rstrip("/")
        self._token, self._timeout_s = token, timeout_s

    def call(self, method: str, path: str, body: Json | None = None, content: bytes | None = None) -> Any:
        """The answer to a call with a JSON body, or with bytes.

        Raises:
            ServerRefusedError: The server says no.
            TransportError: No server answers, or it is in trouble.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif content is not None:
            headers["Content-Type"] = "application/octet-stream"
        answer = self.request(method, path, content, headers)
        try:
            return json.loads(answer) if answer else None
        except ValueError as err:
            raise TransportError(f"{self.url}{API}{path}: the answer is no JSON; is this a fleet server?") from err

    def request(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> bytes:
        """The bytes of an answer; errors as `call`."""
        if self._token is not None:
            headers = headers | {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self.url}{API}{path}", data=content, headers=headers, method=method)  # noqa: S310  # http(s) only, checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as answer:  # noqa: S310  # the same
                return cast(bytes, answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as err:
            with err:
                raise _refusal(err.code, err.read(65_536)) from None
        except (urllib.error.URLError, http.client.HTTPException, OSError) as err:
            reason = getattr(err, "reason", err)
            raise TransportError(f"{self.url}: the fleet server does not answer: {reason}; is it running, is the address right?") from err


def _refusal(status: int, content: bytes) -> EdgefleetError:
    try:
        detail = str(json.loads(content)["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered with status {status}"
    if status >= 500:
        return TransportError(detail)
    return ServerRefusedError(status, detail)


def token_from_environment(token_file: Path | None) -> str | None:
    """The token: from the file given, else EDGEFLEET_TOKEN, else the file that EDGEFLEET_TOKEN_FILE names.

    Never from the command line, where every user of the machine can read it.

    Raises:
        ConfigError: A file was named and cannot be read.
    """
    named = token_file or (Path(name) if (name := os.environ.get("EDGEFLEET_TOKEN_FILE")) else None)
    if token_file is None and (token := os.environ.get("EDGEFLEET_TOKEN")):
        return token.strip()
    if named is None:
        return None
    try:
        return named.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{named}: the token cannot be read: {err}") from err
