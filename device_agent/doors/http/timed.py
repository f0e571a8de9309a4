"""Sockets that give up in time: by Python's clock, or by the kernel's, which takes a third of the calls.

With a timeout of Python's own each read and each write asks the kernel twice (is it ready, then do it), and each change of the timeout once
more; every call lets other threads have the interpreter. The kernel's are set once, and change only where a request comes in pieces.
"""

import socket
import struct
from typing import Final

_LEAST_US: Final = 1_000  # zero would be "for ever"
_MICROSECONDS: Final = 1_000_000


class TimedSocket:
    """A socket, TLS or not, with Python's timeouts.

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
            TimeoutError: The other side does not take it.
        """
        self._sock.settimeout(timeout_s)
        self._sock.sendall(content)


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

    def send(self, content: bytes, timeout_s: float) -> None:
        """As `TimedSocket.send`; the time is the one that was given at first."""
        try:
            self._sock.sendall(content)
        except BlockingIOError as err:
            raise TimeoutError(f"the other side takes nothing for {timeout_s:g} s") from err


def _timeval(seconds: float) -> bytes:
    whole, rest = divmod(max(round(seconds * _MICROSECONDS), _LEAST_US), _MICROSECONDS)
    return struct.pack("@ll", whole, rest)
