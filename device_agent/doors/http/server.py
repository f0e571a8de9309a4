"""The door's sockets: one loop for small quick requests, a thread for each connection that asks for more; keep-alive, one write an answer.

A connection waits in the loop. What comes whole and will be quick (`quickness.py`) is answered there; everything else, a request in
pieces, a large body, an explanation, a slow model, TLS, is handed to a thread, which gives the connection back after a small request.

Overload: when as many connections as the limits say are taken, the one idle for longest (a second at least) is closed for the newcomer;
is none idle, the newcomer is answered 503 with Retry-After and counted as shed. Times, heads, bodies and the bodies of all requests
together are bounded.
TLS handshakes run in the connection's own thread, so that a client that dawdles holds up nobody else.
"""

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from device_agent.doors.http.application import Application
from device_agent.doors.http.connection import Connection, Place
from device_agent.doors.http.counters import SHED
from device_agent.doors.http.exchange import RETRY, Refused
from device_agent.doors.http.lingering import Lingering
from device_agent.doors.http.quickness import Quickness
from device_agent.doors.http.settings import Limits
from device_agent.doors.http.wire import format_response
from edgefleet.errors import ConfigError

if TYPE_CHECKING:
    import ssl

LOG = logging.getLogger(__name__)

BACKLOG: Final = 128
LEAST_IDLE_S: Final = 1.0
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
        self._budget, self._quickness = ByteBudget(limits.bodies_bytes), Quickness()
        self._lock = threading.Lock()
        # All connections; those in the loop have no thread.
        self._connections: dict[Connection, threading.Thread | None] = {}
        self._given_back: deque[Connection] = deque()
        self._selector = selectors.DefaultSelector()
        self._deaf = False
        self._lingering = Lingering(self._selector)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._take_back)
        self._stop = threading.Event()
        self._loop = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns at once."""
        self._loop.start()

    @property
    def alive(self) -> bool:
        """Whether newcomers are still taken."""
        return self._loop.is_alive()

    def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Take nobody any more, let requests that are being answered end, close the rest."""
        self._stop.set()
        deadline = time.monotonic() + grace_s
        for connection in self._waiting():
            connection.finish()
        self._waker.close()  # which wakes the loop
        if self._loop.is_alive():
            self._loop.join(grace_s)
        self._listener.close()
        waiting = self._waiting()
        for connection in waiting:
            connection.finish()  # newcomers among them
        for connection, thread in waiting.items():
            if thread is None:
                connection.close()
            else:
                thread.join(max(deadline - time.monotonic(), 0.0))
                connection.abort()
        for connection in self._given_back:
            connection.close()
        self._lingering.close()
        self._woken.close()
        self._selector.close()

    def _waiting(self) -> dict[Connection, threading.Thread | None]:
        with self._lock:
            return dict(self._connections)

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._stop.is_set():
            try:
                for key, _ in self._selector.select(LOOK_S):
                    if type(key.data) is Connection:
                        self._turn(key.data)
                    else:
                        key.data()
                if (now := time.monotonic()) - looked >= LOOK_S:
                    looked = now
                    self._look(now)
            except Exception:
                LOG.exception("http: going on after an error")
                self._stop.wait(LOOK_S)

    def _turn(self, connection: Connection) -> None:
        """Something came on a connection that waits in the loop."""
        if connection.sock.fileno() < 0:
            return  # closed a moment ago, to make room
        try:
            place = connection.quick_turn()
        except OSError:
            place = Place.END
        except Exception:
            LOG.exception("http: a connection ended by an error")
            place = Place.END
        if place is Place.THREAD:
            self._selector.unregister(connection.sock)
            self._hand_over(connection)
        elif place is Place.END:
            self._end_in_loop(connection)

    def _look(self, now: float) -> None:
        """Let go of whoever has been silent for too long, and listen again."""
        if self._deaf:
            self._deaf = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._lingering.look(now)
        with self._lock:
            idle = [(c, c.idle_since) for c, thread in self._connections.items() if thread is None]
        for connection, since in idle:
            if since is not None and now - since > self._limits.idle_s:
                self._end_in_loop(connection)

    def _accept(self) -> None:
        try:
            sock = self._listener.accept()[0]
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            LOG.exception("http: no newcomers for %g s", LOOK_S)  # for example no file descriptors left
            self._selector.unregister(self._listener)
            self._deaf = True
            return
        self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        if not self._make_room():
            self._shed(sock, f"all {self._limits.connections} connections are taken")
            return
        try:
            connection = Connection(sock, self._application, self._limits, self._budget, self._tls, self._quickness)
        except OSError:
            sock.close()
            return
        with self._lock:
            self._connections[connection] = None
        if self._tls is None:
            self._selector.register(sock, selectors.EVENT_READ, connection)
        else:
            self._hand_over(connection)

    def _hand_over(self, connection: Connection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="http-connection", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads; a place that is never left would be lost for good
            with self._lock:
                self._connections.pop(connection, None)
            self._shed(connection.sock, "the system gives no more threads")

    def _take_back(self) -> None:
        """Connections whose threads are done with them wait in the loop again."""
        self._woken.recv(4_096)
        while self._given_back:
            connection = self._given_back.popleft()
            with self._lock:
                kept = connection in self._connections
                if kept:
                    self._connections[connection] = None
            if kept:
                self._selector.register(connection.sock, selectors.EVENT_READ, connection)
            else:
                connection.close()  # it made room meanwhile

    def _make_room(self) -> bool:
        with self._lock:
            if len(self._connections) < self._limits.connections:
                return True
            idle = [(c.idle_since, c) for c in self._connections if c.idle_since is not None]
            since, longest = min(idle, key=lambda pair: pair[0] or 0.0, default=(None, None))
            if since is None or longest is None or time.monotonic() - since < LEAST_IDLE_S:
                return False
            thread = self._connections.pop(longest)
        if thread is None:
            self._end_in_loop(longest)
        else:
            longest.abort()
        return True

    def _end_in_loop(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.close()

    def _serve(self, connection: Connection) -> None:
        place = Place.END
        try:
            place = connection.serve()
        except Exception:
            LOG.exception("http: a connection ended by an error")
        if place is Place.LOOP and not self._stop.is_set():
            connection.idle_since = time.monotonic()
            self._given_back.append(connection)
            with contextlib.suppress(OSError):  # full: it is awake anyway
                self._waker.send(b"x")
            return
        with self._lock:
            self._connections.pop(connection, None)
        connection.close()

    def _shed(self, sock: socket.socket, why: str) -> None:
        response = self._application.refuse_unread(Refused(503, f"{why}; try again", SHED, RETRY), scoring=True)
        if self._tls is not None:
            sock.close()  # an answer in plain text would be no TLS
        else:
            self._lingering.answer(sock, format_response(response, close=True))
