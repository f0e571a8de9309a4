"""The MQTT door on a real Mosquitto: every message is one answer, and the sums are right, whatever happens to it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_agent import Scorer
from device_agent.doors.answering import Answering
from device_agent.doors.mqtt import door as door_module
from device_agent.doors.mqtt.connection import RECEIVE_MAXIMUM
from device_agent.doors.mqtt.door import MqttDoor
from edgefleet.errors import ArtifactError
from edgefleet.manifest import manifest_bytes
from edgefleet.ports import free_port
from tests.unit.device_agent.agent_world import DEVICE, eventually, make_bundle, mosquitto, rows, weights
from tests.unit.device_agent.mqtt_world import IN, MINE, OUT, Caller, opened, settled
from tests.unit.device_agent.test_scorer_windows import window_bundle, windows

pytestmark = pytest.mark.broker
ROW = [0.5, 1.0, -1.0, 0.0, 2.0]


class World:
    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.bundle = make_bundle(folder / "a", weights(1))
        self.models = Answering()
        self.scorer = Scorer.open(self.bundle)
        self.models.install(self.scorer)
        self.door = opened(self.models, port)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with mosquitto(tmp_path_factory.mktemp("broker")) as (_, port, _):
        yield port


@pytest.fixture
def world(tmp_path: Path, port: int) -> Iterator[World]:
    made = World(tmp_path, port)
    yield made
    made.door.close()
    made.models.close()


def test_a_row_is_answered_as_the_scorer_answers_it_in_either_encoding(world: World) -> None:
    with Scorer.open(world.bundle) as scorer, Caller(world.port) as caller:
        expected = scorer.score(ROW)
        named = {f"f{i}": value for i, value in enumerate(ROW)}
        forms: list[Any] = [ROW, named, {"row": ROW, "id": 7}, msgspec.msgpack.encode(ROW), msgspec.msgpack.encode(named)]
        answers = [caller.ask(form) for form in forms]
        answers.append(caller.ask(msgspec.msgpack.encode({"rows": [ROW]}), ContentType="application/msgpack")["answers"][0])

    for answer in answers:
        assert (answer["status"], answer["label"]) == ("ok", expected.label)
        assert answer["score"] == pytest.approx(expected.score, abs=1e-6)
        assert answer.get("digest", expected.digest) == expected.digest
    assert answers[2]["id"] == 7
    assert (world.door.counts.offered, world.door.counts.scored) == (6, 6)


def test_a_batch_is_one_answer_with_each_row_in_its_place(world: World) -> None:
    with Caller(world.port) as caller:
        answer = caller.ask({"rows": [ROW, [1, 2], {"f0": "x"}, [0, 0, 0, 0, 999], ROW], "id": "b", "probabilities": True})

    told = [(one["status"], one.get("reason"), one.get("feature")) for one in answer["answers"]]
    ok = ("ok", None, None)
    assert told == [ok, ("rejected", "count", None), ("rejected", "type", "f0"), ("rejected", "range", "f4"), ok]
    assert (answer["id"], answer["offered"], answer["scored"], answer["rejected"]) == ("b", 5, 2, 3)
    assert answer["digest"] == world.scorer.digest
    assert answer["answers"][3]["value"] == "999.0"
    assert "-50" in answer["answers"][3]["limit"]
    assert sum(answer["answers"][0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert (world.door.counts.offered, world.door.counts.scored, sum(world.door.counts.rejected.values())) == (5, 2, 3)


def test_mqtt_5_callers_name_their_topic_and_get_their_correlation_back_and_old_ones_the_fixed_topic(world: World) -> None:
    with Caller(world.port) as caller, Caller(world.port, version=4, topics=(OUT,)) as old:
        caller.ask(ROW, ResponseTopic=MINE, CorrelationData=b"\x00\xff7")
        assert caller.got[0][0] == MINE
        assert caller.got[0][2] == b"\x00\xff7"
        assert old.ask(ROW)["status"] == "ok"
        assert old.got[0][0] == OUT
        assert len(old.got) == 1


@pytest.mark.parametrize("topic", ["ef/v1/d/other/score/in", f"ef/v1/d/{DEVICE}/desired", IN])
def test_a_caller_cannot_lead_the_door_to_topics_that_are_not_its_own(world: World, topic: str) -> None:
    with Caller(world.port, topics=(OUT, topic)) as caller:
        caller.send(ROW, ResponseTopic=topic)
        eventually("an answer on the fixed topic", lambda: OUT in [got[0] for got in caller.got])

        (place,) = [i for i, got in enumerate(caller.got) if got[0] == OUT]
        assert "answered here, because the response topic" in caller.read(place)["warning"]
        assert all(got[1].startswith(b"[") for got in caller.got if got[0] == topic)  # our own row, where we listen to it
    assert world.door.counts.offered == 1


BAD = [
    (b"", "type"),
    (b"nonsense", "type"),
    (b"3", "type"),
    (b'"text"', "type"),
    (b"[" * 100_000, "type"),
    (b"\x91" * 100_000, "type"),
    (b"\xc1", "type"),
    (b"\xdd\xff\xff\xff\xff", "type"),
    (b"[]", "count"),
    (b"{}", "missing"),
    (b"[1, 2]", "count"),
    (b'[1, 2, 3, 4, "x"]', "type"),
    (b"[1, 2, 3, 4, 1e999]", "infinite"),
    (b"[1, 2, 3, 4, NaN]", "missing"),
    (b"[1, 2, 3, 4, null]", "missing"),
    (b"[1, 2, 3, 4, -Infinity]", "infinite"),
    (b"[1, 2, 3, 4, 1e39]", "infinite"),
    (b"[1, 2, 3, 4, " + b"9" * 400 + b"]", None),
    (msgspec.msgpack.encode([1, 2, 3, 4, float("nan")]), "missing"),
    (msgspec.msgpack.encode([1, 2, 3, 4, 2**64 - 1]), "range"),
    (b'{"f0": "\xff\xfe"}', "type"),
    (b'{"f0":1,"f1":1,"f2":1,"f3":1,"f4":1,"f0":2}', "count"),
    (b'{"f0":' * 10_000, "type"),
    (b'{"rows": 5}', "type"),
    (b'{"rows": []}', "count"),
    (b'{"rows": [[1,2,3,4,5]], "id": [1]}', "type"),
    (b'{"rows": [[1,2,3,4,5]], "explain": true}', "type"),
    (b'{"row": [1,2,3,4,5], "rows": []}', "type"),
    (b"[" + b"[1,2,3,4,5]," * 1024 + b"[1,2,3,4,5]]", "count"),
    (b" " * 262_145, "count"),
    (msgspec.msgpack.encode({1: 2, b"x": None}), None),
    (msgspec.msgpack.encode([[[[[1]]]]]), None),
]


def test_every_bad_message_is_an_answer_that_says_what_was_wrong_and_the_next_row_is_scored(world: World) -> None:
    with Caller(world.port) as caller:
        for payload, reason in BAD:
            answer = caller.ask(payload)
            failures = [one for one in answer.get("answers", [answer]) if one["status"] == "rejected"]
            assert failures, payload[:40]
            assert failures[0]["error"], payload[:40]
            assert failures[0]["limit"], payload[:40]
            assert reason is None or failures[0]["reason"] == reason, (payload[:40], failures[0])
        assert caller.ask(ROW)["status"] == "ok"
    settled(world.door, len(BAD) + 1)
    assert (world.door.counts.scored, world.door.counts.shed, world.door.counts.unsent) == (1, 0, 0)


def test_a_message_of_a_hundred_megabytes_stays_at_the_broker_and_the_door_goes_on(world: World) -> None:
    with Caller(world.port) as caller, Caller(world.port, topics=("other",)) as other:
        other.send(b"[" * (100 << 20), qos=0)
        other.send(ROW)
        eventually("the row behind it", lambda: len(caller.got) >= 1, 60.0)
        assert caller.ask(ROW)["status"] == "ok"
    assert (world.door.counts.scored, world.door.counts.offered) == (2, 2)  # had it come, it would be counted as refused


def test_random_bytes_are_answers_too(world: World) -> None:
    rng = np.random.default_rng(5)
    valid = [b'{"rows": [[1,2,3,4,5],[5,4,3,2,1]], "id": 3}', msgspec.msgpack.encode({"row": ROW, "key": "k", "explain": True})]
    with Caller(world.port) as caller:
        for i in range(400):
            payload = bytearray(valid[i % 2] if i % 4 < 2 else rng.bytes(int(rng.integers(0, 60))))
            for _ in range(int(rng.integers(1, 4)) if payload else 0):
                payload[int(rng.integers(len(payload)))] = int(rng.integers(256))
            caller.send(bytes(payload))
        eventually("an answer to each", lambda: len(caller.got) == 400)
        assert {caller.read(i)["status"] for i in range(400)} <= {"ok", "rejected", "shed"}
    settled(world.door, 400)
    assert world.door.alive
    assert "internal" not in world.door.counts.rejected


class Slow:
    """Answers like the model, once it is let go."""

    def __init__(self, models: Answering) -> None:
        self.entered, self.go, self._score = threading.Event(), threading.Event(), models.score
        models.score = self  # type: ignore[method-assign]

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.entered.set()
        self.go.wait(60.0)
        return self._score(*given, **named)


def test_beyond_its_queue_the_door_sheds_with_an_answer_and_loses_count_of_nothing(world: World) -> None:
    slow = Slow(world.models)
    with Caller(world.port) as caller:
        caller.send({"row": ROW, "id": 600})
        assert slow.entered.wait(90.0)
        for i in range(600):
            caller.send({"row": ROW, "id": i}, qos=0)
        eventually("refusals", lambda: len(caller.got) == 600 - door_module.MAX_WAITING)
        slow.go.set()
        eventually("601 answers", lambda: len(caller.got) == 601)
        answers = [caller.read(i) for i in range(601)]

    counts = world.door.counts
    shed = [one for one in answers if one["status"] == "shed"]
    assert len(shed) == counts.shed == 600 - door_module.MAX_WAITING
    assert "256 messages" in shed[0]["error"]
    assert counts.offered == 601 == counts.scored + counts.shed
    # The id of a shed message was not read; of MQTT 5 the correlation comes back all the same.
    assert sorted(one["id"] for one in answers if "id" in one) == [*range(door_module.MAX_WAITING), 600]


def test_rows_of_qos_1_wait_at_the_broker_while_none_is_acknowledged(world: World) -> None:
    slow = Slow(world.models)
    with Caller(world.port) as caller:
        for i in range(600):
            caller.send({"row": ROW, "id": i})
        assert slow.entered.wait(90.0)
        eventually("all but those that wait for us are at the broker", lambda: len(world.door._queue) == RECEIVE_MAXIMUM - 1)
        slow.go.set()
        eventually("600 answers", lambda: len(caller.got) == 600)
        scored = [one["id"] for one in map(caller.read, range(600)) if one["status"] == "ok"]

    # Mosquitto 2.0 forgets the limit once the first acknowledgements come: what it then sends beyond the queue is shed.
    counts = world.door.counts
    assert (counts.offered, counts.scored) == (600, len(scored))
    assert counts.scored + counts.shed == 600
    assert scored[:RECEIVE_MAXIMUM] == list(range(RECEIVE_MAXIMUM))


def test_what_waits_too_long_is_shed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MAX_WAIT_S", -1.0)
    with Caller(world.port) as caller:
        answer = caller.ask(ROW)
    assert (answer["status"], answer["reason"], world.door.counts.shed) == ("shed", "age", 1)


def test_a_retained_row_is_not_scored_at_every_connection(world: World) -> None:
    with Caller(world.port) as caller:
        assert caller.ask(ROW, retain=True)["status"] == "ok"  # a subscriber that is there gets it as an ordinary message
        door = opened(world.models, world.port, device_id="other-1")
        try:
            assert caller.ask(ROW)["status"] == "ok"
            eventually("both doors' answers", lambda: len(caller.got) == 3)
        finally:
            door.close()
            caller.send(b"", retain=True)
            eventually("the answer to the clearing", lambda: len(caller.got) == 4)
        assert door.counts.messages == 1


def test_without_a_model_and_with_one_that_fails_the_answer_says_so(world: World, port: int) -> None:
    models = Answering()
    door = opened(models, port, topic_in="other/rows", device_id="other-2")
    with Caller(port) as caller:
        answer = caller.ask([ROW, ROW], topic="other/rows")
        assert (answer["status"], answer["reason"], answer["shed"]) == ("shed", "no-model", 2)

        def fail(*_: Any, **__: Any) -> Any:
            raise ArtifactError("the graph divided by zero")

        world.models.score = fail  # type: ignore[method-assign]
        answer = caller.ask(ROW)
        assert (answer["status"], answer["reason"], answer["error"]) == ("rejected", "runtime", "the graph divided by zero")
    door.close()
    assert door.counts.shed == 2


def test_an_error_of_the_door_itself_is_an_answer_and_not_its_end(world: World) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("a mistake of ours")

    real = world.models.score
    world.models.score = fail  # type: ignore[method-assign]
    with Caller(world.port) as caller:
        assert caller.ask(ROW)["reason"] == "internal"
        world.models.score = real  # type: ignore[method-assign]
        assert caller.ask(ROW)["status"] == "ok"


@pytest.mark.parametrize("batch", [False, True])
def test_probabilities_have_the_names_of_the_model_that_answered_when_it_was_swapped_meanwhile(
    world: World, tmp_path: Path, batch: bool
) -> None:
    other = make_bundle(tmp_path / "other", weights(7))
    (tmp_path / "other" / "manifest.json").write_bytes(
        manifest_bytes(msgspec.structs.replace(other.manifest, classes=other.manifest.classes[::-1]))
    )
    row = rows(1)[0].tolist()
    with Scorer.open(tmp_path / "other") as scorer:
        answered = scorer.score(row)
        assert answered.probabilities is not None
        expected = dict(zip(scorer.bundle.manifest.classes, answered.probabilities.tolist(), strict=True))
    name = "score_batch" if batch else "score"
    real = getattr(world.models, name)

    def swapped(*given: Any, **more: Any) -> Any:
        setattr(world.models, name, real)
        world.models.install(Scorer.open(tmp_path / "other"))
        return real(*given, **more)

    setattr(world.models, name, swapped)
    with Caller(world.port) as caller:
        answer = caller.ask({"rows": [row], "probabilities": True} if batch else {"row": row, "probabilities": True})

    one = answer["answers"][0] if batch else answer
    assert one["probabilities"] == pytest.approx(expected, rel=1e-5)
    assert (world.door.counts.offered, world.door.counts.scored) == (1, 1)


def test_an_explanation_comes_with_a_single_row_that_asks_for_it(world: World) -> None:
    with Caller(world.port) as caller:
        answer = caller.ask({"row": ROW, "explain": True})
    assert len(answer["explanation"]) == 3
    assert {one["input"] for one in answer["explanation"]} <= {f"f{i}" for i in range(5)}


def test_a_model_of_windows_takes_a_window_as_its_row(tmp_path: Path, port: int) -> None:
    models = Answering()
    made = window_bundle(tmp_path / "w")
    models.install(Scorer.open(made.folder))
    door = opened(models, port, device_id="other-3")
    x = windows(3).tolist()
    with Caller(port) as caller:
        assert caller.ask(x[0])["status"] == "ok"
        assert caller.ask(x)["scored"] == 3
        assert caller.ask(x[0][0])["status"] == "rejected"
    door.close()
    models.close()


def test_the_door_is_back_after_the_broker_was_killed_and_answers_what_comes_then(tmp_path: Path) -> None:
    port = free_port()
    with mosquitto(tmp_path / "b1", port) as (_, _, child):
        world = World(tmp_path, port)
        with Caller(port) as caller:
            assert caller.ask(ROW)["status"] == "ok"
        child.kill()
        child.wait()
        eventually("the loss", lambda: not world.door.connected)
    with mosquitto(tmp_path / "b2", port):
        eventually("the return", lambda: world.door.connected, 90.0)
        with Caller(port) as caller:
            assert caller.ask(ROW)["status"] == "ok"
    counts = world.door.counts
    world.door.close()
    world.models.close()
    assert (counts.offered, counts.scored) == (2, 2)


def test_what_was_not_answered_when_the_connection_broke_is_given_again(world: World) -> None:
    slow = Slow(world.models)
    with Caller(world.port) as caller:
        caller.send({"row": ROW, "id": 1})
        assert slow.entered.wait(90.0)
        caller.send({"row": ROW, "id": 2})
        eventually("the second waits", lambda: len(world.door._queue) == 1)
        sock: Any = world.door._connection._client.socket()
        sock.shutdown(2)
        eventually("the loss", lambda: world.door._connection.number == 2 and world.door.connected)
        slow.go.set()
        eventually("both answers", lambda: {caller.read(i).get("id") for i in range(len(caller.got))} == {1, 2})
    assert world.door.counts.rejected == {}


def test_models_are_swapped_under_load_and_each_batch_is_of_one_of_them(world: World) -> None:
    other = make_bundle(world.folder / "b", weights(2))
    x = rows(64)
    with Scorer.open(world.bundle) as a, Scorer.open(other) as b:
        expected = [np.round(one.score_batch(x).score.astype(float), 5).tolist() for one in (a, b)]
    seen = [0, 0]
    with Caller(world.port) as caller:
        for i in range(150):
            caller.send(x.tolist())
            if i % 15 == 0:
                world.models.install(Scorer.open(other if i % 2 else world.bundle))
        eventually("150 answers", lambda: len(caller.got) == 150, 90.0)
        for i in range(150):
            scores = [round(one["score"], 5) for one in caller.read(i)["answers"]]
            assert scores in expected or np.abs(np.array(expected) - scores).max(axis=1).min() < 2e-5
            seen[int(np.abs(np.array(expected) - scores).max(axis=1).argmin())] += 1
    assert world.door.counts.scored == 150 * 64
    assert min(seen) > 0


def test_a_key_sticks_to_its_model_while_two_share_the_rows(world: World) -> None:
    challenger = Scorer.open(make_bundle(world.folder / "b", weights(2)))
    world.models.begin_split(challenger, 512, "autumn")
    with Caller(world.port) as caller:
        digests = [{caller.ask({"row": x, "key": f"m-{key}"})["digest"] for x in rows(3).tolist()} for key in range(12)]
    assert all(len(one) == 1 for one in digests)
    assert len(set.union(*digests)) == 2


def test_what_waits_when_the_door_closes_is_answered_with_shed(world: World) -> None:
    slow = Slow(world.models)
    with Caller(world.port) as caller:
        for i in range(4):
            caller.send({"row": ROW, "id": i})
        assert slow.entered.wait(90.0)
        eventually("three wait", lambda: len(world.door._queue) == 3)
        closing = threading.Thread(target=world.door.close)
        closing.start()
        slow.go.set()
        closing.join()
        eventually("four answers", lambda: len(caller.got) == 4)
        assert sorted(caller.read(i)["status"] for i in range(4)) == ["ok", "shed", "shed", "shed"]
    assert isinstance(world.door, MqttDoor)
    assert world.door.counts.offered == 4
