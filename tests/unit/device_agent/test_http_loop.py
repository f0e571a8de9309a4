"""Where a request is answered: small quick ones in the door's loop, everything else in threads, so that nobody holds up anybody."""

import json
import select
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from device_agent.doors.answering import Answering
from device_agent.doors.http.application import Application
from device_agent.doors.http.connection import Connection, Place
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.quickness import SMALL_BODY, Quickness
from device_agent.doors.http.server import ByteBudget
from device_agent.doors.http.settings import HttpSettings, Limits
from device_agent.doors.http.wire import Head, parse_head
from device_agent.scorer import Scorer
from tests.unit.device_agent.agent_world import eventually
from tests.unit.device_agent.http_world import World, matrix, rows, world

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(body: bytes, path: str = "/v2/models/tiny/infer") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ROWS = json.dumps({"inputs": [matrix(rows(2))]}).encode()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def ask(sock: socket.socket, request: bytes) -> bytes:
    sock.sendall(request)
    return sock.recv(65_536)


class Watched(Answering):
    """Says in which threads rows were scored; may wait for a word before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def score_batch(self, rows: Any, made_for: Scorer | None = None, key: Any = None) -> Any:
        self.threads.append(threading.current_thread().name)
        assert self.may_answer.wait(60)
        return super().score_batch(rows, made_for)


@pytest.fixture
def watched(forest: Path) -> Any:
    models = Watched()
    models.install(Scorer.open(forest))
    door = HttpDoor(models, HttpSettings(port=0))
    door.start()
    yield World(models, door, int(door.url.rpartition(":")[2]))
    models.may_answer.set()
    door.close()
    models.close()


def test_small_requests_are_answered_in_the_loop_and_large_ones_in_threads(watched: World) -> None:
    assert isinstance(watched.models, Watched)
    large = json.dumps({"inputs": [matrix(rows(2))], "padding": "x" * SMALL_BODY}).encode()
    with connect(watched.port) as sock:
        for body in (ROWS, large, ROWS, ROWS):
            assert ask(sock, post(body)).startswith(b"HTTP/1.1 200")
    # The one after the large one is the thread's last: it was there already.
    assert watched.models.threads == ["http", "http-connection", "http-connection", "http"]


def test_a_model_that_has_become_slow_no_longer_holds_up_the_others(watched: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(watched.models, Watched)
    monkeypatch.setattr(Quickness, "expects", lambda _, head: head.path.startswith("/v2/health/"))
    watched.models.may_answer.clear()
    with connect(watched.port) as slow, connect(watched.port) as probe:
        slow.sendall(post(ROWS))
        threads = watched.models.threads
        eventually("the slow request is being answered", lambda: threads)
        assert ask(probe, HEALTH).startswith(b"HTTP/1.1 200")
        watched.models.may_answer.set()
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200")
    assert watched.models.threads == ["http-connection"]


def test_an_answer_that_the_client_does_not_take_goes_on_in_a_thread(forest: Path) -> None:
    models = Answering()
    models.install(Scorer.open(forest))
    limits = Limits()
    many = post(json.dumps({"inputs": [matrix(rows(100))]}).encode())
    with socket.create_server(("127.0.0.1", 0)) as listener, connect(listener.getsockname()[1]) as client:
        accepted, _ = listener.accept()
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that the system gives
        one = Connection(accepted, Application(models, limits), limits, ByteBudget(1), None, Quickness())
        places = []
        while Place.THREAD not in places:
            client.sendall(many)
            select.select([accepted], [], [], 20)
            places.append(one.quick_turn())
        thread = threading.Thread(target=one.serve)
        thread.start()
        answers, wanted = b"", len(places)
        while answers.count(b"HTTP/1.1 200") < wanted or not answers.endswith(b"]}]}"):
            answers += client.recv(65_536)
        client.close()
        thread.join(60)
        one.close()
    models.close()
    assert not thread.is_alive()


def test_who_says_nothing_for_too_long_is_let_go_also_in_the_loop(forest: Path) -> None:
    with world(forest, idle_s=0.05) as one, connect(one.port) as silent, connect(one.port) as asked:
        assert ask(asked, HEALTH).startswith(b"HTTP/1.1 200")
        assert silent.recv(1) == asked.recv(1) == b""


def head(path: str, *lines: str, length: int = 100) -> Head:
    return parse_head("\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *lines]).encode())


@pytest.mark.parametrize(
    "asked",
    [
        head("/v2/models/tiny.explainer/infer"),
        head("/v2/models/tiny/versions/3/infer"),
        head("/v2/models/tiny/infer", length=SMALL_BODY + 1),
        head("/v2/models/tiny/infer", "Content-Encoding: gzip"),
        head("/v2/models/tiny/infer", "Expect: 100-continue"),
        head("/metrics"),
    ],
    ids=["explanation", "version", "large", "packed", "waiting", "not for rows"],
)
def test_what_may_take_long_is_nothing_for_the_loop(asked: Head) -> None:
    assert not Quickness().expects(asked)


def test_one_long_request_changes_nothing_and_several_do_until_they_are_quick_again() -> None:
    quickness, asked = Quickness(), head("/v2/models/tiny/infer")
    quickness.note(1.0)
    assert quickness.expects(asked)
    for _ in range(20):
        quickness.note(1.0)
    assert not quickness.expects(asked)
    for _ in range(20):
        quickness.note(1e-5)
    assert quickness.expects(asked)


def test_without_file_descriptors_the_door_is_deaf_for_a_moment_and_answers_those_it_knows(
    forest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world(forest, connections=4) as one, connect(one.port) as known:
        assert ask(known, HEALTH).startswith(b"HTTP/1.1 200")
        refusals = iter([OSError(24, "Too many open files")])
        real = socket.socket.accept

        def accept(sock: socket.socket) -> Any:
            for refusal in refusals:
                raise refusal
            return real(sock)

        monkeypatch.setattr(socket.socket, "accept", accept)
        with connect(one.port) as newcomer:
            newcomer.sendall(HEALTH)
            assert ask(known, HEALTH).startswith(b"HTTP/1.1 200")
            assert newcomer.recv(65_536).startswith(b"HTTP/1.1 200")
        assert next(refusals, None) is None
