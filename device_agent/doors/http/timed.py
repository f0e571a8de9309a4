"""Sockets that give up in time: by Python's clock, or by the kernel's, which takes a third of the calls.

With a timeout of Python's own each read and each write asks the kernel twice (is it ready, then do it), and each change of the timeout once
more; every call lets other threads have the interpreter. The kernel's are set once, and change only where a request comes in pieces.
"""

import socket
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

_LEAST_US: Final = 1_000  # zero would be "for ever"
_MICROSECONDS: Final = 1_000_000


class TimedSocket:
    """A socket with Python's timeouts.

    Args:
        sock: Owned by the caller.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def receive(self, count: int, timeout_s: float) -> bytes:
        """What came, at most `count` bytes; empty at the end of the stream.

        Raises:
            TimeoutError: Nothing came in time.
        """
        self._sock.settimeout(timeout_s)
        return self._sock.recv(count)

    def send(self, content: bytes, timeout_s: float) -> None:
        """Send everything.

        Raises:
            TimeoutError: The other side has not taken all of it in time, even if it takes a little now and then.
        """
        rest, deadline = memoryview(content), time.monotonic() + timeout_s
        while rest:
            if (left_s := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"the other side took {len(content) - len(rest)} of {len(content)} bytes in {timeout_s:g} s")
            rest = rest[self._send_piece(rest, left_s) :]

    def _send_piece(self, content: memoryview, timeout_s: float) -> int:
        self._sock.settimeout(timeout_s)
        return self._sock.send(content)


class TlsTimedSocket(TimedSocket):
    """A TLS socket that is made without its handshake.

    Args:
        sock: Owned by the caller.
    """

    def __init__(self, sock: "ssl.SSLSocket") -> None:
        super().__init__(sock)
        self._tls = sock

    def handshake(self, timeout_s: float) -> None:
        """Agree on keys.

        Raises:
            OSError: The other side speaks no TLS, is gone, or takes longer.
        """
        self._tls.settimeout(timeout_s)
        self._tls.do_handshake()


class KernelTimedSocket(TimedSocket):
    """A plain socket with the kernel's timeouts.

    Args:
        sock: Owned by the caller.
        send_s: Time for each piece that is sent.
    """

    def __init__(self, sock: socket.socket, send_s: float) -> None:
        super().__init__(sock)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(send_s))
        self._receive_s = -1.0

    def receive(self, count: int, timeout_s: float) -> bytes:
        """As `TimedSocket.receive`."""
        if timeout_s != self._receive_s:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout_s))
            self._receive_s = timeout_s
        try:
            return self._sock.recv(count)
        except BlockingIOError as err:
            raise TimeoutError(f"nothing came within {timeout_s:g} s") from err

    def _send_piece(self, content: memoryview, timeout_s: float) -> int:
        # The kernel's time is the one that was given at first: a piece that ends early has used all of it.
        try:
            return self._sock.send(content)
        except BlockingIOError as err:
            raise TimeoutError(f"the other side takes nothing for {timeout_s:g} s") from err


def _timeval(seconds: float) -> bytes:
    whole, rest = divmod(max(round(seconds * _MICROSECONDS), _LEAST_US), _MICROSECONDS)
    return struct.pack("@ll", whole, rest)
