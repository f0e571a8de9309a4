"""Live updates: one follower per process reads the database's changes, any number of viewers copy its bytes.

Event ids are the database's sequence numbers, so a reconnecting browser loses nothing when the process restarts: an id that cannot be
honoured (too old, or above ours after a restore) is answered with `reload`. A viewer costs one server thread, so their number is limited,
and a browser has one stream: its next one ends the one before, which a server else notices only when a write fails, many seconds later.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

_LOG = logging.getLogger(__name__)
RETRY_MS: Final = 2000
MAX_PORTIONS: Final = 25
STILL_HERE: Final = b": still here\n\n"


class TooManyViewersError(Exception):
    """The viewer limit of this process is reached; the browser falls back to asking every few seconds."""


class Feed:
    """The last changes as ready-made frames.

    Memory: at most `keep` frames of about 100 bytes. The follower starts with the first viewer, never at import or before a fork.

    Args:
        changes_after: (seq, topic) of every change after a sequence number, in order.
        newest: Sequence number of the newest change, 0 for none.
        max_viewers: Streams served at once by this process.
        period_s: Pause between two looks at the database; changes in between are one frame.
        beat_s: Seconds between comment lines on a quiet stream, so that a viewer who left is noticed.
    """

    def __init__(
        self,
        changes_after: Callable[[int], Sequence[tuple[int, str]]],
        newest: Callable[[], int],
        *,
        max_viewers: int = 50,
        keep: int = 512,
        period_s: float = 0.25,
        beat_s: float = 10.0,
    ) -> None:
        self._changes_after, self._read_newest = changes_after, newest
        self.max_viewers, self._period_s, self.beat_s = max_viewers, period_s, beat_s
        self._ready = threading.Condition()
        self._frames: deque[tuple[int, bytes]] = deque(maxlen=keep)
        self._floor = self._newest = 0
        self._viewers: set[Viewer] = set()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def viewers(self) -> int:
        """Streams open now."""
        return len(self._viewers)

    @property
    def closed(self) -> bool:
        """Whether the feed ended; its viewers end with it."""
        return self._stopped.is_set()

    def position(self) -> int:
        """Sequence number that a page made now is at least as new as."""
        return self._read_newest()

    def connect(self, last_event_id: str | None, browser: str = "", may_look: Callable[[], bool] = lambda: True) -> "Viewer":
        """Begin a stream after the id that the browser saw last.

        Args:
            last_event_id: The header, None at the first connection.
            browser: What the browser calls itself; an older stream of the same name ends. Empty: nobody's.
            may_look: Asked before anything is handed out; the stream ends with the first no.

        Raises:
            TooManyViewersError: The limit is reached.
        """
        with self._ready:
            self._viewers -= {viewer for viewer in self._viewers if browser and viewer.browser == browser}
            self._ready.notify_all()
            if len(self._viewers) >= self.max_viewers:
                raise TooManyViewersError(f"{len(self._viewers)} live viewers are open, the limit is {self.max_viewers}; try again in 10 s")
            if self._thread is None:
                self._floor = self._newest = self._read_newest()
                self._thread = threading.Thread(target=self._follow, name="page-follower", daemon=True)
                self._thread.start()
            viewer = Viewer(self, browser, may_look, *self._greeting(last_event_id))
            self._viewers.add(viewer)
        return viewer

    def close(self) -> None:
        """End the follower and every stream; waits for the follower."""
        self._stopped.set()
        with self._ready:
            self._ready.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def wait(self, viewer: "Viewer", position: int) -> tuple[bytes, int]:
        """Block until there is something after `position`, or for one beat; bytes and the position after them, no bytes when it is over."""
        with self._ready:
            self._ready.wait_for(lambda: self._newest > position or self._over(viewer), timeout=self.beat_s)
            if self._over(viewer):
                return b"", position
            news = b"".join(frame for seq, frame in self._frames if seq > position)
            return news or STILL_HERE, max(position, self._newest)

    def leave(self, viewer: "Viewer") -> None:
        """Give the viewer's slot back; safe to call twice."""
        with self._ready:
            self._viewers.discard(viewer)

    def _over(self, viewer: "Viewer") -> bool:
        return self.closed or viewer not in self._viewers

    def _greeting(self, last_event_id: str | None) -> tuple[bytes, int]:
        retry = f"retry: {RETRY_MS}\n".encode()
        if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20:
            after = int(last_event_id)
            if self._floor <= after <= self._newest:
                return retry + b"\n", after
        elif not last_event_id:
            return retry + _frame(self._newest, "change", []), self._newest
        return retry + _frame(self._newest, "reload", []), self._newest

    def _follow(self) -> None:
        while not self._stopped.wait(self._period_s):
            try:
                changes = self._read()
            except Exception:  # a follower that died of one database error would silence every open page
                _LOG.exception("live updates: the changes could not be read, trying again")
                continue
            if changes:
                self._append(changes)

    def _read(self) -> list[tuple[int, str]]:
        """All changes since the last frame; the source may hand them out in portions."""
        found: list[tuple[int, str]] = []
        after = self._newest
        for _ in range(MAX_PORTIONS):
            portion = self._changes_after(after)
            if not portion:
                break
            found.extend(portion)
            after = max(seq for seq, _ in portion)
        return found

    def _append(self, changes: Sequence[tuple[int, str]]) -> None:
        newest = max(seq for seq, _ in changes)
        frame = _frame(newest, "change", sorted({topic for _, topic in changes}))
        with self._ready:
            if len(self._frames) == self._frames.maxlen:
                self._floor = self._frames[0][0]
            self._frames.append((newest, frame))
            self._newest = newest
            self._ready.notify_all()


class Viewer:
    """One stream. A class, not a generator: a generator that was never started would not run its clean-up, and the slot would be lost."""

    def __init__(self, feed: Feed, browser: str, may_look: Callable[[], bool], first: bytes, position: int) -> None:
        self._feed, self.browser, self._may_look, self._first, self._position = feed, browser, may_look, first, position

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        news, self._position = self._feed.wait(self, self._position)
        if not news:
            raise StopIteration
        if not self._may_look():  # somebody who was let in and was removed since
            self.close()
            raise StopIteration
        return news

    def close(self) -> None:
        """Give the slot back; safe to call twice."""
        self._feed.leave(self)


def _frame(seq: int, event: str, topics: list[str]) -> bytes:
    # JSON has no bare line break, so a topic cannot end the frame.
    return f"id: {seq}\nevent: {event}\ndata: {json.dumps({'topics': topics[:64]})}\n\n".encode()
