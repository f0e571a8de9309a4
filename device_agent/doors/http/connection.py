"""One connection: requests in turn, each read within its limits, answered with one write.

It lives in the door's loop (`quick_turn`, which never waits) while its requests are small and quick, in a thread (`serve`) for all else.
"""

import contextlib
import socket
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

from device_agent.doors.http.application import Application
from device_agent.doors.http.counters import SHED
from device_agent.doors.http.exchange import RETRY, Refused, Request
from device_agent.doors.http.quickness import SMALL_BODY, Quickness, scores
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.timed import KernelTimedSocket, TimedSocket, TlsTimedSocket
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


class Place(Enum):
    """Where a connection goes after its turn."""

    LOOP = auto()
    THREAD = auto()
    END = auto()


class Connection:
    """One client.

    Args:
        sock: Owned from now on.
        application: Who answers.
        limits: Bounds.
        budget: Of all connections.
        tls: A server's context, or None for plain HTTP.
        quickness: Of the door.

    Attributes:
        sock: What the loop waits for.
        idle_since: Monotonic time since when it waits for a request, None while it has one.

    Raises:
        OSError: The client is gone already.
    """

    def __init__(
        self,
        sock: socket.socket,
        application: Application,
        limits: Limits,
        budget: Budget,
        tls: "ssl.SSLContext | None",
        quickness: Quickness,
    ) -> None:
        self._application, self._limits, self._budget, self._quickness = application, limits, budget, quickness
        self._rest, self._unsent = b"", b""
        self._last = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._tls: TlsTimedSocket | None = None
        if tls is None:
            self._timed: TimedSocket = KernelTimedSocket(sock, limits.receive_s)
        else:  # wrapped before its handshake, so that `abort` reaches a client that dawdles with it
            sock.getpeername()  # of a client that has gone `wrap_socket` would leave an open socket behind
            self.sock = wrapped = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._timed = self._tls = TlsTimedSocket(wrapped)
        self.idle_since: float | None = time.monotonic()

    def quick_turn(self) -> Place:
        """Something came: answer it if it is one whole, quick request; what is anything else is kept for a thread. Never waits.

        Raises:
            OSError: The client is gone.
        """
        try:
            received = self.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return Place.LOOP
        if not received:
            return Place.END
        self.idle_since, self._rest = None, received
        end = received.find(b"\r\n\r\n", 0, self._limits.head_bytes)
        if end < 0:
            return Place.THREAD
        try:
            head = parse_head(received[:end])
        except Refused:
            return Place.THREAD  # where it is found once more, and answered
        if len(received) != end + 4 + head.length or head.length > self._limits.body_bytes or not self._quickness.expects(head):
            return Place.THREAD
        self._rest = b""
        content, close = self._answer(head, received[end + 4 :])
        try:
            sent = self.sock.send(content, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(content):
            self._unsent, self._last = content[sent:], close
            return Place.THREAD
        self.idle_since = time.monotonic()
        return Place.END if close else Place.LOOP

    def serve(self) -> Place:
        """Answer until the client has enough, dawdles, or sends what ends a connection; or until the loop can go on with it."""
        try:
            if self._tls is not None:  # whose connections stay in their threads
                self._tls.handshake(self._limits.receive_s)
            if self._unsent:
                self._send(self._unsent)
                self._unsent = b""
            while not self._last:
                place = self._turn()
                if place is not Place.THREAD:
                    return place
        except (TimeoutError, OSError):  # ssl.SSLError among them: the client is gone, or never spoke TLS
            pass
        return Place.END

    def finish(self) -> None:
        """Let the request that is being answered be the last; an idle client is let go."""
        self._last = True
        if self.idle_since is not None:
            self.abort()

    def abort(self) -> None:
        """End it now, from any thread."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # a TLS socket's own would let its thread go on in plain text for a moment

    def close(self) -> None:
        """Let go of the socket."""
        with contextlib.suppress(OSError):
            self.sock.close()

    def _turn(self) -> Place:
        """One request, and where the next one is waited for."""
        try:
            raw = self._read_head()
            if raw is None:
                return Place.END
            head = parse_head(raw)
        except Refused as refusal:
            self._refuse(refusal, scoring=False)
            return Place.END
        # Large bodies take of what there is for all: not for somebody who may not ask.
        if head.length > SMALL_BYTES and (stranger := self._application.refusal(head.headers)) is not None:
            self._refuse(stranger, scoring=False)
            return Place.END
        try:
            self._check_length(head)
        except Refused as refusal:
            self._refuse(refusal, scoring=scores(head))
            return Place.END
        try:
            body = self._read_body(head)
            answer = None if body is None else self._answer(head, body)
        finally:
            if head.length > SMALL_BYTES:
                self._budget.give_back(head.length)
        if answer is None:
            self._refuse(Refused(408, f"the body did not arrive within {self._limits.receive_s:g} s", "malformed"), scores(head))
            return Place.END
        content, close = answer
        self._send(content)
        if close:
            return Place.END
        in_loop = self._tls is None and not self._rest and self._quickness.expects(head)
        return Place.LOOP if in_loop else Place.THREAD

    def _answer(self, head: Head, body: bytes) -> tuple[bytes, bool]:
        """The answer as it is sent, and whether it is the last one."""
        start = time.perf_counter()
        response = self._application(Request(head.method, head.path, head.headers, body))
        if head.length <= SMALL_BODY and scores(head):
            self._quickness.note(time.perf_counter() - start)
        close = self._last or not head.keep_alive  # the door may have been closed meanwhile
        return format_response(response, close, head.method == "HEAD"), close

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
            self.sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + min(DRAIN_S, self._limits.receive_s)
            while self._receive(1 << 20, deadline):
                pass
