"""Requests of the Open Inference Protocol as lines: answered by a bundle or by a server, in order, each with one line."""

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors.batch.planning import Places, Wishes, plan_run
from device_agent.doors.batch.remote import RemoteLines
from device_agent.doors.batch.run import Outcome, run
from edgefleet.errors import ConfigError, TransportError
from edgefleet.manifest import Input
from tests.unit.device_agent.batch_world import NAMES, child, lines_of, rows, score
from tests.unit.device_agent.bundles import logistic_bundle, numbers
from tests.unit.device_agent.test_scorer_windows import ROWS, window_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logistic_bundle(tmp_path_factory.mktemp("bundle"), numbers(low=-50.0, high=50.0, range_policy="reject")).folder


def request(x: Any, **more: Any) -> dict[str, Any]:
    data = np.asarray(x)
    return {"inputs": [{"name": "inputs", "shape": list(data.shape), "datatype": "FP32", "data": data.ravel().tolist()}], **more}


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def output(answer: dict[str, Any], name: str) -> Any:
    return next(one for one in answer["outputs"] if one["name"] == name)


def test_every_request_gets_its_response_with_its_place_and_id(bundle: Path, tmp_path: Path) -> None:
    x = rows(6)
    nested = request(x[:2], id="first")
    nested["inputs"][0]["data"] = x[:2].tolist()
    columns = {"inputs": [{"name": name, "shape": [3], "datatype": "FP64", "data": x[2:5, i].tolist()} for i, name in enumerate(NAMES)]}
    source = write(tmp_path / "in.ndjson", nested, columns, request(x[5:], outputs=[{"name": "score"}]))

    outcome = score(bundle, source, tmp_path / "out.ndjson")

    answers = lines_of(tmp_path / "out.ndjson")
    with Scorer.open(bundle) as scorer:
        want = scorer.score_batch(x)
    assert [answer["parameters"]["batch_index"] for answer in answers] == [0, 1, 2]
    assert [answer.get("id") for answer in answers] == ["first", None, None]
    assert [answer["model_name"] for answer in answers] == ["tiny"] * 3
    assert [value for answer in answers for value in output(answer, "score")["data"]] == pytest.approx(want.score, rel=1e-6)
    assert output(answers[1], "label") == {"name": "label", "datatype": "BYTES", "shape": [3], "data": want.label[2:5].tolist()}
    assert output(answers[1], "probabilities")["shape"] == [3, 2]
    assert [one["name"] for one in answers[2]["outputs"]] == ["score"]
    assert (outcome.tally.offered, outcome.tally.scored) == (6, 6)


def test_refused_rows_of_a_request_are_empty_and_named_and_the_others_are_answered(bundle: Path, tmp_path: Path) -> None:
    x = rows(3)
    x[1, 0], x[2, 3] = 99.0, np.nan
    bad = request(x)
    bad["inputs"][0]["data"][13] = None
    source = write(tmp_path / "in.ndjson", bad)

    outcome = score(bundle, source, tmp_path / "out.ndjson", bad=tmp_path / "bad.ndjson")

    (answer,) = lines_of(tmp_path / "out.ndjson")
    assert [value is None for value in output(answer, "score")["data"]] == [False, True, True]
    assert [text.split(":")[0] for text in output(answer, "error")["data"]] == ["", "input 'f0'", "input 'f3'"]
    assert [(one["line"], one["feature"]) for one in lines_of(tmp_path / "bad.ndjson")] == [(1, "f0"), (1, "f3")]
    assert (outcome.tally.offered, outcome.tally.scored, outcome.tally.rejected) == (3, 1, {"missing": 1, "range": 1})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "a JSON array or object"),
        ('{"inputs": []}', "a list 'inputs' of tensors"),
        ('{"inputs": [7]}', "inputs[0] is no object with name, shape and datatype"),
        (
            '{"inputs": [{"name": "inputs", "shape": [1, 5], "datatype": "FP32", "data": [1, 2]}]}',
            "input 'inputs': data hold 2 values in shape [2], its shape [1, 5] says 5",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [-1, 5], "datatype": "FP32", "data": []}]}',
            "its shape [-1, 5] has a negative dimension",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}',
            "shape [1, 4] is not the [n, 5] that the model takes",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [1, 5], "datatype": "FP99", "data": [1, 2, 3, 4, 5]}]}',
            "its datatype 'FP99' is not one of BOOL, UINT8",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, "5"]}]}',
            "data do not fit FP32 [1, 5]: Expected `float | null`, got `str`",
        ),
        ('{"inputs": [{"name": "inputs", "shape": [1, 5], "datatype": "FP32"}]}', "input 'inputs': it has no list 'data'"),
        (
            '{"inputs": [{"name": "other", "shape": [1], "datatype": "FP32", "data": [1]}]}',
            "the model has no such input; it takes 'inputs' (all columns) or one tensor for each of 'f0'",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [1000000000, 5], "datatype": "FP32", "data": []}]}',
            "5000000000 values exceed the limit of 1048576",
        ),
        (
            '{"inputs": [{"name": "inputs", "shape": [0, 4611686018427387904], "datatype": "FP32", "data": []}]}',
            "4611686018427387904 values exceed the limit of 1048576",
        ),
    ],
)
def test_a_request_that_is_none_is_answered_with_an_error_and_the_next_one_is_scored(
    bundle: Path, tmp_path: Path, line: str, words: str
) -> None:
    source = write(tmp_path / "in.ndjson", request(rows(1)), line, request(rows(1)))

    outcome = score(bundle, source, tmp_path / "out.ndjson")

    first, bad, last = lines_of(tmp_path / "out.ndjson")
    assert words in bad["error"]["msg"]
    assert bad["parameters"] == {"batch_index": 1}
    assert first["outputs"] == last["outputs"]
    assert (outcome.tally.scored, outcome.tally.refused) == (2, 1)


def test_columns_that_are_not_sent_count_for_the_limit_of_values_too(bundle: Path, tmp_path: Path) -> None:
    tensor = {"name": "f0", "shape": [210_000], "datatype": "FP32", "data": [0] * 210_000}
    source = write(tmp_path / "in.ndjson", {"inputs": [tensor]})

    outcome = score(bundle, source, tmp_path / "out.ndjson", source_format="oip")

    (answer,) = lines_of(tmp_path / "out.ndjson")
    assert "210000 rows of 5 values exceed the limit of 1048576 values" in answer["error"]["msg"]
    assert outcome.tally.rejected == {"elements": 210_000}


def test_texts_of_categories_come_as_bytes_tensors(tmp_path: Path) -> None:
    inputs = [Input(name="f0", kind="category", categories=["red", "blue"]), *numbers()[1:]]
    bundle = logistic_bundle(tmp_path / "bundle", inputs).folder
    numbers_of = [{"name": name, "shape": [2, 1], "datatype": "INT64", "data": [1, 1]} for name in NAMES[1:]]
    colours = {"name": "f0", "shape": [2, 1], "datatype": "BYTES", "data": ["blue", "red"]}
    source = write(tmp_path / "in.ndjson", {"inputs": [colours, *numbers_of]}, request([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1]]))

    score(bundle, source, tmp_path / "out.ndjson")

    by_text, by_index = lines_of(tmp_path / "out.ndjson")
    assert by_text["outputs"] == by_index["outputs"]


def test_null_is_a_missing_value_also_among_texts_and_infinity_is_refused_by_name(tmp_path: Path) -> None:
    inputs = [Input(name="f0", kind="category", categories=["red", "blue"], missing=True), *numbers()[1:]]
    bundle = logistic_bundle(tmp_path / "bundle", inputs).folder
    numbers_of = [{"name": name, "shape": [2], "datatype": "FP32", "data": [1, 1]} for name in NAMES[1:]]
    colours = {"name": "f0", "shape": [2], "datatype": "BYTES", "data": [None, "red"]}
    text = json.dumps({"inputs": [colours, *numbers_of]})
    source = write(tmp_path / "in.ndjson", text, text.replace("[1, 1]", "[1, 1e999]"))

    outcome = score(bundle, source, tmp_path / "out.ndjson")

    assert (outcome.tally.scored, outcome.tally.rejected) == (3, {"infinite": 1})


def test_a_request_of_windows_is_answered(tmp_path: Path) -> None:
    bundle = window_bundle(tmp_path / "bundle").folder
    x = rows(2 * ROWS).reshape(2, ROWS, 5)
    score(bundle, write(tmp_path / "in.ndjson", request(x)), tmp_path / "out.ndjson")
    assert output(lines_of(tmp_path / "out.ndjson")[0], "score")["shape"] == [2]


class Door(http.server.BaseHTTPRequestHandler):
    """A server of the protocol: the index, and inference by a scorer; `before` may answer something else."""

    scorer: Scorer
    before: Callable[["Door"], bool]
    models: tuple[str, ...] = ("tiny", "tiny.explainer")
    protocol_version = "HTTP/1.1"
    odd: bytes | None = None  # said in place of an answer

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if type(self).before(self):
            return
        if self.odd is not None:
            self.say(200, self.odd)
            return
        if self.path == "/base/v2/repository/index":
            self.answer(200, [{"name": name, "version": "1", "state": "READY"} for name in self.models])
        elif self.path == "/base/v2/models/tiny/infer" and "binary_data_output" not in asked.get("parameters", {}):
            tensor = asked["inputs"][0]
            x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
            if x.shape[1] != 5:
                self.answer(400, {"error": f"shape {list(x.shape)} is not [n, 5]"})
                return
            scores = self.scorer.score_batch(x).score.tolist()
            outputs = [{"name": "score", "datatype": "FP32", "shape": [len(x)], "data": scores}]
            self.answer(
                200, {"model_name": "tiny", "model_version": "1", "outputs": outputs} | ({"id": asked["id"]} if "id" in asked else {})
            )
        else:
            self.answer(404, {"error": f"nothing at {self.path}"})

    def answer(self, code: int, document: Any) -> None:
        self.say(code, json.dumps(document).encode())

    def say(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def door(bundle: Path, before: Callable[[Door], bool] = lambda _: False, models: tuple[str, ...] = Door.models) -> Iterator[str]:
    with Scorer.open(bundle) as scorer:
        handler = type("Handler", (Door,), {"scorer": scorer, "before": staticmethod(before), "models": models})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}/base"
            finally:
                server.shutdown()
                thread.join()


def send(url: str, source: Path, to: Path, resume: bool = False, token: str = "") -> Outcome:
    remote = RemoteLines(url, token=token, pause=lambda _: None)
    try:
        return run(plan_run(remote, Wishes(), Places(source=source, output=to)), resume)
    finally:
        remote.close()


def test_a_server_answers_as_the_bundle_does(bundle: Path, tmp_path: Path) -> None:
    x = rows(30)
    lines = [request(x[i : i + 3], id=f"r{i}", parameters={"binary_data_output": True}) for i in range(0, 30, 3)]
    source = write(tmp_path / "in.ndjson", *lines, "nonsense", request(rows(1)[:, :4]))
    score(bundle, source, tmp_path / "local.ndjson")
    with door(bundle) as url:
        outcome = send(url, source, tmp_path / "remote.ndjson")

    local, remote = lines_of(tmp_path / "local.ndjson"), lines_of(tmp_path / "remote.ndjson")
    assert [answer["parameters"] for answer in remote] == [answer["parameters"] for answer in local]
    for mine, theirs in zip(local[:10], remote[:10], strict=True):
        assert mine["id"] == theirs["id"]
        assert output(mine, "score")["data"] == pytest.approx(output(theirs, "score")["data"], rel=1e-6)
    assert "is not [n, 5]" in remote[-1]["error"]["msg"]
    assert (outcome.tally.scored, outcome.tally.rejected) == (30, {"http-400": 1, "type": 1})


def test_a_server_that_sheds_load_or_drops_the_connection_is_asked_again(bundle: Path, tmp_path: Path) -> None:
    calls = 0

    def before(handler: Door) -> bool:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            handler.answer(503, {"error": "busy"})
        elif calls % 3 == 1:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        return calls % 3 != 2

    source = write(tmp_path / "in.ndjson", *[request(rows(2)) for _ in range(4)])
    with door(bundle, before) as url:
        assert send(url, source, tmp_path / "out.ndjson").tally.scored == 8


def test_a_server_that_goes_away_ends_the_run_and_a_resume_sends_only_the_rest(bundle: Path, tmp_path: Path) -> None:
    answered = 0

    def before(handler: Door) -> bool:
        nonlocal answered
        if answered > 5:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return True
        answered += handler.path.endswith("infer")
        return False

    source = write(tmp_path / "in.ndjson", *[request(rows(1), id=str(i)) for i in range(12)])
    with door(bundle, before) as url:
        with pytest.raises(TransportError, match="--resume to go on"):
            send(url, source, tmp_path / "out.ndjson")
        assert not (tmp_path / "out.ndjson").exists()
        answered = -100
        outcome = send(url, source, tmp_path / "out.ndjson", resume=True)
    assert (outcome.resumed_at, answered) == (6, -94)
    assert [answer["id"] for answer in lines_of(tmp_path / "out.ndjson")] == [str(i) for i in range(12)]


def test_a_token_is_sent_and_never_said(bundle: Path, tmp_path: Path) -> None:
    seen = set()

    def before(handler: Door) -> bool:
        seen.add(handler.headers["Authorization"])
        return False

    (tmp_path / "token").write_text("open-sesame\n")
    source = write(tmp_path / "in.ndjson", request(rows(1)))
    with door(bundle, before) as url:
        done = child("--url", url, "--token-file", tmp_path / "token", source, "--output", tmp_path / "out.ndjson")
    assert (done.returncode, seen) == (0, {"Bearer open-sesame"})
    assert "sesame" not in (tmp_path / "out.ndjson.journal").read_text()


@pytest.mark.parametrize("models", [(), ("a", "b")])
def test_without_one_model_the_name_is_asked_for(bundle: Path, models: tuple[str, ...]) -> None:
    with door(bundle, models=models) as url, pytest.raises(ConfigError, match="--model is needed"):
        RemoteLines(url)


@pytest.mark.parametrize(
    ("outputs", "scored"),
    [
        (b'[{"name": "score", "data": [NaN, 1e999, -Infinity]}]', 3),
        (b'["score", 7, null]', 3),
        (b'[{"name": "error", "data": 7}, {"name": "outlier", "data": null}]', 3),
        (b'[{"name": "error", "data": ["a", "b", "c", "d", "e"]}]', 0),
    ],
)
def test_a_server_that_answers_oddly_ends_no_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: bytes, scored: int
) -> None:
    source = write(tmp_path / "in.ndjson", request(rows(3)))
    with door(bundle) as url:
        monkeypatch.setattr(Door, "odd", b'{"outputs": ' + outputs + b"}")
        remote = RemoteLines(url, "tiny")
        try:
            outcome = run(plan_run(remote, Wishes(), Places(source=source, output=tmp_path / "out.ndjson")))
        finally:
            remote.close()

    assert (outcome.tally.offered, outcome.tally.scored) == (3, scored)
    assert b"NaN" not in (tmp_path / "out.ndjson").read_bytes()
    assert len(lines_of(tmp_path / "out.ndjson")) == 1


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8080", "http://", "http://h:x", "http://user:secret@h"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        RemoteLines(url, "m")


def test_rows_that_are_no_requests_are_not_sent_to_a_server(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("f0\n")
    with door(bundle) as url, pytest.raises(ConfigError, match="say --format oip"):
        send(url, tmp_path / "in.csv", tmp_path / "out.ndjson")
