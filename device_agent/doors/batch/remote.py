"""Sends requests of the Open Inference Protocol to a server, one at a time over one connection: what `mlserver infer` did.

A connection that breaks and a server that sheds load (503) are tried again; a server that stays away ends the run, which can be resumed.
"""

import http.client
import json
import math
import ssl
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlsplit

from device_agent.doors.batch.oip import LineAnswer, place_of, refusal, rows_in
from device_agent.doors.batch.rows import BadRow, Chunk, Tally
from device_agent.doors.batch.windows import Windows
from edgefleet.errors import ConfigError, RowRejected, TransportError

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
TIMEOUT_S: Final = 60.0
# Pauses before another try, in seconds.
PAUSES_S: Final = (0.1, 0.5, 2.0)
_BINARY: Final = ("binary_data_output", "binary_data", "binary_data_size")


class RemoteLines:
    """Answers requests by a server's HTTP door.

    Args:
        url: Base address, for example http://127.0.0.1:8080.
        model: Name of the model, None for the only one that the server has.
        token: Bearer token, "" for none.
        pause: Waits some seconds.

    Attributes:
        windows: None: a request brings whole windows.

    Raises:
        ConfigError: No such address, or the server has several models.
        TransportError: The server cannot be reached.
    """

    windows: Windows | None = None

    def __init__(self, url: str, model: str | None = None, token: str = "", pause: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as err:
            raise ConfigError(f"--url {url[:80]}: {err}") from err
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url {url[:80]} is no address; expected http://HOST:PORT or https://HOST:PORT")
        if "@" in parts.netloc:
            raise ConfigError("--url: a password in a URL can be seen by everybody on the machine; use --token-file FILE")
        self.url = url.rstrip("/")
        self._base, self._pause = parts.path.rstrip("/"), pause
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(parts.hostname, port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            self.model = model or self._only_model()
        except BaseException:
            self._connection.close()
            raise

    def answer(self, chunk: Chunk) -> LineAnswer:
        """Send the one request of a chunk, and give back the response.

        Raises:
            TransportError: The server cannot be reached.
        """
        request = chunk.rows[0]
        if isinstance(request, RowRejected):
            return refusal(chunk, None, request)
        code, response = self._ask(f"/v2/models/{quote(self.model, safe='')}/infer", _without_binary(request))
        rows = rows_in(request)
        if code != 200 or not isinstance(response.get("outputs"), list):
            text = str(response.get("error") or response.get("detail") or response)[:300]
            err = RowRejected(None, text, f"a request that {self.url} answers (it said {code})", f"http-{code}")
            answer = refusal(chunk, request, err, rows, "inference error")
            answer.response["error"]["msg"] = f"{self.url} answered {code}: {text}"
            return answer
        errors, flags = [text for text in _values_of(response, "error") if text][:rows], _values_of(response, "outlier")
        tally = Tally(rows, rows - len(errors), 0, {"server": len(errors)} if errors else {}, sum(flag is True for flag in flags))
        told = response.get("parameters")
        response["parameters"] = {**(told if isinstance(told, dict) else {}), **place_of(chunk)}
        bad = [BadRow(chunk.first, chunk.lines[0], RowRejected(None, "a row of the request", str(text)[:300], "server")) for text in errors]
        return LineAnswer(response, tally, bad)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _only_model(self) -> str:
        code, index = self._ask("/v2/repository/index", {})
        entries = index.get("list", []) if code == 200 else []
        names = sorted({str(entry.get("name")) for entry in entries if isinstance(entry, dict)})
        names = [name for name in names if not name.endswith(".explainer")]
        if len(names) != 1:
            there = f"there are {', '.join(names[:8])}" if names else f"{self.url} does not list its models (it said {code})"
            raise ConfigError(f"--model is needed: {there}")
        return names[0]

    def _ask(self, path: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = json.dumps(document).encode()
        for pause_s in (*PAUSES_S, None):
            try:
                code, content = self._once(path, body)
            except (OSError, http.client.HTTPException) as err:
                self._connection.close()
                if pause_s is None:
                    raise TransportError(
                        f"{self.url}: cannot be reached: {err or type(err).__name__}; try again, with --resume to go on"
                    ) from err
            else:
                if code != 503 or pause_s is None:
                    return code, _document(content)
            self._pause(pause_s)
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", self._base + path, body, self._headers)
        answer = self._connection.getresponse()
        content = answer.read(MAX_RESPONSE_BYTES + 1)
        if len(content) > MAX_RESPONSE_BYTES:
            self._connection.close()
            raise TransportError(f"{self.url}: an answer of more than {MAX_RESPONSE_BYTES} bytes; send fewer rows in one request")
        return answer.status, content


def _values_of(response: dict[str, Any], name: str) -> list[Any]:
    """Values of an output, [] where a server gives none of that name or form."""
    named = [output for output in response["outputs"] if isinstance(output, dict) and output.get("name") == name]
    return [value for output in named if isinstance(found := output.get("data"), list) for value in found]


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _document(content: bytes) -> dict[str, Any]:
    """A server's answer; what some of them write for numbers that there are not is null, as in ours."""
    try:
        value = json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        return {"error": content[:200].decode(errors="replace")}
    return value if isinstance(value, dict) else {"list": value}


def _without_binary(request: dict[str, Any]) -> dict[str, Any]:
    """The request without wishes for binary tensors: lines are JSON."""
    plain = dict(request)
    if isinstance(plain.get("parameters"), dict):
        plain["parameters"] = {key: value for key, value in plain["parameters"].items() if key not in _BINARY}
    if isinstance(plain.get("outputs"), list):
        plain["outputs"] = [
            {key: value for key, value in one.items() if key != "parameters"} if isinstance(one, dict) else one for one in plain["outputs"]
        ]
    return plain
