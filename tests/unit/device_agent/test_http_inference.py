"""Open Inference Protocol v2 over a real socket: every form of a tensor that clients send, and what comes back."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.doors.http.application import Surroundings
from device_agent.scorer import Scorer
from edgefleet.manifest import Input
from tests.unit.device_agent.bundles import forest_bundle, logistic_bundle, numbers
from tests.unit.device_agent.http_world import World, binary_request, matrix, rows, world
from tests.unit.device_agent.test_scorer_decisions import detector_bundle, outlier_bundle
from tests.unit.device_agent.test_scorer_windows import window_bundle, windows


def test_server_metadata_has_the_three_members_that_the_protocol_requires(served: World) -> None:
    assert set(served.ask("GET", "/v2").json) == {"name", "version", "extensions"}
    assert served.ask("GET", "/v2/").json["extensions"] == ["binary_tensor_data"]


def test_ready_says_ready_for_kserve_and_live_for_the_specification(served: World) -> None:
    assert served.ask("GET", "/v2/health/live").json == {"live": True}
    assert served.ask("GET", "/v2/health/ready").json == {"live": True, "ready": True}
    assert served.ask("GET", "/v2/models/tiny/ready").json == {"name": "tiny", "ready": True}


def test_without_a_model_the_door_is_live_but_not_ready_and_rows_are_refused_and_counted() -> None:
    with world(None) as one:
        ready, infer = one.ask("GET", "/v2/health/ready"), one.infer(matrix(rows(1)))

        assert (one.ask("GET", "/v2/health/live").status, ready.status, ready.json["ready"]) == (200, 503, False)
        assert (infer.status, infer.headers["retry-after"]) == (503, "1")
        assert "no model is installed" in infer.json["error"]
        assert one.ask("POST", "/v2/repository/index").json == []
        assert one.door.counts().rejected == {"no-model": 1}
        assert one.balanced()


def test_the_version_is_the_one_that_the_surroundings_tell_and_no_other(forest: Path) -> None:
    with world(forest, Surroundings(version=lambda: "17")) as one:
        assert one.ask("GET", "/v2/models/tiny/versions/17").json["versions"] == ["17"]
        assert one.infer(matrix(rows(1)), path="tiny/versions/17").json["model_version"] == "17"
        assert one.ask("GET", "/v2/models/tiny/versions/1").status == 404
        assert one.ask("GET", "/v2/models/other").status == 404
        index = one.ask("POST", "/v2/repository/index").json
    assert [(m["name"], m["version"], m["state"]) for m in index] == [("tiny", "17", "READY"), ("tiny.explainer", "17", "READY")]


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 200), (b'{"ready": true}', 200), (b"[]", 400), (b"nonsense", 400), (b'{"ready": 1}', 400)]
)
def test_the_index_takes_an_object_or_nothing(served: World, body: bytes, status: int) -> None:
    assert served.ask("POST", "/v2/repository/index", body).status == status


def test_metadata_names_data_types_and_shapes_of_what_infer_takes_and_answers(served: World) -> None:
    told = served.ask("GET", "/v2/models/tiny").json

    answered = served.infer(matrix(rows(3))).json["outputs"]
    assert told["platform"] == "onnx_onnxv1"
    assert told["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 5]}]
    assert told["parameters"]["columns"] == ["f0", "f1", "f2", "f3", "f4"]
    assert [(o["name"], o["datatype"], len(o["shape"])) for o in told["outputs"]] == [
        (o["name"], o["datatype"], len(o["shape"])) for o in answered
    ]


@pytest.mark.parametrize("n", [1, 2, 300, 2500])
def test_answers_are_those_of_the_scorer(served: World, forest: Path, n: int) -> None:
    x = rows(n)
    with Scorer.open(forest) as scorer:
        expected = scorer.score_batch(x)

    reply = served.infer(matrix(x))

    outputs = reply.outputs()
    assert reply.headers["content-type"] == "application/json"
    assert outputs["label"] == expected.label.tolist()
    assert np.array(outputs["score"], np.float32).tolist() == expected.score.tolist()
    assert np.array(outputs["margin"], np.float32).tolist() == expected.margin.tolist()
    assert np.array(outputs["probabilities"], np.float32).tolist() == expected.probabilities.ravel().tolist()
    assert {o["name"]: o["shape"] for o in reply.json["outputs"]} == {"label": [n], "score": [n], "margin": [n], "probabilities": [n, 3]}
    assert (served.door.counts().scored, served.balanced()) == (n, True)


def test_nested_flat_and_binary_data_are_the_same_rows(served: World) -> None:
    x = rows(4)
    flat = served.infer(matrix(x)).json
    nested = served.infer({**matrix(x), "data": x.tolist()}).json
    body, headers = binary_request([({"name": "inputs", "datatype": "FP32", "shape": [4, 5]}, x.tobytes())])

    binary = served.ask("POST", "/v2/models/tiny/infer", body, headers).json

    assert flat == nested == binary


@pytest.mark.parametrize("kind", ["FP16", "FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"])
def test_every_numeric_data_type_is_read_as_json_and_as_binary(served: World, kind: str) -> None:
    dtype = {"FP": "f", "IN": "i", "UI": "u"}[kind[:2]] + str(int("".join(c for c in kind if c.isdigit())) // 8)
    x = np.array([[0, 1, 2, 3, 1]] * 2, "<" + dtype)
    spec = {"name": "inputs", "datatype": kind, "shape": [2, 5]}
    expected = served.infer(matrix(x.astype(np.float32))).outputs()
    body, headers = binary_request([(spec, x.tobytes())])

    assert served.infer({**spec, "data": x.ravel().tolist()}).outputs() == expected
    assert served.ask("POST", "/v2/models/tiny/infer", body, headers).outputs() == expected


def test_booleans_are_zero_and_one(served: World) -> None:
    spec = {"name": "inputs", "datatype": "BOOL", "shape": [1, 5]}
    bits = [True, False, True, True, False]
    body, headers = binary_request([(spec, bytes(bits))])
    expected = served.infer(matrix(np.array([bits], np.float32))).outputs()

    assert served.infer({**spec, "data": bits}).outputs() == expected
    assert served.ask("POST", "/v2/models/tiny/infer", body, headers).outputs() == expected


def read_binary(headers: Any, body: bytes) -> dict[str, Any]:
    head = int(headers["inference-header-content-length"])
    at, found = head, {}
    for out in json.loads(body[:head])["outputs"]:
        size = out.get("parameters", {}).get("binary_data_size")
        found[out["name"]] = out.get("data") if size is None else body[at : at + size]
        at += size or 0
    assert at == len(body)
    return found


def test_binary_outputs_are_asked_for_all_together_or_one_by_one(served: World) -> None:
    x = rows(3)
    plain = served.infer(matrix(x)).outputs()
    all_binary = served.infer(matrix(x), parameters={"binary_data_output": True})
    one_json = served.infer(
        matrix(x),
        parameters={"binary_data_output": True},
        outputs=[{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}],
    )

    found, mixed = read_binary(all_binary.headers, all_binary.body), read_binary(one_json.headers, one_json.body)

    assert all_binary.headers["content-type"] == "application/octet-stream"
    assert np.frombuffer(found["score"], "<f4").tolist() == np.array(plain["score"], "f4").tolist()
    assert found["label"] == b"".join(len(t).to_bytes(4, "little") + t.encode() for t in plain["label"])
    assert mixed["score"] == plain["score"]
    assert mixed["label"] == found["label"]


def test_an_output_s_parameters_hold_nothing_in_json_because_mlserver_stumbles_over_a_bare_number(served: World) -> None:
    assert all("parameters" not in out for out in served.infer(matrix(rows(2))).json["outputs"])


def test_the_id_comes_back_unchanged_and_only_when_it_was_given(served: World) -> None:
    assert served.infer(matrix(rows(1)), id='a "b" ü').json["id"] == 'a "b" ü'
    assert "id" not in served.infer(matrix(rows(1))).json


def test_no_rows_are_answered_with_empty_tensors(served: World) -> None:
    reply = served.infer({"name": "inputs", "datatype": "FP32", "shape": [0, 5], "data": []})

    assert reply.status == 200
    assert [o["shape"] for o in reply.json["outputs"]] == [[0], [0], [0], [0, 3]]
    assert (served.door.counts().offered, served.balanced()) == (0, True)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_read(served: World, encoding: str, pack: Any) -> None:
    body = json.dumps({"inputs": [matrix(rows(2))]}).encode()

    packed = served.ask("POST", "/v2/models/tiny/infer", pack(body), {"Content-Encoding": encoding})

    assert packed.json == served.infer(matrix(rows(2))).json


@pytest.mark.parametrize("literal", ["null", "NaN"])
def test_a_missing_value_is_null_or_the_literal_that_rapidjson_writes(tmp_path: Path, literal: str) -> None:
    with world(forest_bundle(tmp_path, numbers(missing=True)).folder) as one:
        body = f'{{"inputs":[{{"name":"inputs","datatype":"FP32","shape":[1,5],"data":[{literal},1,2,3,4]}}]}}'.encode()

        reply = one.ask("POST", "/v2/models/tiny/infer", body)

        assert reply.outputs()["label"][0] in {"low", "mid", "high"}


def test_a_model_that_answers_nan_is_answered_with_null_and_no_label(tmp_path: Path) -> None:
    with world(logistic_bundle(tmp_path, numbers(missing=True)).folder) as one:
        outputs = one.infer(matrix(np.array([[np.nan, 0, 0, 0, 0], [0, 0, 0, 0, 0]], np.float32))).outputs()

    assert (outputs["label"][0], outputs["score"][0]) == ("", None)
    assert outputs["score"][1] is not None


def test_columns_may_come_as_tensors_of_their_own_in_any_order_and_shape(served: World) -> None:
    x = rows(3)
    columns = [
        {"name": f"f{i}", "datatype": "FP64", "shape": [3, 1] if i % 2 else [3], "data": x[:, i].astype(float).tolist()}
        for i in (3, 1, 4, 0, 2)
    ]

    assert served.infer(*columns).outputs() == served.infer(matrix(x)).outputs()


def test_categories_come_as_texts_beside_numbers_in_json_and_binary(tmp_path: Path) -> None:
    inputs = [Input(name="kind", kind="category", categories=["dry", "größer"]), *numbers()[1:]]
    made = forest_bundle(tmp_path, inputs)
    x = rows(2)
    x[:, 0] = [1, -1]
    texts = ["größer", "never seen"]
    raw = b"".join(len(t.encode()).to_bytes(4, "little") + t.encode() for t in texts)
    columns = [{"name": f"f{i}", "datatype": "FP32", "shape": [2], "data": x[:, i].astype(float).tolist()} for i in range(1, 5)]
    kind = {"name": "kind", "datatype": "BYTES", "shape": [2]}
    with world(made.folder) as one:
        expected = one.infer(matrix(x)).outputs()
        body, headers = binary_request([(kind, raw), *(({**c, "data": None}, np.array(c["data"], "<f4").tobytes()) for c in columns)])

        told = one.ask("GET", "/v2/models/tiny").json["inputs"]

        assert [(t["name"], t["datatype"]) for t in told][:2] == [("kind", "BYTES"), ("f1", "FP32")]
        assert one.infer({**kind, "data": texts}, *columns).outputs() == expected
        assert one.ask("POST", "/v2/models/tiny/infer", body, headers).outputs() == expected


def test_windows_are_tensors_of_three_dimensions_or_columns_of_two(tmp_path: Path) -> None:
    made, x = window_bundle(tmp_path), windows(2)
    with world(made.folder) as one, Scorer.open(made.folder) as scorer:
        expected = scorer.score_batch(x)
        shape = [2, x.shape[1]]
        columns = [{"name": f"f{i}", "datatype": "FP32", "shape": shape, "data": x[:, :, i].ravel().tolist()} for i in range(5)]

        assert one.ask("GET", "/v2/models/tiny").json["inputs"][0]["shape"] == [-1, *x.shape[1:]]
        assert one.infer(matrix(x)).outputs()["label"] == expected.label.tolist()
        assert one.infer({**matrix(x), "data": x.tolist()}).outputs()["label"] == expected.label.tolist()
        assert one.infer(*columns).outputs()["label"] == expected.label.tolist()
        assert one.infer(matrix(x[:1])).outputs()["score"] == pytest.approx(expected.score[:1].tolist())


@pytest.mark.parametrize("n", [1, 3])
def test_outliers_are_told_when_the_bundle_has_a_detector(tmp_path: Path, n: int) -> None:
    x = np.array([[4, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 9]], np.float32)[:n]
    with world(outlier_bundle(tmp_path).folder) as one:
        assert one.infer(matrix(x)).outputs()["outlier"] == [True, False, True][:n]
        assert one.infer(matrix(x), outputs=[{"name": "outlier"}]).json["outputs"][0]["datatype"] == "BOOL"


def test_an_anomaly_detector_answers_words_and_scores_without_probabilities(tmp_path: Path) -> None:
    with world(detector_bundle(tmp_path, 2.0).folder) as one:
        outputs = one.infer(matrix(np.array([[3, 0, 0, 0, 0], [1, 0, 0, 0, 0]], np.float32))).outputs()

    assert outputs == {"label": ["strange", "normal"], "score": [3.0, 1.0], "margin": [3.0, 1.0]}


def test_the_explainer_answers_contributions_that_add_up_to_the_margin(served: World, forest: Path) -> None:
    x = rows(3)
    reply = served.infer(matrix(x), path="tiny.explainer")

    outputs = reply.outputs()
    contributions = np.array(outputs["contributions"]).reshape(3, 5)
    with Scorer.open(forest) as scorer:
        expected = [scorer.score(row, explain=True) for row in x]
    assert reply.json["model_name"] == "tiny.explainer"
    assert np.allclose(np.array(outputs["base"]) + contributions.sum(axis=1) + outputs["gap"], outputs["margin"], atol=1e-6)
    for i, score in enumerate(expected):
        assert score.explanation is not None
        assert contributions[i].tolist() == score.explanation.contributions.tolist()
    assert outputs["label"] == [score.label for score in expected]
    assert (served.door.counts().scored, served.balanced()) == (3, True)


def test_a_bundle_without_explainer_has_no_explaining_model(tmp_path: Path) -> None:
    with world(detector_bundle(tmp_path, None).folder) as one:
        assert one.ask("GET", "/v2/models/tiny.explainer").status == 404
        assert [m["name"] for m in one.ask("POST", "/v2/repository/index").json] == ["tiny"]
