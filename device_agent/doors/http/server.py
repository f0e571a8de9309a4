"""The door's sockets: one thread a connection, at most as many as the limits say, keep-alive, one write an answer.

Overload: when all connections are taken, the one idle for longest (a second at least) is closed for the newcomer; is none idle, the
newcomer is answered 503 with Retry-After and counted as shed. Times, heads, bodies and the bodies of all requests together are bounded.
TLS handshakes run in the connection's own thread, so that a client that dawdles holds up nobody else.
"""

import contextlib
import logging
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from device_agent.doors.http.application import Application
from device_agent.doors.http.connection import Connection
from device_agent.doors.http.counters import SHED
from device_agent.doors.http.exchange import RETRY, Refused
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.wire import format_response
from edgefleet.errors import ConfigError

if TYPE_CHECKING:
    import ssl

LOG = logging.getLogger(__name__)

BACKLOG: Final = 128
LEAST_IDLE_S: Final = 1.0
# A refused newcomer may still be sending: closing at once would reset the connection before it reads the answer.
LINGER_S: Final = 1.0
MAX_LINGERING: Final = 64
CLOSE_GRACE_S: Final = 5.0
LOOK_S: Final = 0.5


class ByteBudget:
    """Bytes that may be held at once; safe for threads."""

    def __init__(self, size: int) -> None:
        self.size, self._left, self._lock = size, size, threading.Lock()

    def take(self, count: int) -> bool:
        """Reserve; False when there is not enough left."""
        with self._lock:
            if count > self._left:
                return False
            self._left -= count
            return True

    def give_back(self, count: int) -> None:
        """Return what was taken."""
        with self._lock:
            self._left += count


class HttpServer:
    """Listens from the moment it is made; answers once started.

    Args:
        application: Who answers.
        host: Address to bind.
        port: TCP port, 0 for a free one.
        limits: Bounds.
        tls: A server's context, or None for plain HTTP.

    Attributes:
        port: Where it listens.

    Raises:
        ConfigError: The address cannot be bound.
    """

    def __init__(self, application: Application, host: str, port: int, limits: Limits, tls: "ssl.SSLContext | None" = None) -> None:
        self._application, self._limits, self._tls = application, limits, tls
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as err:
            raise ConfigError(f"HTTP cannot listen on {host} port {port}: {err.strerror or err}; choose another port") from err
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._budget = ByteBudget(limits.bodies_bytes)
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, self._waker = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._lingering: dict[socket.socket, float] = {}
        self._stop = threading.Event()
        self._acceptor = threading.Thread(target=self._accept_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._acceptor.start()

    @property
    def alive(self) -> bool:
        """Whether newcomers are still taken."""
        return self._acceptor.is_alive()

    def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Take nobody any more, let requests that are being answered end, close the rest."""
        self._stop.set()
        self._waker.close()  # which wakes the acceptor
        if self._acceptor.is_alive():
            self._acceptor.join(grace_s)
        self._listener.close()
        deadline = time.monotonic() + grace_s
        with self._lock:
            waiting = dict(self._connections)
        for connection in waiting:
            connection.finish()
        for connection, thread in waiting.items():
            thread.join(max(deadline - time.monotonic(), 0.0))
            connection.abort()
        for sock in list(self._lingering):
            self._let_go(sock)
        self._woken.close()
        self._selector.close()

    def _accept_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self._accept_once()
            except Exception:
                LOG.exception("http: going on after an error")
                self._stop.wait(LOOK_S)  # for example no file descriptors left

    def _accept_once(self) -> None:
        for key, _ in self._selector.select(LOOK_S):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)  # noqa: S101  # nothing else is registered
            if sock is self._listener:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    self._take(self._listener.accept()[0])
            elif sock is not self._woken and not _drained(sock):
                self._let_go(sock)
        now = time.monotonic()
        for sock in [sock for sock, since in self._lingering.items() if now - since > LINGER_S]:
            self._let_go(sock)

    def _take(self, sock: socket.socket) -> None:
        if not self._make_room():
            self._shed(sock, f"all {self._limits.connections} connections are taken")
            return
        connection = Connection(sock, self._application, self._limits, self._budget, self._tls)
        thread = threading.Thread(target=self._serve, args=(connection,), name="http-connection", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads; a place that is never left would be lost for good
            with self._lock:
                self._connections.pop(connection, None)
            self._shed(sock, "the system gives no more threads")

    def _make_room(self) -> bool:
        with self._lock:
            if len(self._connections) < self._limits.connections:
                return True
            idle = [(c.idle_since, c) for c in self._connections if c.idle_since is not None]
            since, longest = min(idle, key=lambda pair: pair[0] or 0.0, default=(None, None))
            if since is None or longest is None or time.monotonic() - since < LEAST_IDLE_S:
                return False
            del self._connections[longest]
        longest.abort()
        return True

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        except Exception:
            LOG.exception("http: a connection ended by an error")
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)

    def _shed(self, sock: socket.socket, why: str) -> None:
        response = self._application.refuse_unread(Refused(503, f"{why}; try again", SHED, RETRY), scoring=True)
        if self._tls is not None or len(self._lingering) >= MAX_LINGERING:
            sock.close()  # an answer in plain text would be no TLS
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.send(format_response(response, close=True))
            sock.shutdown(socket.SHUT_WR)
            self._lingering[sock] = time.monotonic()
            self._selector.register(sock, selectors.EVENT_READ)
            return
        sock.close()

    def _let_go(self, sock: socket.socket) -> None:
        self._lingering.pop(sock, None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()


def _drained(sock: socket.socket) -> bool:
    """Throw away what came; False at the end."""
    try:
        return bool(sock.recv(65_536))
    except BlockingIOError:
        return True
    except OSError:
        return False
