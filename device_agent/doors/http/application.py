"""The door without its sockets: one request in, one answer out, and every row counted. Any HTTP server can carry it.

Routes are a table. What a client sends never raises: what is wrong with it becomes a 4xx with the value, the limit and the remedy, what
fails in here a 500 that is logged. Errors have the form of the protocol that was asked: `{"error": ...}`, or MLflow's for `/invocations`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import urlsplit

from device_agent.doors.http import invocations, metadata
from device_agent.doors.http.counters import Counters, Tally
from device_agent.doors.http.exchange import RETRY, Refused, Request, Response, error_response, json_response
from device_agent.doors.http.explaining import SUFFIX, explain
from device_agent.doors.http.inference import infer
from device_agent.doors.http.metrics import METRICS, metrics_text
from device_agent.doors.http.rows import Models, running_model
from device_agent.doors.http.settings import Limits

LOG = logging.getLogger(__name__)

INFER: Final = "infer"
EXPLAIN: Final = "explain"
INVOCATIONS: Final = "invocations"
# Routes whose requests bring rows.
SCORING: Final = frozenset({INFER, EXPLAIN, INVOCATIONS})
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# Answered without a token: an orchestrator's probes have none.
_OPEN: Final = frozenset({"/v2/health/live", "/v2/health/ready", "/ping", "/health"})
_PAGE_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)


class Earlier(Models, Protocol):
    """The model before the running one; it may raise an EdgefleetError where it cannot be opened."""

    @property
    def version(self) -> str:
        """What callers know it by, "" when there is none."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What the door is told by whoever runs it.

    Attributes:
        version: Says the release counter of the running model, "1" where nobody knows it.
        about: Facts for the page, name -> text; called for every view of it.
        earlier: Answers who asks for the version before, or None.
    """

    version: Callable[[], str] = lambda: "1"
    about: Callable[[], Mapping[str, str]] = dict
    earlier: Earlier | None = None


class Application:
    """The door's answers.

    Args:
        models: Who answers rows.
        limits: Bounds.
        token: Bearer token that requests must bring, or None.
        local_only: Refuse requests that name another host than this machine: a web page can point its own name at 127.0.0.1.
        surroundings: Version and facts.

    Attributes:
        counters: What was counted.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        token: bytes | None = None,
        local_only: bool = True,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._models, self._limits, self._token, self._local_only = models, limits, token, local_only
        self._surroundings = surroundings or Surroundings()
        self.counters = Counters()
        self._started = time.monotonic()
        self._fixed: dict[str, tuple[str, str, Callable[[Request], Response]]] = {
            "/v2": ("GET", "metadata", lambda _: json_response(metadata.server_metadata())),
            "/v2/health/live": ("GET", "live", lambda _: json_response({"live": True})),
            "/v2/health/ready": ("GET", "ready", self._ready),
            "/v2/repository/index": ("POST", "index", self._index),
            "/ping": ("GET", "live", lambda _: Response(200, b"\n")),
            "/health": ("GET", "live", lambda _: Response(200, b"\n")),
            "/metrics": ("GET", "metrics", self._metrics),
            "/openapi.json": ("GET", "openapi", self._openapi),
            "/": ("GET", "page", self._page),
        }

    def __call__(self, request: Request) -> Response:
        """Answer one request; raises nothing for what a client sends."""
        tally: Tally | None = None
        path = request.path if request.path == "/" else request.path.rstrip("/")
        route, start = INVOCATIONS if path == "/invocations" else "unknown", time.perf_counter()
        try:
            self._admit(path, request.headers)  # first: what there is and what not is nobody's matter who may not ask
            route, answer = self._route(request, path)
            if route in SCORING:
                tally = Tally()
            response = answer(tally)
        except Refused as err:
            if tally is not None:
                tally.settle(err.reason)
            response = invocations.error_response(err) if route == INVOCATIONS else error_response(err.status, str(err), err.headers)
        except Exception as err:
            LOG.exception("%s %s", request.method, request.path[:200])
            if tally is not None:
                tally.settle("internal")
            text = f"the door failed on this request: {type(err).__name__}; the agent's log has more"
            response = error_response(500, text)
        self.counters.add(route, response.status, tally, time.perf_counter() - start)
        return response

    def refusal(self, headers: Mapping[str, str]) -> Refused | None:
        """Why who sends these headers may not send a large body, None when he may; also a probe's paths are not open to that."""
        try:
            self._admit("", headers)
        except Refused as err:
            return err
        return None

    def refuse_unread(self, refusal: Refused, scoring: bool) -> Response:
        """The answer to a request that the server does not hand over because of its head, or because too many are here."""
        if scoring:
            self.counters.add_unread(refusal.status, refusal.reason)
        else:
            self.counters.add("unread", refusal.status)
        return error_response(refusal.status, str(refusal), refusal.headers)

    def _route(self, request: Request, path: str) -> tuple[str, Callable[[Tally | None], Response]]:
        if (fixed := self._fixed.get(path)) is not None:
            method, route, call = fixed
            _check_method(request.method, method)
            return route, lambda _: call(request)
        if path == "/invocations":
            _check_method(request.method, "POST")
            return INVOCATIONS, lambda tally: invocations.invocations(self._models, request, self._limits, tally or Tally())
        if path.startswith("/v2/models/"):
            return self._model_route(request, path)
        raise _missing(path)

    def _model_route(self, request: Request, path: str) -> tuple[str, Callable[[Tally | None], Response]]:
        name, *rest = path.removeprefix("/v2/models/").split("/")
        models, version = self._models, self._surroundings.version()
        if self._models.in_service is None and request.method == "POST" and path.endswith("/infer"):
            return INFER, lambda tally: infer(self._models, "", request, self._limits, tally or Tally())  # counted, and refused
        scorer = running_model(models)
        project = scorer.bundle.manifest.project
        explainer = name == project + SUFFIX and scorer.can_explain
        if name != project and not explainer:
            raise Refused(404, f"there is no model {name[:80]!r} here, only {project!r}", "unknown")
        if rest[:1] == ["versions"]:
            models, version = self._of_version("/".join(rest[1:2]), name)
            rest = rest[2:]
        if rest == ["infer"]:
            _check_method(request.method, "POST")
            call = explain if explainer else infer
            route = EXPLAIN if explainer else INFER
            return route, lambda tally: call(models, version, request, self._limits, tally or Tally())
        if rest in ([], ["ready"]):
            _check_method(request.method, "GET")
            if rest:
                return "metadata", lambda _: json_response({"name": name, "ready": True})
            versions = self._versions(version)
            return "metadata", lambda _: json_response(metadata.model_metadata(running_model(models), versions, explainer))
        raise _missing(path)

    def _admit(self, path: str, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._local_only and _host_name(host) not in _LOCAL_NAMES:
            raise Refused(421, f"the host {host[:80]!r} is not this machine; ask for localhost", "unknown")
        origin = headers.get("origin")
        if origin is not None and _origin_host(origin) != host:
            raise Refused(403, f"a page of {origin[:80]!r} may not use this device", "unknown")
        if self._token is not None and path not in _OPEN:
            import hmac

            given = headers.get("authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                raise Refused(401, "send the header Authorization: Bearer TOKEN", "unknown", (("WWW-Authenticate", "Bearer"),))

    def _ready(self, _: Request) -> Response:
        if self._models.in_service is None:
            return json_response({"live": True, "ready": False, "error": "no model is installed yet"}, 503, RETRY)
        # kserve's client reads `ready`, the specification's text says `live`.
        return json_response({"live": True, "ready": True})

    def _index(self, request: Request) -> Response:
        return json_response(metadata.repository_index(request.body, self._models.in_service, self._versions(self._surroundings.version())))

    def _of_version(self, asked: str, name: str) -> tuple[Models, str]:
        """Who answers for a version; nothing is opened before the request is admitted."""
        version, earlier = self._surroundings.version(), self._surroundings.earlier
        if asked == version:
            return self._models, version
        if earlier is None or not asked or asked != earlier.version:
            told = " and ".join(self._versions(version))
            raise Refused(404, f"model {name[:80]!r} has version {told}, not {asked[:80]!r}", "unknown")
        return earlier, asked

    def _versions(self, first: str) -> list[str]:
        """All versions that answer, `first` in front."""
        earlier = self._surroundings.earlier
        others = [self._surroundings.version(), "" if earlier is None else earlier.version]
        return [first, *(one for one in others if one not in ("", first))]

    def _metrics(self, _: Request) -> Response:
        text = metrics_text(self.counters.now(), self._models.in_service, self._surroundings.version())
        return Response(200, text.encode(), METRICS)

    def _openapi(self, _: Request) -> Response:
        from device_agent.doors.http.openapi import openapi

        return json_response(openapi(self._models.in_service, self._surroundings.version(), self._limits, self._token is not None))

    def _page(self, _: Request) -> Response:
        from device_agent.doors.http.page import render_page

        uptime_s = time.monotonic() - self._started
        facts = self._surroundings.about()
        page = render_page(self.counters.now(), self._models.in_service, self._surroundings.version(), facts, uptime_s)
        return Response(200, page.encode(), "text/html; charset=utf-8", _PAGE_HEADERS)


def _check_method(method: str, allowed: str) -> None:
    if method == allowed or (method == "HEAD" and allowed == "GET"):
        return
    names = "GET, HEAD" if allowed == "GET" else allowed
    raise Refused(405, f"{method[:20]} is not answered here, only {names}", "unknown", (("Allow", names),))


def _missing(path: str) -> Refused:
    return Refused(404, f"there is no {path[:200]!r} here; see /openapi.json", "unknown")


def _origin_host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


@lru_cache(64)
def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
