"""Keeps the chatter of native libraries away from stdout, where results go.

Native code writes to file descriptors 1 and 2 behind Python's back, so the descriptors themselves are redirected into a file while a graph
loads. What was caught goes to stderr afterwards, except lines that only inform; nothing is lost, but what another thread prints to stdout
in these milliseconds comes out on stderr.
"""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Final

_LOCK: Final = threading.RLock()
_MAX_REPLAY_BYTES: Final = 8192
_ONLY_INFORMS: Final = (b"INFO:", b"I0000", b"W0000", b"WARNING: All log messages before")


@contextlib.contextmanager
def quiet_load() -> Iterator[None]:
    """Redirect descriptors 1 and 2 of the process while the block runs; one block at a time, nesting is allowed."""
    with _LOCK, tempfile.TemporaryFile() as caught:
        _flush()
        try:
            saved = os.dup(1), os.dup(2)
        except OSError:  # a daemon that closed its descriptors has nothing to keep clean
            yield
            return
        try:
            os.dup2(caught.fileno(), 1)
            os.dup2(caught.fileno(), 2)
            yield
        finally:
            _flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
            caught.seek(0)
            _replay(caught.read(_MAX_REPLAY_BYTES))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _replay(content: bytes) -> None:
    kept = [line for line in content.splitlines(keepends=True) if line.strip() and not line.startswith(_ONLY_INFORMS)]
    if kept:
        with contextlib.suppress(OSError):
            os.write(2, b"".join(kept))
