"""One connection: requests in turn, each read within its limits, answered with one write."""

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Final, Protocol

from device_agent.doors.http.application import Application
from device_agent.doors.http.counters import SHED
from device_agent.doors.http.exchange import RETRY, Refused, Request
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.timed import KernelTimedSocket, TimedSocket
from device_agent.doors.http.wire import CONTINUE, Head, format_response, parse_head

if TYPE_CHECKING:
    import ssl

READ_BYTES: Final = 65_536
# Bodies up to this size are not counted against the budget: all connections together could hold 2 MiB of them.
SMALL_BYTES: Final = 65_536
# After a refusal the client may still be sending; what it sends is read and thrown away, or it would never read the answer.
DRAIN_S: Final = 3.0


class Budget(Protocol):
    """Bytes that all connections may hold together."""

    size: int

    def take(self, count: int) -> bool:
        """Reserve; False when there is not enough left."""
        ...

    def give_back(self, count: int) -> None:
        """Return what was taken."""
        ...


class Connection:
    """One client.

    Attributes:
        idle_since: Monotonic time since when it waits for a request, None while it has one.
    """

    def __init__(self, sock: socket.socket, application: Application, limits: Limits, budget: Budget, tls: "ssl.SSLContext | None") -> None:
        self._sock, self._application, self._limits, self._budget, self._tls = sock, application, limits, budget, tls
        self._rest = b""
        self._last = False
        self._timed: TimedSocket = TimedSocket(sock)
        self.idle_since: float | None = None

    def serve(self) -> None:
        """Answer until the client has enough, dawdles, or sends what ends a connection."""
        try:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                self._timed = KernelTimedSocket(self._sock, self._limits.receive_s)
            else:
                self._sock.settimeout(self._limits.receive_s)
                self._sock = self._tls.wrap_socket(self._sock, server_side=True)
                self._timed = TimedSocket(self._sock)
            while not self._last and self._turn():
                pass
        except (TimeoutError, OSError):  # ssl.SSLError among them: the client is gone, or never spoke TLS
            return

    def finish(self) -> None:
        """Let the request that is being answered be the last; an idle client is let go."""
        self._last = True
        if self.idle_since is not None:
            self.abort()

    def abort(self) -> None:
        """End it now, from any thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _turn(self) -> bool:
        """One request; False when it was the last."""
        try:
            raw = self._read_head()
            if raw is None:
                return False
            head = parse_head(raw)
        except Refused as refusal:
            self._refuse(refusal, scoring=False)
            return False
        try:
            self._check_length(head)
        except Refused as refusal:
            self._refuse(refusal, scoring=_scores(head))
            return False
        try:
            body = self._read_body(head)
            response = None if body is None else self._application(Request(head.method, head.path, head.headers, body))
        finally:
            if head.length > SMALL_BYTES:
                self._budget.give_back(head.length)
        if response is None:
            self._refuse(Refused(408, f"the body did not arrive within {self._limits.receive_s:g} s", "malformed"), _scores(head))
            return False
        close = self._last or not head.keep_alive  # the door may have been closed meanwhile
        self._send(format_response(response, close, head.method == "HEAD"))
        return not close

    def _read_head(self) -> bytes | None:
        """The bytes before the empty line; None when the client left."""
        received, limit = self._rest.lstrip(b"\r\n"), self._limits.head_bytes
        if not received:
            self.idle_since = time.monotonic()
            if self._last:
                return None
            received = self._timed.receive(READ_BYTES, self._limits.idle_s).lstrip(b"\r\n")
            self.idle_since = None
            if not received:
                return None
        deadline = time.monotonic() + self._limits.receive_s
        while (end := received.find(b"\r\n\r\n", 0, limit)) < 0:
            if len(received) >= limit:
                raise Refused(431, f"the request's head exceeds the limit of {limit} bytes", "malformed")
            more = self._receive(READ_BYTES, deadline)
            if more is None:
                raise Refused(408, f"the request's head did not arrive within {self._limits.receive_s:g} s", "malformed")
            if not more:
                return None
            received += more
        self._rest = received[end + 4 :]
        return received[:end]

    def _check_length(self, head: Head) -> None:
        if head.length > self._limits.body_bytes:
            text = (
                f"a body of {head.length} bytes exceeds the limit of {self._limits.body_bytes}; send fewer rows at once, or binary tensors"
            )
            raise Refused(413, text, "body-size")
        if head.length > SMALL_BYTES and not self._budget.take(head.length):
            raise Refused(503, f"bodies of other requests fill the {self._budget.size} bytes there are; try again", SHED, RETRY)

    def _read_body(self, head: Head) -> bytes | None:
        """The body; None when it did not come in time."""
        length = head.length
        if length <= len(self._rest):
            body, self._rest = self._rest[:length], self._rest[length:]
            return body
        if head.expects_continue and not self._rest:
            self._send(CONTINUE)
        body_parts, missing = bytearray(self._rest), length - len(self._rest)
        deadline = time.monotonic() + self._limits.receive_s
        while missing:
            more = self._receive(min(missing, 1 << 20), deadline)
            if more is None:
                return None
            if not more:
                raise ConnectionError("the client left in the middle of a body")
            body_parts += more
            missing -= len(more)
        self._rest = b""
        return bytes(body_parts)

    def _receive(self, count: int, deadline: float) -> bytes | None:
        """What came; empty at the end of the stream, None when the time is up."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        try:
            return self._timed.receive(count, left_s)
        except TimeoutError:
            return None

    def _send(self, content: bytes) -> None:
        self._timed.send(content, self._limits.receive_s)

    def _refuse(self, refusal: Refused, scoring: bool) -> None:
        self._send(format_response(self._application.refuse_unread(refusal, scoring), close=True))
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + min(DRAIN_S, self._limits.receive_s)
            while self._receive(1 << 20, deadline):
                pass


def _scores(head: Head) -> bool:
    return head.method == "POST" and (head.path == "/invocations" or head.path.endswith("/infer"))
