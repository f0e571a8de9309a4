"""The live feed: ids from the database, nothing lost without a sign, a limit on viewers."""

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from fleet_server.auth import SESSION_COOKIE
from fleet_server.page.live import Feed, TooManyViewersError, Viewer
from tests.unit.fleet_server import page_values as values

DEADLINE_S = 60.0


class Changes:
    """A change table in memory; hands out at most `portion` rows at once, as the database does."""

    def __init__(self, *rows: tuple[int, str], portion: int = 200) -> None:
        self.rows, self.portion, self.broken = list(rows), portion, 0
        self.asked = threading.Event()

    def after(self, seq: int) -> list[tuple[int, str]]:
        self.asked.set()
        if self.broken:
            self.broken -= 1
            raise OSError("disk is away")
        return [row for row in self.rows if row[0] > seq][: self.portion]

    def newest(self) -> int:
        return max((seq for seq, _ in self.rows), default=0)


@pytest.fixture
def changes() -> Changes:
    return Changes((40, "overview"), (41, "devices"))


@pytest.fixture
def open_feed(changes: Changes) -> Iterator[Callable[..., Feed]]:
    feeds: list[Feed] = []

    def make(max_viewers: int = 3, keep: int = 8, beat_s: float = 5.0) -> Feed:
        feeds.append(Feed(changes.after, changes.newest, max_viewers=max_viewers, keep=keep, period_s=0.01, beat_s=beat_s))
        return feeds[-1]

    yield make
    for feed in feeds:
        feed.close()


def until(viewer: Viewer, wanted: bytes) -> bytes:
    """Frames up to the one that holds `wanted`."""
    seen, end = b"", monotonic() + DEADLINE_S
    while wanted not in seen:
        assert monotonic() < end, seen
        seen += next(viewer)
    return seen


def test_the_first_frame_names_the_newest_change(open_feed: Callable[..., Feed]) -> None:
    viewer = open_feed().connect(None)

    assert next(viewer) == b'retry: 2000\nid: 41\nevent: change\ndata: {"topics": []}\n\n'


def test_a_change_arrives_with_its_number_and_topics_once_each(open_feed: Callable[..., Feed], changes: Changes) -> None:
    viewer = open_feed().connect(None)
    next(viewer)

    changes.rows += [(42, "rollout:r-2"), (43, "overview"), (44, "overview")]

    seen = until(viewer, b"id: 44\n")
    assert b"rollout:r-2" in seen
    assert seen.count(b"event: change") <= 3


def test_more_changes_than_one_portion_arrive(open_feed: Callable[..., Feed], changes: Changes) -> None:
    changes.portion = 2
    viewer = open_feed().connect(None)
    next(viewer)

    changes.rows += [(seq, f"device:d-{seq}") for seq in range(42, 50)]

    assert b"device:d-42" in until(viewer, b"id: 49\n")


def test_a_known_id_continues_where_the_browser_was(open_feed: Callable[..., Feed], changes: Changes) -> None:
    feed = open_feed()
    first = feed.connect(None)
    next(first)
    changes.rows.append((42, "drift"))
    until(first, b"id: 42\n")

    again = feed.connect("41")

    assert next(again) == b"retry: 2000\n\n"
    assert b"id: 42\n" in next(again)


@pytest.mark.parametrize("last_event_id", ["7", "42", "99999999999999999999", "-1", "\u0664\u0661", "41.0", "x"])
def test_an_id_that_cannot_be_honoured_is_answered_with_reload(open_feed: Callable[..., Feed], last_event_id: str) -> None:
    viewer = open_feed().connect(last_event_id)

    assert next(viewer).startswith(b"retry: 2000\nid: 41\nevent: reload\n")


def test_an_id_older_than_the_ring_is_answered_with_reload(open_feed: Callable[..., Feed], changes: Changes) -> None:
    feed = open_feed(keep=2)
    viewer = feed.connect(None)
    next(viewer)
    for seq in (42, 43, 44):
        changes.rows.append((seq, "drift"))
        until(viewer, b"id: %d\n" % seq)

    assert b"event: reload" in next(feed.connect("41"))
    assert b"event: reload" not in next(feed.connect("42"))


def test_a_quiet_stream_says_that_it_is_still_there(open_feed: Callable[..., Feed]) -> None:
    viewer = open_feed(beat_s=0.02).connect(None)
    next(viewer)

    assert next(viewer) == b": still here\n\n"


def test_the_viewer_limit_is_kept_and_a_closed_viewer_makes_room_once(open_feed: Callable[..., Feed]) -> None:
    feed = open_feed(max_viewers=2)
    first, second = feed.connect(None), feed.connect(None)

    with pytest.raises(TooManyViewersError, match="the limit is 2"):
        feed.connect(None)

    first.close()
    first.close()
    assert feed.viewers == 1
    feed.connect(None)
    second.close()
    assert feed.viewers == 1


def test_a_viewer_that_was_never_read_gives_its_slot_back(open_feed: Callable[..., Feed]) -> None:
    feed = open_feed()

    feed.connect(None).close()

    assert feed.viewers == 0


def test_a_browsers_next_stream_ends_the_one_before(open_feed: Callable[..., Feed]) -> None:
    feed = open_feed(max_viewers=1)
    older = feed.connect(None, "browser-a")
    next(older)

    newer = feed.connect(None, "browser-a")

    assert feed.viewers == 1
    with pytest.raises(StopIteration):
        next(older)
    older.close()
    assert feed.viewers == 1
    assert b"event: change" in next(newer)


def test_a_database_error_does_not_silence_the_feed(
    open_feed: Callable[..., Feed], changes: Changes, caplog: pytest.LogCaptureFixture
) -> None:
    viewer = open_feed().connect(None)
    next(viewer)
    changes.broken = 3

    changes.rows.append((42, "drift"))

    until(viewer, b"id: 42\n")
    assert "trying again" in caplog.text


def test_closing_the_feed_ends_every_stream(open_feed: Callable[..., Feed]) -> None:
    feed = open_feed()
    viewer = feed.connect(None)
    next(viewer)
    ended = threading.Event()

    def read() -> None:
        for _ in viewer:
            pass
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    feed.close()

    assert ended.wait(DEADLINE_S)
    reader.join(DEADLINE_S)


def test_a_topic_cannot_forge_a_frame(open_feed: Callable[..., Feed], changes: Changes) -> None:
    viewer = open_feed().connect(None)
    next(viewer)

    changes.rows.append((42, "x\n\nid: 9\nevent: reload\n"))

    assert until(viewer, b"id: 42\n").count(b"\nevent: ") == 1


def test_the_address_streams_refuses_beyond_the_limit_and_lets_go() -> None:
    app, feed = values.page_app(values.InventedSource())
    client = app.test_client()
    client.set_cookie(SESSION_COOKIE, "viewer-1")

    answers = [client.get("/live") for _ in range(3)]
    refused = client.get("/live")

    assert [answer.mimetype for answer in answers] == ["text/event-stream"] * 3
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
    for answer in answers:
        answer.close()
    assert feed.viewers == 0
    feed.close()
