"""How the C library's allocator shares memory among threads: a matter of the whole process, so only commands call it, never a library."""

import ctypes
from typing import Final

_M_ARENA_MAX: Final = -8  # glibc's <malloc.h>


def use_one_arena() -> bool:
    """Let all threads allocate from one arena; those that exist already stay.

    glibc gives each new thread one of its own, up to eight for each core, and each keeps what a fold of statistics or a long request once
    took: 0.1 MB for every connection of a door. Python's threads allocate one at a time, so that they gain nothing from it.

    Returns:
        Whether there was something to set: other C libraries have no such arenas.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except AttributeError:
        return False
