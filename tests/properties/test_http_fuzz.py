"""Whatever bytes a client sends, the door's parsers refuse or answer, and the sums stay right: never a 5xx, never an exception."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.doors.answering import Answering
from device_agent.doors.http.application import Application
from device_agent.doors.http.exchange import Refused, Request
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.wire import parse_head
from device_agent.doors.oip.tensors import DTYPES
from device_agent.scorer import Scorer
from tests.unit.device_agent.bundles import forest_bundle

FUZZED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
WORDS = st.sampled_from(["inputs", "f0", "f1", "f2", "f3", "f4", "other", ""])
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.sampled_from(["x", "1"]))
VALUES = st.one_of(st.lists(NUMBERS, max_size=12), st.lists(st.lists(NUMBERS, max_size=6), max_size=4), NUMBERS)
TENSORS = st.fixed_dictionaries(
    {"name": WORDS, "datatype": st.sampled_from([*DTYPES, "FP8"]), "shape": st.lists(st.integers(-2, 6), max_size=5)},
    optional={"data": VALUES, "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-5, 60))},
)
INFER = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=6)},
    optional={
        "id": st.one_of(st.text(max_size=5), st.integers()),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label", "score", "outlier", "error"])}), max_size=3),
        "parameters": st.dictionaries(st.just("binary_data_output"), st.booleans()),
    },
)
FRAMES = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"]),
    st.one_of(
        VALUES,
        st.lists(st.dictionaries(WORDS, NUMBERS, max_size=6), max_size=4),
        st.dictionaries(WORDS, VALUES, max_size=6),
        st.fixed_dictionaries({"columns": st.lists(WORDS, max_size=6), "data": VALUES}),
    ),
    max_size=2,
)


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    models = Answering()
    models.install(Scorer.open(forest_bundle(tmp_path_factory.mktemp("forest")).folder))
    yield Application(models, Limits(elements=200), local_only=False)
    models.close()


def check(application: Application, path: str, body: bytes, headers: dict[str, str]) -> None:
    response = application(Request("POST", path, headers, body))

    counts = application.counters.now()
    assert response.status in {200, 400, 413, 415}, (response.body, body)
    assert counts.offered == counts.scored + sum(counts.rejected.values()) + counts.shed


@FUZZED
@given(document=INFER, tail=st.binary(max_size=60), binary=st.booleans(), explain=st.booleans())
def test_infer_answers_or_refuses_every_document(application: Application, document: Any, tail: bytes, binary: bool, explain: bool) -> None:
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(head))} if binary else {}

    check(application, f"/v2/models/tiny{'.explainer' if explain else ''}/infer", head + tail if binary else head, headers)


@FUZZED
@given(document=FRAMES)
def test_invocations_answer_or_refuse_every_document(application: Application, document: Any) -> None:
    check(application, "/invocations", json.dumps(document).encode(), {"content-type": "application/json"})


@FUZZED
@given(text=st.one_of(st.text(alphabet="f01234,.\n\r\"' eExN-", max_size=60).map(str.encode), st.binary(max_size=60)))
def test_csv_of_any_form_is_answered_or_refused(application: Application, text: bytes) -> None:
    check(application, "/invocations", b"f0,f1,f2,f3,f4\n" + text, {"content-type": "text/csv"})


@FUZZED
@given(body=st.binary(max_size=200), length=st.integers(-1, 300), packing=st.sampled_from(["", "gzip", "deflate", "identity"]))
def test_infer_refuses_bytes_of_any_kind(application: Application, body: bytes, length: int, packing: str) -> None:
    headers = {"inference-header-content-length": str(length)} | ({"content-encoding": packing} if packing else {})

    check(application, "/v2/models/tiny/infer", body, headers)


@FUZZED
@given(
    raw=st.one_of(
        st.binary(max_size=200), st.text(alphabet="GETPOS /:aA1.\r\n\t%,-", max_size=120).map(lambda t: b"GET / HTTP/1.1\r\n" + t.encode())
    )
)
def test_a_head_is_read_or_refused(raw: bytes) -> None:
    try:
        head = parse_head(raw)
    except Refused as err:
        status = err.status
    else:
        status = 200
        assert head.length >= 0
        assert not any(c in value for value in head.headers.values() for c in "\r\n\0")
    assert status in {200, 400, 411, 431, 505}
