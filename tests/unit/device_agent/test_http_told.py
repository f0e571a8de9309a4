"""What the door tells about itself: metrics, page, OpenAPI document; and the same application under a WSGI server."""

import json
import re
import threading
import urllib.error
import urllib.request
import wsgiref.simple_server
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from device_agent.doors.http.application import Surroundings
from device_agent.doors.http.counters import BUCKETS, Counters, Tally
from device_agent.doors.http.mount import from_environment
from edgefleet.errors import ConfigError
from edgefleet.manifest import Input
from tests.unit.device_agent.bundles import forest_bundle, numbers
from tests.unit.device_agent.http_world import World, matrix, rows, world


def metrics(one: World) -> dict[str, float]:
    text = one.ask("GET", "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)}


def test_metrics_hold_the_sums_of_rows_the_latency_and_the_model(served: World) -> None:
    served.infer(matrix(rows(3)))
    served.infer(matrix(rows(1) * float("nan")))
    served.ask("POST", "/v2/models/tiny/infer", b"nonsense")

    found = metrics(served)

    assert found["edgefleet_http_rows_offered_total"] == 5
    assert found["edgefleet_http_rows_scored_total"] == 3
    assert found['edgefleet_http_rows_rejected_total{reason="missing"}'] == 1
    assert found['edgefleet_http_rows_rejected_total{reason="malformed"}'] == 1
    assert found["edgefleet_http_rows_shed_total"] == 0
    assert found['edgefleet_http_requests_total{route="infer",status="400"}'] == 2
    assert found['edgefleet_http_request_seconds_bucket{le="+Inf"}'] == found["edgefleet_http_request_seconds_count"] == 3
    assert found["edgefleet_http_request_seconds_sum"] > 0
    assert found["process_resident_memory_bytes"] > 10e6
    assert [v for k, v in found.items() if k.startswith('edgefleet_model_info{project="tiny",version="1",variant="onnx-fp32"')] == [1]


def test_buckets_are_cumulative_and_their_bounds_belong_to_them(served: World) -> None:
    counters, tally = Counters(), Tally()
    for seconds in (0.0001, 0.00011, 20.0):
        counters.add("infer", 200, tally, seconds)

    assert counters.now().latency == [1, 1, *[0] * (len(BUCKETS) - 2), 1]
    assert (counters.now().quantile_ms(0.5), counters.now().quantile_ms(1.0)) == (0.25, float("inf"))


def test_counts_of_many_threads_add_up() -> None:
    counters = Counters()

    def count() -> None:
        for _ in range(500):
            tally = Tally()
            tally.offered, tally.scored = 3, 2
            tally.settle("range")
            counters.add("infer", 200, tally, 0.001)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (counters.now().offered, counters.now().scored, counters.now().rejected) == (6000, 4000, {"range": 2000})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"


def test_the_page_shows_counts_model_and_facts_and_loads_nothing(forest: Path) -> None:
    with world(forest, Surroundings(about=lambda: {"Device": "press-7"})) as one:
        one.infer(matrix(rows(3)))
        reply = one.ask("GET", "/")
    page = _Page()
    page.feed(reply.body.decode())

    assert reply.headers["content-security-policy"].startswith("default-src 'none'")
    assert not [tag for tag, _ in page.tags if tag in {"script", "img", "iframe"}]
    assert not [a["href"] for tag, a in page.tags if tag == "link" and not str(a["href"]).startswith("data:")]
    for shown in ("tiny", "onnx-fp32", "press-7", "100.0% of offered", "f4"):
        assert shown in page.text


def test_the_page_escapes_what_a_bundle_brings(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    inputs = [Input(name=evil, unit=evil), *numbers()[1:]]
    with world(forest_bundle(tmp_path, inputs).folder, Surroundings(version=lambda: evil, about=lambda: {evil: evil})) as one:
        body = one.ask("GET", "/").body.decode()

    assert evil not in body
    assert body.count("&lt;script&gt;") >= 4


def test_the_page_without_a_model_says_so() -> None:
    with world(None) as one:
        assert "No model is installed yet" in one.ask("GET", "/").body.decode()
        assert "/invocations" not in one.ask("GET", "/openapi.json").json["paths"]


def resolve(document: Any, schema: Any) -> Any:
    """The schema without references; fails for a reference to nothing."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return resolve(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        return {name: resolve(document, value) for name, value in schema.items()}
    return [resolve(document, value) for value in schema] if isinstance(schema, list) else schema


def test_the_openapi_document_names_every_path_and_status_that_was_answered(served: World) -> None:
    document = served.ask("GET", "/openapi.json").json
    asked: list[tuple[str, str, Any]] = [
        ("GET", "/v2", None),
        ("GET", "/v2/models/tiny", None),
        ("POST", "/v2/models/tiny/infer", {"inputs": [matrix(rows(1))]}),
        ("POST", "/v2/models/tiny/infer", {"inputs": []}),
        ("POST", "/v2/models/tiny.explainer/infer", {"inputs": [matrix(rows(1))]}),
        ("POST", "/v2/repository/index", {}),
        ("POST", "/invocations", {"dataframe_split": {"data": rows(1).tolist()}}),
        ("POST", "/invocations", {}),
        ("GET", "/metrics", None),
        ("GET", "/", None),
    ]
    for method, path, body in asked:
        reply = served.ask(method, path, body)
        answer = document["paths"][path][method.lower()]["responses"][str(reply.status)]
        content = answer["content"]
        assert reply.headers["content-type"] in content, path
        schema = resolve(document, content[reply.headers["content-type"]]["schema"])
        if reply.headers["content-type"] == "application/json":
            options = schema.get("anyOf", [schema])
            assert (
                any(set(one.get("required", ())) <= set(reply.json) for one in options if one["type"] == "object")
                or schema["type"] == "array"
            )


def test_the_application_answers_the_same_under_a_wsgi_server(forest: Path, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_BUNDLE", str(forest))
    monkeypatch.delenv("EDGEFLEET_TOKEN_FILE", raising=False)

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Tests are quiet."""

    server = wsgiref.simple_server.make_server("127.0.0.1", 0, from_environment(), handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        body = json.dumps({"inputs": [matrix(rows(2))]}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v2/models/tiny/infer", body), timeout=60) as reply:  # noqa: S310  # loopback
            assert json.loads(reply.read()) == served.infer(matrix(rows(2))).json
        big = urllib.request.Request(f"{url}/v2/models/tiny/infer", b"{}", {"Content-Length": str(9 << 20)})  # noqa: S310
        with pytest.raises(urllib.error.HTTPError, match="413") as refused:
            urllib.request.urlopen(big, timeout=60)  # noqa: S310
        refused.value.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_without_a_bundle_the_wsgi_application_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEFLEET_BUNDLE", raising=False)

    with pytest.raises(ConfigError, match="EDGEFLEET_BUNDLE is not set"):
        from_environment()
