"""Whatever a client sends, the door answers with value and limit, counts it, and goes on."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.device_agent.bundles import forest_bundle, numbers
from tests.unit.device_agent.http_world import World, binary_request, matrix, rows, world

MILLION = 1_048_576


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return forest_bundle(tmp_path_factory.mktemp("forest"), numbers(low=-50.0, high=50.0, range_policy="reject")).folder


@pytest.fixture
def served(forest: Path) -> Iterator[World]:
    with world(forest) as one:
        yield one
        assert one.infer(matrix(rows(1))).status == 200, "the door did not go on"
        assert one.balanced()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "inputs", "datatype": "FP32", "shape": [1, 5], "data": [1, 2, 3, 4, 5], **changes}


@pytest.mark.parametrize(
    ("inputs", "status", "said"),
    [
        ([tensor(data=[1, 2, 3, 4, None])], 400, "input 'f4': a missing value is not accepted"),
        ([tensor(data=[99, 2, 3, 4, 5])], 400, "input 'f0': 99.0 is not accepted (range); expected -50 to 50"),
        ([tensor(data=[1, 2, 3, 4, 1e300])], 400, "input 'f4': inf is not accepted"),
        ([tensor(data=["1", 2, 3, 4, 5])], 400, "data do not fit FP32"),
        ([tensor(data=[True, 2, 3, 4, 5])], 400, "data do not fit FP32"),
        ([tensor(data=[1, 2, 3, 4])], 400, "hold 4 values"),
        ([tensor(data=[[1, 2, 3, 4, 5], [1]], shape=[2, 5])], 400, "data do not fit FP32 [2, 5]"),
        ([tensor(data=[[[1, 2, 3, 4, 5]]])], 400, "data do not fit FP32"),
        ([tensor(data={"a": 1})], 400, "data do not fit FP32"),
        ([tensor(data=None)], 400, "data do not fit FP32"),
        ([{"name": "inputs", "datatype": "FP32", "shape": [1, 5]}], 400, "neither data nor parameters.binary_data_size"),
        ([tensor(shape=[5])], 400, "shape [5] is not the [n, 5]"),
        ([tensor(shape=[5, 1])], 400, "shape [5, 1] is not the [n, 5]"),
        ([tensor(shape=[-1, 5])], 400, "negative dimension"),
        ([tensor(shape=[1.5, 5])], 400, "`int`"),
        ([tensor(shape=[])], 400, "0 dimensions"),
        ([tensor(shape=[1, 1, 1, 1, 5])], 400, "5 dimensions, expected 1 to 4"),
        ([tensor(shape=[MILLION, MILLION])], 413, "exceed the limit of 1048576"),
        ([tensor(shape=[10**19, 5])], 413, "exceed the limit of 1048576"),
        ([tensor(shape=[0, 2**62], data=[])], 413, "exceed the limit of 1048576"),
        ([tensor(data=[0] * 100)], 400, "data hold 100 values or more, its shape [1, 5] says 5"),
        ([tensor(name="f0", shape=[MILLION], datatype="BOOL", data=[True] * MILLION)], 413, "1048576 rows of 5 values exceed the limit"),
        ([tensor(datatype="FP128")], 400, "'FP128' is not one of BOOL"),
        ([tensor(datatype="INT8", data=[1, 2, 3, 4, 300])], 400, "data do not fit INT8"),
        ([tensor(datatype="INT32", data=[1, 2, 3, 4, 0.5])], 400, "data do not fit INT32"),
        ([tensor(datatype="INT32", data=[1, 2, 3, 4, None])], 400, "data do not fit INT32"),
        ([tensor(datatype="BYTES", data=["a", "b", "c", "d", "e"])], 400, "one BYTES tensor per column"),
        ([tensor(), tensor()], 400, "comes twice"),
        ([tensor(), tensor(name="f0", shape=[1], data=[1])], 400, "either one tensor 'inputs' or one tensor per column"),
        ([tensor(name="f9", shape=[1], data=[1])], 400, "input 'f9': the model has no such input"),
        ([tensor(name="f0", shape=[1], data=[1]), tensor(name="f1", shape=[2], data=[1, 2])], 400, "the first tensor has 1 rows"),
        ([tensor(name="f0", shape=[1], data=[1])], 400, "input 'f1': a missing value"),
        ([tensor(name="f0", datatype="BYTES", shape=[1], data=["wet"])], 400, "input 'f0': 'wet'"),
        ([tensor(name=5)], 400, "cannot be read"),
        ([tensor(parameters={"binary_data_size": 20})], 400, "not within the 0 bytes"),
        ([tensor(parameters={"binary_data_size": -1})], 400, "not within the 0 bytes"),
        ([tensor(parameters={"binary_data_size": True})], 400, "not within the 0 bytes"),
        ([tensor(parameters=5)], 400, "parameters b'5' cannot be read"),
        ([], 400, "no inputs"),
    ],
)
def test_a_wrong_tensor_is_refused_with_name_value_and_limit(served: World, inputs: list[Any], status: int, said: str) -> None:
    reply = served.infer(*inputs)

    assert (reply.status, set(reply.json), reply.headers["content-type"]) == (status, {"error"}, "application/json")
    assert said in reply.json["error"]
    assert (served.door.counts().offered, served.door.counts().scored) == (1, 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "cannot be read"),
        (b"null", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "inputs"),
        (b'{"inputs": 5}', "cannot be read"),
        (b'{"inputs": [', "cannot be read"),
        (b'{"inputs": [{"name": "\xff\xfe"}]}', "cannot be read"),
        (b'{"id": 5, "inputs": []}', "cannot be read"),
        (b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "cannot be read"),
        (b'{"inputs": [], "parameters": {"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "nested too deeply"),
        (json.dumps({"inputs": [tensor()], "id": "x" * 2000}).encode(), "id of 2000 characters"),
        (json.dumps({"inputs": [tensor()], "outputs": [{"name": "colour"}]}).encode(), "'colour' is not one of label, score"),
        (json.dumps({"inputs": [tensor()], "outputs": [{"name": "score"}] * 2}).encode(), "asked for"),
        (b'{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,5],"data":[Infinity,1,2,3,4]}]}', "input 'f0': inf"),
        (b'{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,5],"data":[-1e999,1,2,3,4]}]}', "input 'f0': -inf"),
        (
            b'{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,5],"data":[' + b"[" * 9999 + b"1" + b"]" * 9999 + b"]}]}",
            "cannot be read",
        ),
    ],
)
def test_a_body_that_is_no_request_is_refused(served: World, body: bytes, said: str) -> None:
    reply = served.ask("POST", "/v2/models/tiny/infer", body)

    assert reply.status == 400
    assert said in reply.json["error"] or "nested too deeply" in reply.json["error"]
    assert served.door.counts().scored == 0


@pytest.mark.parametrize(
    ("length", "said"),
    [("99999", "not within"), ("-1", "not within"), ("abc", "not within"), ("0", "cannot be read"), ("10", "cannot be read")],
)
def test_a_header_length_that_lies_is_refused(served: World, length: str, said: str) -> None:
    body, _ = binary_request([({"name": "inputs", "datatype": "FP32", "shape": [1, 5]}, rows(1).tobytes())])

    reply = served.ask("POST", "/v2/models/tiny/infer", body, {"Inference-Header-Content-Length": length})

    assert reply.status == 400
    assert said in reply.json["error"]


@pytest.mark.parametrize(
    ("spec", "raw", "said"),
    [
        ({"datatype": "FP32", "shape": [1, 5]}, b"\0" * 19, "19 bytes are not the 20 of FP32"),
        ({"datatype": "FP32", "shape": [2, 5]}, b"\0" * 20, "20 bytes are not the 40"),
        ({"name": "f0", "datatype": "BYTES", "shape": [1]}, b"\xff\xff\xff\xff", "hold more or less than 1 texts"),
        ({"name": "f0", "datatype": "BYTES", "shape": [1]}, b"\1\0\0\0\xff", "not UTF-8"),
        ({"name": "f0", "datatype": "BYTES", "shape": [2]}, b"\0\0\0\0", "1 texts are not the 2"),
        ({"name": "f0", "datatype": "BYTES", "shape": [1]}, b"\0" * 8, "more or less than 1"),
        ({"datatype": "FP32", "shape": [1, 5]}, np.array([np.nan, 1, 2, 3, 4], "<f4").tobytes(), "input 'f0': a missing value"),
        ({"datatype": "FP32", "shape": [1, 5]}, np.array([np.inf, 1, 2, 3, 4], "<f4").tobytes(), "input 'f0': inf"),
        ({"datatype": "FP64", "shape": [1, 5]}, np.array([1e300, 1, 2, 3, 4], "<f8").tobytes(), "input 'f0': inf"),
    ],
)
def test_binary_tensors_that_do_not_fit_are_refused(served: World, spec: dict[str, Any], raw: bytes, said: str) -> None:
    body, headers = binary_request([({"name": "inputs", **spec}, raw)])

    reply = served.ask("POST", "/v2/models/tiny/infer", body, headers)

    assert reply.status == 400
    assert said in reply.json["error"]


def test_bytes_that_are_left_over_are_refused(served: World) -> None:
    body, headers = binary_request([({"name": "inputs", "datatype": "FP32", "shape": [1, 5]}, rows(1).tobytes())])

    reply = served.ask("POST", "/v2/models/tiny/infer", body + b"\0\0", headers)

    assert (reply.status, "2 bytes are left" in reply.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "said"),
    [
        ("gzip", b"not gzip", 400, "not gzip"),
        ("gzip", gzip.compress(b'{"inputs": []}', mtime=0)[:-6], 400, "cut off"),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"tail", 400, "followed by other bytes"),
        ("br", b"{}", 415, "'br' is not one of"),
        ("gzip", gzip.compress(b" " * (9 << 20)), 413, "larger than 8388608 bytes when unpacked"),
    ],
)
def test_packed_bodies_are_bounded_and_checked(served: World, encoding: str, body: bytes, status: int, said: str) -> None:
    reply = served.ask("POST", "/v2/models/tiny/infer", body, {"Content-Encoding": encoding})

    assert reply.status == status
    assert said in reply.json["error"]


def test_a_bomb_that_unpacks_to_a_gigabyte_costs_no_more_than_the_limit(served: World) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * (64 << 20), 9) * 16, 9)  # each byte that is unpacked is paid once
    outer = gzip.compress(b"\0" * (256 << 20), 9)
    tracemalloc.start()
    try:
        replies = [served.ask("POST", "/v2/models/tiny/infer", body, {"Content-Encoding": "gzip"}).status for body in (bomb, outer)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert replies == [400, 413]
    assert peak < 40 << 20  # the body, the unpacked limit and its copy


def test_a_hundred_megabytes_are_refused_without_being_kept(served: World) -> None:
    body = b'{"inputs": [' + b" " * (100 << 20)

    reply = served.ask("POST", "/v2/models/tiny/infer", body)

    assert reply.status == 413
    assert "exceeds the limit of 8388608" in reply.json["error"]
    assert dict(served.door.counts().rejected) == {"body-size": 1}


def test_a_million_rows_are_refused_and_as_many_as_the_limit_allows_are_scored(served: World) -> None:
    too_many = served.infer(tensor(shape=[1_000_000, 5], data=[]))
    n = 8000
    body, headers = binary_request([({"name": "inputs", "datatype": "FP32", "shape": [n, 5]}, rows(n).tobytes())])

    many = served.ask("POST", "/v2/models/tiny/infer", body, headers)

    assert (too_many.status, "5000000 values exceed" in too_many.json["error"]) == (413, True)
    assert many.json["outputs"][0]["shape"] == [n]


def test_a_refused_row_among_others_is_null_and_says_why_in_an_output_of_its_own(served: World) -> None:
    x = rows(3)
    x[1, 2] = np.inf
    raw = {"name": "inputs", "datatype": "FP32", "shape": [3, 5]}
    body, headers = binary_request([(raw, x.tobytes())])

    outputs = served.ask("POST", "/v2/models/tiny/infer", body, headers).outputs()

    assert [s is None for s in outputs["score"]] == [False, True, False]
    assert [bool(text) for text in outputs["error"]] == [False, True, False]
    assert "input 'f2': inf is not accepted" in outputs["error"][1]
    assert dict(served.door.counts().rejected) == {"infinite": 1}


def test_when_every_row_is_refused_so_is_the_request(served: World) -> None:
    reply = served.infer(matrix(np.full((3, 5), 99, np.float32)))

    assert reply.status == 400
    assert "all 3 rows were refused; row 0: input 'f0': 99.0" in reply.json["error"]
    assert dict(served.door.counts().rejected) == {"range": 3}


def test_too_many_explanations_at_once_are_refused_and_a_bad_row_names_its_number(served: World) -> None:
    x = rows(2)
    x[1, 0] = np.nan

    many, bad = served.infer(matrix(rows(257)), path="tiny.explainer"), served.infer(matrix(x), path="tiny.explainer")

    assert (many.status, "257 rows to explain exceed the limit of 256" in many.json["error"]) == (413, True)
    assert (bad.status, "row 1: input 'f0'" in bad.json["error"]) == (400, True)


_DATA = b'{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,5],"data":['
_ASKED = b'{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,5],"data":[1,2,3,4,5]}],"parameters":{"a":['


@pytest.mark.parametrize(
    ("path", "head", "part", "tail"),
    [
        ("/v2/models/tiny/infer", _DATA, b"0.1,", b"0]}]}"),
        ("/v2/models/tiny/infer", _ASKED, b"[],", b"0]}}"),
        ("/v2/models/tiny/infer", _ASKED[:-19] + b'"outputs":[{"name":"score","parameters":{"a":[', b"{},", b"0]}}]}"),
        ("/invocations", b'{"instances":[', b"[],", b"0]}"),
        ("/invocations", b'{"instances":[', b"{},", b"0]}"),
    ],
)
def test_a_small_body_that_unpacks_to_millions_of_values_is_refused_before_they_are_parsed(
    served: World, path: str, head: bytes, part: bytes, tail: bytes
) -> None:
    body = head + part * ((8 * MILLION - 100) // len(part)) + tail
    tracemalloc.start()
    try:
        answer = served.ask("POST", path, gzip.compress(body), {"Content-Encoding": "gzip", "Content-Type": "application/json"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert answer.status in (400, 413)
    assert peak < 4 * len(body), f"{peak} bytes for a body of {len(body)}"


def test_an_origin_that_is_no_address_is_refused(served: World) -> None:
    assert served.ask("GET", "/v2", headers={"Origin": "http://["}).status == 403


@pytest.mark.parametrize(
    "more", [{"parameters": [1]}, {"outputs": [{"name": "score", "parameters": "x"}]}, {"outputs": [{"name": "score"}] * 65}]
)
def test_parameters_and_outputs_that_are_none_are_refused_before_a_row_is_scored(served: World, more: dict[str, Any]) -> None:
    assert served.infer(tensor(), **more).status == 400
    assert served.door.counts().scored == 0
