"""What a forked child does with a scorer that it inherited: it opens the bundle again before the first row.

A runtime's session, and a lock that another thread held in that moment, are of no use in the child; counts are the parent's and would be
told twice. The scorer's lock is therefore replaced by one whose first holder loads the bundle anew. The parent notices nothing, and nobody
pays for it who does not fork.
"""

import os
import threading
import weakref
from types import TracebackType
from typing import Any, Protocol


class Reloads(Protocol):
    """What is mended: a lock, and a way to open everything again."""

    _lock: Any

    def _reload(self) -> None: ...


class ReopeningLock:
    """Stands where a scorer's lock was; whoever holds it first opens the bundle and puts a plain lock in its place.

    Entering raises what opening raises (`ArtifactError` when the bundle's files are gone), and is tried again the next time.
    """

    def __init__(self, owner: Reloads) -> None:
        self._owner, self._lock, self._stale = owner, threading.Lock(), True

    def __enter__(self) -> None:
        self._lock.acquire()
        if not self._stale:  # another thread of the child was first, and this one still waits here
            return
        try:
            self._owner._reload()
        except BaseException:
            self._lock.release()
            raise
        self._stale = False
        self._owner._lock = self._lock

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()


_owners: "weakref.WeakSet[Any]" = weakref.WeakSet()


def mend_after_fork(owner: Reloads) -> None:
    """See to it that `owner` opens its bundle again in a child that this process forks."""
    _owners.add(owner)


def _in_child() -> None:
    for owner in list(_owners):
        owner._lock = ReopeningLock(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
