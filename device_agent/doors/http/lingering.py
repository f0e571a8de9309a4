"""Refused newcomers, who may still be sending: closing at once would reset the connection before they read the answer."""

import contextlib
import selectors
import socket
import time
from typing import Final

LINGER_S: Final = 1.0
MAX_LINGERING: Final = 64


class Lingering:
    """Sockets that are read and thrown away until the other side ends, or for a second.

    Args:
        selector: Of the door's loop; used by its thread only.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._since: dict[socket.socket, float] = {}

    def answer(self, sock: socket.socket, content: bytes) -> None:
        """Send what fits and let the socket linger; with too many of them it is closed without an answer."""
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            if len(self._since) < MAX_LINGERING:
                sock.send(content)
                sock.shutdown(socket.SHUT_WR)
                self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(sock))
                self._since[sock] = time.monotonic()
                return
        sock.close()

    def look(self, now: float) -> None:
        """Let go of those whose time is over."""
        for sock in [sock for sock, since in self._since.items() if now - since > LINGER_S]:
            self._let_go(sock)

    def close(self) -> None:
        """Let go of all."""
        for sock in list(self._since):
            self._let_go(sock)

    def _read(self, sock: socket.socket) -> None:
        try:
            if sock.recv(65_536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._let_go(sock)

    def _let_go(self, sock: socket.socket) -> None:
        self._since.pop(sock, None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()
