"""MLflow's `/invocations`: the forms that `mlflow models serve` takes, and its refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent.scorer import Scorer
from edgefleet.manifest import Input
from tests.unit.device_agent.bundles import forest_bundle, logistic_bundle, numbers
from tests.unit.device_agent.http_world import JSON, World, rows, world
from tests.unit.device_agent.test_scorer_decisions import outlier_bundle
from tests.unit.device_agent.test_scorer_windows import window_bundle, windows

NAMES = ["f0", "f1", "f2", "f3", "f4"]
X = rows(2)
RECORDS = [dict(zip(NAMES, map(float, row), strict=True)) for row in X.tolist()]
CSV = ",".join(NAMES) + "\n" + "\n".join(",".join(map(str, row)) for row in X.tolist()) + "\n"


def post(one: World, body: Any, kind: str = "application/json") -> Any:
    return one.ask("POST", "/invocations", body, {"Content-Type": kind})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": NAMES, "data": X.tolist()}},
        {"dataframe_split": {"columns": NAMES[::-1], "data": X[:, ::-1].tolist(), "index": [7, 9]}},
        {"dataframe_split": {"data": X.tolist()}},
        {"dataframe_records": RECORDS},
        {"instances": RECORDS},
        {"inputs": {name: X[:, i].astype(float).tolist() for i, name in enumerate(NAMES)}},
    ],
    ids=["split", "split-reordered", "split-without-names", "records", "instances", "inputs"],
)
def test_each_form_of_rows_gets_one_record_a_row(served: World, forest: Path, body: Any) -> None:
    with Scorer.open(forest) as scorer:
        expected = scorer.score_batch(X)

    reply = post(served, body)

    predictions = reply.json["predictions"]
    assert [p["label"] for p in predictions] == expected.label.tolist()
    assert np.array([p["score"] for p in predictions], np.float32).tolist() == expected.score.tolist()
    assert np.array([p["probabilities"] for p in predictions], np.float32).tolist() == expected.probabilities.tolist()
    assert (served.door.counts().scored, served.balanced()) == (2, True)


def test_csv_with_a_header_line_is_the_same_rows(served: World) -> None:
    expected = post(served, {"dataframe_records": RECORDS}).json

    assert post(served, CSV.encode(), "text/csv").json == expected
    assert post(served, b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode(), "text/csv; charset=utf-8").json == expected


def test_the_media_type_s_parameters_are_ignored_and_its_absence_is_json(served: World) -> None:
    body = {"dataframe_records": RECORDS}

    assert post(served, body, "application/json; charset=utf-8").status == 200
    assert served.ask("POST", "/invocations", body).status == 200


def test_one_row_by_columns_may_be_bare_values(served: World) -> None:
    assert post(served, {"inputs": RECORDS[0]}).json["predictions"] == post(served, {"instances": RECORDS[:1]}).json["predictions"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": X.tolist()}, "inputs is not a list of objects by column name; rows without names go into dataframe_split"),
        ({"instances": RECORDS, "inputs": RECORDS}, "instances and inputs"),
        ({}, "none of dataframe_split, dataframe_records, instances, inputs"),
        ([[1, 2, 3, 4, 5]], "a JSON list"),
        ({"dataframe_split": {"columns": ["f0", "f0"], "data": [[1, 2]]}}, "'f0' comes twice"),
        ({"dataframe_split": {"columns": ["f0", "pressure"], "data": [[1, 2]]}}, "no input 'pressure'"),
        ({"dataframe_split": {"columns": NAMES, "data": [[1, 2]]}}, "row 0 has 2 values, columns has 5"),
        ({"dataframe_split": {"columns": NAMES}}, "needs data"),
        ({"dataframe_split": {"data": X.tolist(), "index": [1]}}, "index is not a list of 2 values"),
        ({"dataframe_split": {"columns": 5, "data": [[1]]}}, "not a list of names"),
        ({"dataframe_records": 5}, "not a list of objects"),
        ({"inputs": {"f0": [1, 2], "f1": [1]}}, "column 'f1' has 1 values, 'f0' has 2"),
        ({"dataframe_records": [{**RECORDS[0], "f9": 1}]}, "input 'f9'"),
        ({"dataframe_records": [{**RECORDS[0], "f0": "wet"}]}, "input 'f0'"),
        ({"dataframe_records": [{**RECORDS[0], "f1": "3.5"}]}, "input 'f1'"),
        ({"dataframe_records": [{"f0": 1}]}, "input 'f1': a missing value is not accepted"),
        (b'{"dataframe_records": [', "no JSON"),
        (b'{"instances": [{"f0": 1e999, "f1": 1, "f2": 1, "f3": 1, "f4": 1}]}', "input 'f0': inf"),
        (b'{"instances": [{"f0": -Infinity, "f1": 1, "f2": 1, "f3": 1, "f4": 1}]}', "input 'f0': -inf"),
        (b"[" * 20_000 + b"]" * 20_000, "nested too deeply"),
        (b'{"inputs": {"f0": "\xff"}}', "no JSON"),
        (b'{"dataframe_records": [{"f0": 1, "f1": 1, "f0" : 2, "f2": 1, "f3": 1, "f4": 1}]}', "input 'f0' comes twice"),
        (b'{"inputs": {"f0": [1], "f1": [1], "f2": [1], "f3": [1], "f4": [1], "f4": [2]}}', "input 'f4' comes twice"),
        (b'{"instances": [{"f0": "\\":", "f1": 1, "f2": 1, "f3": 1, "f4": 1}]}', "input 'f0'"),
    ],
)
def test_what_is_wrong_is_a_400_in_mlflow_s_form_that_says_what(served: World, body: Any, said: str) -> None:
    reply = post(served, body)

    assert (reply.status, reply.json["error_code"], reply.headers["content-type"]) == (400, "BAD_REQUEST", "application/json")
    assert said in reply.json["message"]
    assert served.door.counts().scored == 0
    assert served.balanced()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"f0,f1\n1\n", "row 0 has 1 cells, the header has 2"),
        (b"f0,f0\n1,2\n", "'f0' comes twice"),
        (b"f0,zz\n1,2\n", "no input 'zz'"),
        (b"f0,f1,f2,f3,f4\n1,2,x,4,5\n", "input 'f2': 'x'"),
        (b"f0,f1,f2,f3,f4\n1_0,2,3,4,5\n", "input 'f0': '1_0'"),
        (b"f0,f1,f2,f3,f4\n\xff,2,3,4,5\n", "not UTF-8"),
        (b'f0,f1,f2,f3,f4\n"1,2,3,4,5\n', "no CSV"),
    ],
)
def test_bad_csv_is_refused_with_the_place(served: World, body: bytes, said: str) -> None:
    reply = post(served, body, "text/csv")

    assert reply.status == 400
    assert said in reply.json["message"]
    assert served.balanced()


def test_another_content_type_is_415_in_plain_text(served: World) -> None:
    reply = post(served, b"PAR1", "application/vnd.apache.parquet")

    assert (reply.status, reply.headers["content-type"]) == (415, "text/plain; charset=utf-8")
    assert b"application/json or text/csv" in reply.body


def test_a_refused_row_among_others_says_why_in_its_record(served: World) -> None:
    predictions = post(served, {"dataframe_records": [RECORDS[0], {**RECORDS[1], "f3": None}]}).json["predictions"]

    assert predictions[0]["label"] is not None
    assert "error" not in predictions[0]
    assert (predictions[1]["label"], predictions[1]["score"]) == (None, None)
    assert "input 'f3': a missing value" in predictions[1]["error"]
    assert (served.door.counts().scored, dict(served.door.counts().rejected)) == (1, {"missing": 1})


def test_a_number_that_is_missing_is_null_and_never_the_word_nan(tmp_path: Path) -> None:
    with world(logistic_bundle(tmp_path, numbers(missing=True)).folder) as one:
        body = b"f0,f1,f2,f3,f4\n,1,1,1,1\nnan,1,1,1,1\n1,1,1,1,1\n"
        reply = one.ask("POST", "/invocations", body, {"Content-Type": "text/csv"})

    assert b"NaN" not in reply.body
    assert [p["score"] is None for p in reply.json["predictions"]] == [True, True, False]


def test_texts_of_categories_are_read_in_every_form(tmp_path: Path) -> None:
    inputs = [Input(name="kind", kind="category", categories=["7", "none"]), *numbers()[1:]]
    with world(forest_bundle(tmp_path, inputs).folder) as one:
        by_index = one.ask("POST", "/invocations", {"dataframe_split": {"data": [[0, 1, 2, 3, 4], [1, 1, 2, 3, 4]]}}, JSON).json
        texts = {"inputs": {"kind": ["7", "none"], **{f"f{i}": [i, i] for i in range(1, 5)}}}

        assert one.ask("POST", "/invocations", texts, JSON).json == by_index
        csv = b"kind,f1,f2,f3,f4\n7,1,2,3,4\nnone,1,2,3,4\n"
        assert one.ask("POST", "/invocations", csv, {"Content-Type": "text/csv"}).json == by_index


def test_windows_come_as_instances_and_outliers_are_a_column(tmp_path: Path) -> None:
    made, x = window_bundle(tmp_path / "w"), windows(2)
    with world(made.folder) as one, Scorer.open(made.folder) as scorer:
        expected = scorer.score_batch(x).label.tolist()

        assert [p["label"] for p in post(one, {"instances": x.tolist()}).json["predictions"]] == expected
        assert [p["label"] for p in post(one, {"inputs": x.tolist()}).json["predictions"]] == expected
        assert "windows of" in post(one, CSV.encode(), "text/csv").json["message"]
    with world(outlier_bundle(tmp_path / "o").folder) as one:
        rows_ = [{**dict.fromkeys(NAMES, 0), "f0": 9}, dict.fromkeys(NAMES, 0)]
        assert [p["outlier"] for p in post(one, {"dataframe_records": rows_}).json["predictions"]] == [True, False]


def test_no_rows_are_no_predictions(served: World) -> None:
    assert post(served, {"dataframe_records": []}).json == {"predictions": []}
    assert post(served, b"f0,f1,f2,f3,f4\n", "text/csv").json == {"predictions": []}
    assert json.loads(post(served, {"instances": []}).body) == {"predictions": []}
