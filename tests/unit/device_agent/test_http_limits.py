"""The door's own server: turns of a connection, limits of size, time and number, and overload, on real sockets."""

import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from device_agent.doors.answering import Answering
from device_agent.doors.http.door import HttpDoor
from device_agent.doors.http.rows import CHUNK_ROWS
from device_agent.doors.http.settings import HttpSettings
from device_agent.doors.http.timed import KernelTimedSocket
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import eventually
from tests.unit.device_agent.http_world import World, matrix, read_all, rows, world

GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
PAGE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def post(body: bytes, *headers: str, path: str = "/v2/models/tiny/infer", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


ROW = json.dumps({"inputs": [matrix(rows(1))]}).encode()


def test_a_connection_takes_many_requests_also_when_they_come_at_once_or_in_pieces(served: World) -> None:
    assert served.raw(GET + post(ROW) + LAST).count(b"HTTP/1.1 200 OK") == 3
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as sock:
        for content in (GET[:9], GET[9:40], GET[40:] + post(ROW)[:200], post(ROW)[200:], b"\r\n" + LAST):
            sock.sendall(content)
        assert read_all(sock).count(b"HTTP/1.1 200 OK") == 3


def test_an_answer_is_one_write_without_delay(served: World) -> None:
    # A delayed acknowledgement takes 40 ms in every round; a busy machine is slow in some.
    assert any(_typical_s(served) < 0.030 for _ in range(5))


def _typical_s(served: World) -> float:
    """Median of 20 requests on one connection, each of which is answered in one piece."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = []
        for _ in range(20):
            start = time.perf_counter()
            sock.sendall(post(ROW))
            answer = sock.recv(65_536)
            taken.append(time.perf_counter() - start)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"Content-Length: %d\r\n" % len(body) in head
    return sorted(taken)[10]


def test_old_clients_get_one_answer_and_those_that_ask_for_more_get_more(served: World) -> None:
    assert served.raw(b"GET /ping HTTP/1.0\r\n\r\n" + GET).count(b"HTTP/1.1") == 1
    assert served.raw(b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + LAST).count(b"HTTP/1.1") == 2


def test_expect_continue_is_answered_before_the_body_comes(served: World) -> None:
    request = post(ROW, "Expect: 100-continue", "Connection: close")
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as sock:
        sock.sendall(request[: -len(ROW)])
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(ROW)
        assert read_all(sock).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("path", ["/invocations", "/invocations/", "/v2/models/tiny/infer/"])
def test_rows_that_are_refused_unread_are_counted_whatever_the_way_their_path_is_written(forest: Path, path: str) -> None:
    with world(forest) as one:
        assert one.raw(post(b"", path=path, length=9 << 20)).startswith(b"HTTP/1.1 413 ")

        assert (one.door.counts().offered, dict(one.door.counts().rejected)) == (1, {"body-size": 1})


def test_a_body_beyond_the_limit_is_refused_in_place_of_continue(served: World) -> None:
    answer = served.raw(post(b"", "Expect: 100-continue", length=9 << 20))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


def test_a_small_limit_of_a_body_holds_for_small_requests_too(forest: Path) -> None:
    with world(forest, body_bytes=len(ROW)) as one:
        assert one.raw(post(ROW, "Connection: close")).startswith(b"HTTP/1.1 200 ")

        answer = one.raw(post(ROW + b" ", "Connection: close"))

        assert answer.startswith(b"HTTP/1.1 413 ")
        assert f"a body of {len(ROW) + 1} bytes exceeds the limit of {len(ROW)}".encode() in answer


def test_head_is_get_without_the_body_and_other_methods_are_405_with_those_allowed(served: World) -> None:
    head, get = served.ask("HEAD", "/v2"), served.ask("GET", "/v2")

    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(get.body)))
    for method, path, allowed in (
        ("DELETE", "/v2", "GET, HEAD"),
        ("GET", "/v2/models/tiny/infer", "POST"),
        ("PUT", "/invocations", "POST"),
    ):
        reply = served.ask(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert served.ask("GET", "/v2/repository/index").status == 405


@pytest.mark.parametrize(
    "path", ["/nothing", "/v2/models", "/v2/models/tiny/unload", "/v2/models/tiny/versions", "/v2/models/tiny/versions/2/infer"]
)
def test_what_is_not_here_is_404(served: World, path: str) -> None:
    assert served.ask("POST", path, b"{}").status == 404


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET  /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2 HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n folded: x\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: \0\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 17_000 + b"\r\n\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 70 + b"\r\n", 431),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ],
)
def test_a_request_that_two_readers_could_read_differently_ends_the_connection(served: World, request_: bytes, status: int) -> None:
    answer = served.raw(request_ + GET)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"Content-Length:") == 1
    assert "error" in json.loads(answer.partition(b"\r\n\r\n")[2])
    assert served.ask("GET", "/v2").status == 200


def test_the_address_may_be_written_out_as_for_a_proxy(served: World) -> None:
    assert served.raw(LAST.replace(b"/v2", b"http://localhost/v2", 1)).startswith(b"HTTP/1.1 200")


def test_a_client_that_dawdles_is_told_and_let_go(forest: Path) -> None:
    with world(forest, receive_s=0.2, idle_s=0.3) as one:
        assert one.raw(GET[:20]).startswith(b"HTTP/1.1 408 ")
        assert one.raw(post(ROW)[:-5]).startswith(b"HTTP/1.1 408 ")
        assert one.raw(GET).count(b"HTTP/1.1 200") == 1  # and closed when nothing more came
        assert dict(one.door.counts().rejected) == {"malformed": 1}
        assert one.balanced()


def test_a_client_that_takes_its_answer_bit_by_bit_is_let_go_when_the_time_is_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=60))
        ours = stack.enter_context(listener.accept()[0])
        over = threading.Event()

        def sip() -> None:
            while not over.wait(0.02):
                client.recv(65_536)

        reader = threading.Thread(target=sip)
        reader.start()
        start = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                KernelTimedSocket(ours, 0.3).send(b"x" * (64 << 20), 0.3)
        finally:
            over.set()
            reader.join()
        assert time.monotonic() - start < 10.0  # at this pace all of it takes 20 seconds


def test_a_client_that_leaves_in_the_middle_costs_nothing(served: World) -> None:
    assert served.raw(post(ROW)[:-5], then_close=True) == b""
    assert served.raw(GET[:20], then_close=True) == b""
    assert served.ask("GET", "/v2").status == 200


def test_when_all_connections_are_busy_a_newcomer_is_shed_with_retry_after_and_counted(forest: Path) -> None:
    with world(forest, connections=2) as one, ExitStack() as stack:
        busy = [stack.enter_context(socket.create_connection(("127.0.0.1", one.port), timeout=60)) for _ in range(2)]
        for sock in busy:
            sock.sendall(post(ROW)[:-5])  # in the middle of a request
        answer = eventually("a newcomer is shed", lambda: (a := one.raw(LAST)).startswith(b"HTTP/1.1 503 ") and a)

        assert b"Retry-After: 1\r\n" in answer
        assert b"all 2 connections are taken" in answer
        for sock in busy:
            sock.sendall(post(ROW)[-5:])
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        counts = one.door.counts()
        assert (counts.scored, counts.shed >= 1, one.balanced()) == (2, True, True)


def test_a_newcomer_without_a_thread_is_shed_and_takes_no_place(forest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "http-connection":
            raise RuntimeError("can't start new thread")
        start(thread)

    with world(forest, connections=2) as one:
        monkeypatch.setattr(threading.Thread, "start", refused)
        for _ in range(3):
            assert b"the system gives no more threads; try again" in one.raw(PAGE)  # the page is nothing for the loop
        monkeypatch.undo()

        assert one.raw(LAST).startswith(b"HTTP/1.1 200")
        assert (one.door.counts().shed, one.balanced()) == (3, True)


def test_the_connection_that_is_idle_for_longest_makes_room_for_a_newcomer(forest: Path) -> None:
    with world(forest, connections=2) as one, ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", one.port), timeout=60)) for _ in range(2)]
        for sock in idle:
            sock.sendall(GET)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200")

        eventually("room is made after a second", lambda: one.raw(LAST).startswith(b"HTTP/1.1 200"))

        assert idle[0].recv(10) == b""  # closed
        idle[1].sendall(LAST)
        assert idle[1].recv(65_536).startswith(b"HTTP/1.1 200")


def test_bodies_of_all_requests_together_are_bounded(forest: Path) -> None:
    body = ROW + b" " * 80_000
    with world(forest, bodies_bytes=100_000) as one, socket.create_connection(("127.0.0.1", one.port), timeout=60) as first:
        first.sendall(post(body)[:-5])
        answer = eventually(
            "the second body finds no room", lambda: (a := one.raw(post(body, "Connection: close"))).startswith(b"HTTP/1.1 503 ") and a
        )
        first.sendall(body[-5:])

        assert b"bodies of other requests fill the 100000 bytes" in answer
        assert first.recv(65_536).startswith(b"HTTP/1.1 200")
        assert one.raw(post(body, "Connection: close")).startswith(b"HTTP/1.1 200")  # its room was given back before its answer was sent
        assert one.balanced()


class SlowModels(Answering):
    """Takes a tenth of a second for a batch."""

    def score_batch(self, rows: Any, made_for: Scorer | None = None, key: Any = None) -> Any:
        threading.Event().wait(0.1)
        return super().score_batch(rows, made_for)


class HeldModels(Answering):
    """Says that it was asked, and answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def score_batch(self, rows: Any, made_for: Scorer | None = None, key: Any = None) -> Any:
        self.asked.set()
        assert self.may_answer.wait(60.0)
        return super().score_batch(rows, made_for)


def test_a_request_that_takes_too_long_is_ended_and_its_rest_is_shed(forest: Path) -> None:
    from device_agent.doors.http.application import Application
    from device_agent.doors.http.exchange import Request
    from device_agent.doors.http.settings import Limits

    models = SlowModels()
    models.install(Scorer.open(forest))
    application = Application(models, Limits(work_s=0.05))
    n = 3 * CHUNK_ROWS
    body = json.dumps({"inputs": [matrix(rows(n))]}).encode()

    response = application(Request("POST", "/v2/models/tiny/infer", {"host": "localhost"}, body))

    counts = application.counters.now()
    assert (response.status, dict(response.headers)) == (503, {"Retry-After": "1"})
    assert f"{CHUNK_ROWS} of {n} rows took the 0.05 s".encode() in response.body
    assert (counts.offered, counts.scored, counts.shed) == (n, CHUNK_ROWS, n - CHUNK_ROWS)
    models.close()


def test_closing_lets_the_request_that_is_being_answered_end(forest: Path) -> None:
    models = HeldModels()
    models.install(Scorer.open(forest))
    door = HttpDoor(models, HttpSettings(port=0))
    door.start()
    body = json.dumps({"inputs": [matrix(rows(2))]}).encode()
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=60) as sock:
        sock.sendall(GET)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        sock.sendall(post(body))
        assert models.asked.wait(60.0)
        closing = threading.Thread(target=door.close)
        closing.start()
        eventually("every connection is told to finish", lambda: door._server._waker.fileno() == -1)
        models.may_answer.set()
        answer = read_all(sock)
        closing.join()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
    models.close()


def test_a_taken_port_is_said_with_the_remedy(served: World) -> None:
    with pytest.raises(ConfigError, match=f"port {served.port}.*choose another port"):
        HttpDoor(served.models, HttpSettings(port=served.port))
