"""Markers over the broker: nothing that a broker held is taken for life of now, and what is sent now is soon taken for it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.ingest.inbox import Incoming
from fleet_server.ingest.markers import AGAIN_US, BLIND_US, MARK_US, Markers
from fleet_server.rollout.hearing import ABSENT_US, Hearing

TOPIC = "ef/v1/server/fleet/marker"
S = 1_000_000
NOON = 1_800_000_000 * S


def message(payload: bytes = b"", topic: str = "ef/v1/d/d0/hb", *, retained: bool = False, again: bool = False) -> Incoming:
    return Incoming(topic, payload, retained, 1, 1, 1, again)


def marked(markers: Markers, at: int, back_at: int) -> None:
    """A marker goes out and comes back."""
    marker = markers.due(at, 1)
    assert marker is not None
    markers.listen([message(marker, TOPIC)], back_at, 1, drained=True)


def moments(markers: Markers, messages: list[Incoming], at: int) -> list[int | None]:
    return [one.sent_after for one in markers.listen(messages, at, 1, drained=True)]


def test_what_the_broker_held_counts_for_the_moment_before_the_absence() -> None:
    markers = Markers(TOPIC, Hearing(NOON))
    marker = markers.due(NOON + 7_200 * S, 1)
    assert marker is not None

    found = moments(markers, [message(), message(marker, TOPIC), message()], NOON + 7_201 * S)

    assert found == [NOON, NOON + 7_200 * S]
    assert markers.hearing == Hearing(NOON + 7_200 * S, back_at=NOON + 7_201 * S)


def test_a_short_break_is_no_absence() -> None:
    markers = Markers(TOPIC, Hearing(NOON))

    marked(markers, NOON + ABSENT_US - S, NOON + ABSENT_US)

    assert markers.hearing.back_at == 0
    assert markers.hearing.deaf_until(NOON + ABSENT_US) is None


def test_a_server_whose_markers_stay_away_is_deaf_until_now() -> None:
    heard = Hearing(NOON, back_at=NOON - 5 * S)

    assert heard.deaf_until(NOON + ABSENT_US + 1) == NOON + ABSENT_US + 1
    assert heard.deaf_until(NOON) == NOON - 5 * S
    assert heard.deaf_until(NOON - ABSENT_US - 1) == NOON - ABSENT_US - 1, "the clock was set back"
    assert heard.deaf_until(NOON - 1) == NOON - 5 * S, "who reads may have looked at the clock before the marker came"


def test_a_marker_that_this_process_did_not_send_proves_nothing() -> None:
    markers, other = Markers(TOPIC, Hearing(NOON)), Markers(TOPIC, Hearing(NOON))
    forged = other.due(NOON + 60 * S, 1)
    assert forged is not None
    assert markers.due(NOON + 60 * S, 1) is not None

    found = moments(markers, [message(forged, TOPIC), message(b":1", TOPIC), message(b"", TOPIC), message()], NOON + 61 * S)

    assert found == [NOON]


def test_a_marker_is_sent_every_two_seconds_and_a_lost_one_is_followed_by_another() -> None:
    markers = Markers(TOPIC, Hearing(NOON))
    marked(markers, NOON, NOON + S)

    assert markers.due(NOON + MARK_US - 1, 1) is None
    assert markers.due(NOON + MARK_US, 1) is not None  # lost
    assert markers.due(NOON + MARK_US + AGAIN_US - 1, 1) is None
    assert markers.due(NOON + MARK_US + AGAIN_US, 1) is not None
    assert markers.due(NOON + MARK_US + AGAIN_US, 2) is not None, "a new connection is marked at once"
    assert markers.due(NOON + 9_000 * S, None) is None


def test_where_no_marker_comes_back_the_broker_gets_five_minutes_to_deliver_what_it_held() -> None:
    markers = Markers(TOPIC, Hearing(NOON))
    back = NOON + 7_200 * S
    found = [moments(markers, [message()], back + second * S)[0] for second in range(BLIND_US // S + 2)]

    assert set(found[:-1]) == {NOON}
    assert markers.hearing.since == back + BLIND_US + S
    assert markers.hearing.back_at >= back + BLIND_US


def test_a_server_that_could_not_store_for_hours_does_not_take_what_waited_for_life_of_now() -> None:
    markers = Markers(TOPIC, Hearing(NOON))
    for second in range(3):
        markers.listen([], NOON + second * S, 1, drained=True)

    # The database was away: nobody took messages for two hours, and no marker was sent either.
    found = moments(markers, [message()], NOON + 7_200 * S)

    assert found == [NOON]


def test_where_markers_come_back_an_hour_of_held_messages_is_no_life_of_now() -> None:
    markers = Markers(TOPIC, Hearing(NOON), come_back=True)
    back = NOON + 7_200 * S
    sent: list[bytes] = []
    found = []
    for second in range(3_600):
        marker = markers.due(back + second * S, 1)
        sent += [] if marker is None else [marker]
        found += moments(markers, [message()], back + second * S)

    assert set(found) == {NOON}
    # The first marker stood behind the last message that was held, the others behind what came meanwhile.
    over = back + 3_600 * S
    assert moments(markers, [message(sent[0], TOPIC), message()], over) == [back]
    assert moments(markers, [message(one, TOPIC) for one in sent[1:]] + [message()], over) == [back + 3_590 * S]


def test_a_process_that_saw_a_marker_guesses_no_more() -> None:
    markers = Markers(TOPIC, Hearing(NOON))
    marked(markers, NOON, NOON + S)
    assert markers.come_back

    found = [moments(markers, [message()], NOON + second * S)[0] for second in range(2, 2 * BLIND_US // S)]

    assert set(found) == {NOON}


def test_a_clock_that_is_set_back_while_the_server_listens_moves_what_was_proven() -> None:
    markers = Markers(TOPIC, Hearing(NOON, back_at=NOON - 60 * S))
    marker = markers.due(NOON + S, 1)
    assert marker is not None
    markers.listen([], NOON + 2 * S, 1, drained=True)

    found = moments(markers, [message(), message(marker, TOPIC), message()], NOON - 3_598 * S)

    assert found == [NOON - 3_600 * S, NOON - 3_599 * S]
    assert markers.hearing.back_at == NOON - 3_660 * S
    assert markers.set_back_us == 3_600 * S


def test_retained_and_repeated_messages_are_no_signs_of_life() -> None:
    assert message().is_sign_of_life
    assert not message(retained=True).is_sign_of_life
    assert not message(again=True).is_sign_of_life


def test_a_clock_that_was_set_back_puts_no_sign_of_life_into_the_future() -> None:
    assert Hearing(NOON).sent_after(NOON - 60 * S) == NOON - 60 * S


@dataclass
class Queue:
    """A broker with one session, a server that comes and goes, and a database that keeps what it is told now and then.

    The messages carry their true moment, which the server does not read.
    """

    now: int = NOON
    waiting: list[Incoming] = field(default_factory=list)
    kept: Hearing = field(default_factory=lambda: Hearing(NOON))
    connection: int = 1
    found: list[tuple[int, int]] = field(default_factory=list)
    come_back: bool = True

    def __post_init__(self) -> None:
        self.server: Markers | None = Markers(TOPIC, self.kept, come_back=self.come_back)

    def device_sends(self) -> None:
        self.waiting.append(message(str(self.now).encode()))

    def server_marks(self, *, arrives: bool) -> None:
        marker = None if self.server is None else self.server.due(self.now, self.connection)
        if marker is not None and arrives:
            self.waiting.append(message(marker, TOPIC))

    def server_takes(self, most: int) -> None:
        if self.server is None:
            return
        batch, self.waiting = self.waiting[:most], self.waiting[most:]
        for one in self.server.listen(batch, self.now, self.connection, drained=not self.waiting):
            assert one.sent_after is not None
            self.found.append((one.sent_after, int(one.payload)))

    def server_keeps(self) -> None:
        self.kept = self.kept if self.server is None else self.server.hearing

    def server_comes_and_goes(self) -> None:
        self.connection += 1
        self.server = Markers(TOPIC, self.kept, come_back=self.come_back) if self.server is None else None

    def broker_breaks_the_connection(self) -> None:
        self.connection += 1

    def time_passes(self, micros: int) -> None:
        self.now += micros

    def step(self, name: str, much: int) -> None:
        acts: dict[str, Callable[[], None]] = {
            "wait": lambda: self.time_passes(much),
            "take": lambda: self.server_takes(much),
            "mark": lambda: self.server_marks(arrives=bool(much)),
            "send": self.device_sends,
            "keep": self.server_keeps,
            "restart": self.server_comes_and_goes,
            "break": self.broker_breaks_the_connection,
        }
        acts[name]()


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([S // 10, S, 3 * S, 70 * S, 4_000 * S])),
    st.tuples(st.just("take"), st.sampled_from([0, 1, 3, 100])),
    st.tuples(st.just("mark"), st.sampled_from([1, 1, 1, 0])),
    st.tuples(st.sampled_from(["send", "keep", "restart", "break"]), st.just(0)),
)


@given(st.lists(STEPS, min_size=5, max_size=60), st.booleans())
def test_no_message_ever_counts_for_a_moment_after_it_was_sent(steps: list[tuple[str, int]], come_back: bool) -> None:
    world = Queue(come_back=come_back)
    for name, much in steps:
        world.step(name, much)
    world.server_takes(100)

    assert all(counts_for <= sent_at for counts_for, sent_at in world.found), world.found
    if world.server is None:
        world.server_comes_and_goes()
    world.server_takes(100)
    world.now += AGAIN_US
    began = world.now
    world.server_marks(arrives=True)
    world.device_sends()
    world.server_takes(100)
    assert world.found[-1] == (began, began), "a device that speaks after the return is alive"
