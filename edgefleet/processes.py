"""Child processes that do not outlive their parent, whatever ends it."""

import ctypes
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# Loaded here, not in the child: between fork and exec nothing may import or wait for a lock.
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies; meant as `preexec_fn`. Elsewhere than on Linux: nothing.

    Linux means the parent's *thread* by it: start such a child from a thread that lives as long as the child should.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
