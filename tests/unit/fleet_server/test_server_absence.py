"""A server that was away: what the broker held proves no life of now, and silence that nobody could break is held against nobody."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import queries
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.rollout import progress
from fleet_server.rollout.groups import Controls, Group, Timing, look
from fleet_server.rollout.hearing import Hearing
from fleet_server.scheduler.loop import Scheduler
from fleet_server.simulate.run import simulate
from fleet_server.simulate.scene import SCENES, Behaviour
from fleet_server.store import devices, hearing
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT_GROUP, ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import Fleet, now_us, open_fleet, start, value
from tests.unit.fleet_server.rollout_world import NEW, at, policy, trying
from tests.unit.fleet_server.server_world import World, make_bundle

BEGAN = datetime(2026, 6, 3, 12, tzinfo=UTC)
TIMING = Timing(900.0, 3_600.0, 7_200.0)
NOBODY, FEW = Controls(0, 0), Controls(10, 10)
SILENT_S = 80.0  # the deadline of `evidence_world.POLICY`


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def hours(number: float) -> datetime:
    return BEGAN + timedelta(hours=number)


def rollout_of(world: World, tmp_path: Path, devices: int) -> tuple[Fleet, str]:
    """All devices were asked at once and have begun."""
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, devices)
    fleet = Fleet(world, bundle)
    fleet.tick()
    pace = {"first": devices, "every_s": 60.0, "growth": 2.0}
    rollout_id = start(world, release_id, waves=["100%"], pace=pace, hold_back={"fraction": 0.0})
    fleet.tick()
    return fleet, rollout_id


def listened(world: World, heard: Hearing) -> None:
    with world.services.db.write() as connection:
        hearing.keep(connection, heard)


def heard(world: World, rollout_id: str) -> int:
    """Devices that were heard after their soak."""
    query = sa.select(sa.func.count(ROLLOUT_MEMBER.c.heard_at)).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
    with world.services.db.read() as connection:
        return int(connection.scalar(query) or 0)


def settled(world: World, rollout_id: str) -> tuple[int, int]:
    """(devices whose deadline is over, of them silent)."""
    group = ROLLOUT_GROUP.c
    due = sa.case((group.due, group.exposed), else_=0)
    query = sa.select(sa.func.sum(due), sa.func.sum(group.silent)).where(group.rollout_id == rollout_id)
    with world.services.db.read() as connection:
        row = connection.execute(query).one()
    return int(row[0] or 0), int(row[1] or 0)


def held(fleet: Fleet, sent_after: int) -> list[Incoming]:
    return [replace(device.heartbeat(), sent_after=sent_after) for device in fleet.world.devices.values()]


def test_what_the_broker_held_ends_no_soak_and_a_beat_after_the_return_does(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = rollout_of(world, tmp_path, 6)
    left_at = now_us(world)
    world.clock.move(3_600.0)

    world.receive(*held(fleet, left_at))

    assert heard(world, rollout_id) == 0
    assert {device.last_seen_at for device in queries.devices(world.services.db, world.clock())} == {world.clock() - timedelta(hours=1)}

    world.receive(*(replace(message, sent_after=now_us(world)) for message in held(fleet, 0)))

    assert heard(world, rollout_id) == 6


def test_a_sign_of_life_that_may_be_older_takes_back_no_younger_one(world: World) -> None:
    open_fleet(world, 1)
    device = world.devices["d00000"]
    world.receive(device.heartbeat(), device.presence())
    younger = now_us(world)
    world.clock.move(60.0)

    world.receive(*(replace(message, sent_after=younger - 5_000_000) for message in (device.heartbeat(), device.presence())))

    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(DEVICE_SEEN.c.seen_at)) == younger


def test_a_message_that_the_broker_repeats_proves_no_life(world: World) -> None:
    open_fleet(world, 1)
    device = world.devices["d00000"]
    world.receive(device.heartbeat())
    before = now_us(world)
    world.clock.move(60.0)

    world.receive(replace(device.heartbeat(), again=True), replace(device.presence(), again=True), device.reported("idle", retained=True))

    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(DEVICE_SEEN.c.seen_at)) == before


def test_what_was_heard_last_outlives_the_process(world: World) -> None:
    kept = Hearing(now_us(world), back_at=now_us(world) - 7)
    store_batch(world.services.db, [], now_us(world), kept)
    world.clock.move(3_600.0)

    with world.services.db.read() as connection:
        assert hearing.last(connection, now_us(world)) == kept
        assert hearing.deaf_until(connection, world.clock()) == world.clock()


def test_what_was_kept_by_a_clock_that_was_set_back_proves_nothing(world: World) -> None:
    listened(world, Hearing(now_us(world) + 1, back_at=7))

    with world.services.db.read() as connection:
        assert hearing.last(connection, now_us(world)) == Hearing(0)


def test_that_a_marker_came_back_once_is_known_for_good(world: World) -> None:
    with world.services.db.write() as connection:
        assert not hearing.has_come_back(connection)
        hearing.note_come_back(connection, now_us(world))
        hearing.note_come_back(connection, now_us(world) + 1)
        assert hearing.has_come_back(connection)
        assert hearing.last(connection, now_us(world)) == Hearing(now_us(world))


def test_no_sign_of_life_stays_in_the_future_when_the_clock_is_set_back(world: World) -> None:
    open_fleet(world, 2)
    died, lives = world.devices["d00000"], world.devices["d00001"]
    world.receive(died.heartbeat())
    world.clock.move(600.0)
    world.receive(lives.heartbeat())
    world.clock.move(-3_600.0)

    with world.services.db.write() as connection:
        devices.clock_was_set_back(connection, now_us(world), 3_600_000_000)
        rows = connection.execute(sa.select(DEVICE_SEEN.c.device_id, DEVICE_SEEN.c.seen_at))
        seen = {row.device_id: row.seen_at for row in rows}

    assert seen == {"d00000": now_us(world) - 600_000_000, "d00001": now_us(world)}


def test_a_database_that_kept_nothing_was_listening_when_it_last_heard_a_device(world: World) -> None:
    open_fleet(world, 1)
    with world.services.db.read() as connection:
        assert hearing.last(connection, now_us(world)) == Hearing(now_us(world))
        assert hearing.deaf_until(connection, world.clock()) is None
    world.receive(world.devices["d00000"].heartbeat())
    before = now_us(world)
    world.clock.move(3_600.0)

    with world.services.db.read() as connection:
        assert hearing.last(connection, now_us(world)) == Hearing(before)


def test_the_overview_says_since_when_no_device_can_be_heard(world: World) -> None:
    def deaf() -> list[str]:
        return [
            note for note in queries.overview(world.services.db, world.clock()).notes if note.startswith("No device can be heard since")
        ]

    assert deaf() == []
    left_at = world.clock()
    listened(world, Hearing(now_us(world)))
    assert deaf() == []
    world.clock.move(61.0)

    assert f"since {left_at:%Y-%m-%d %H:%M} UTC" in deaf()[0]


def test_devices_have_time_to_be_heard_after_the_return_before_any_of_them_is_silent(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = rollout_of(world, tmp_path, 30)
    listened(world, Hearing(now_us(world)))
    world.clock.move(5 * SILENT_S)

    Scheduler(world.services, None).decide_due()  # the server is back, its link is not yet

    assert settled(world, rollout_id) == (0, 0)
    listened(world, Hearing(now_us(world), back_at=now_us(world)))
    for _ in range(4):
        fleet.tick()
        listened(world, Hearing(now_us(world), back_at=now_us(world) - 40_000_000))
    assert settled(world, rollout_id) == (30, 0)
    assert value(world, rollout_id).state.value in ("running", "completed")


def test_devices_that_stay_silent_after_the_return_are(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = rollout_of(world, tmp_path, 30)
    left_at = now_us(world)
    world.clock.move(5 * SILENT_S)
    back_at = now_us(world)
    fleet.dark = set(world.devices)
    world.receive(*held(fleet, left_at))

    for _ in range(6):
        fleet.tick()
        listened(world, Hearing(now_us(world), back_at=back_at))

    assert settled(world, rollout_id)[0] == 30
    assert settled(world, rollout_id)[1] > 0
    assert value(world, rollout_id).state.value != "completed"


@pytest.mark.parametrize(
    ("now", "deaf_until", "due"), [(2.3, None, True), (2.3, 2.3, False), (2.3, 2.2, False), (2.46, 2.2, True), (2.3, 1.2, True)]
)
def test_a_deadline_is_not_over_before_devices_could_be_heard(now: float, deaf_until: float | None, due: bool) -> None:
    group = Group(BEGAN, live=0, back_at=hours(1.3))

    found = look(group, 5, NOBODY, NOBODY, TIMING, hours(now), None if deaf_until is None else hours(deaf_until))

    assert found.due is due
    assert found.silent == (5 if due else 0)


def test_no_site_is_called_dark_while_the_server_hears_nobody() -> None:
    group = Group(BEGAN, live=10)

    assert look(group, 5, FEW, None, TIMING, hours(2.3)).out
    assert not look(group, 5, FEW, None, TIMING, hours(2.3), hours(2.3)).out


def test_who_is_a_live_control_is_asked_once_they_had_time_to_say_so() -> None:
    back = hours(0.1)

    waits = look(Group(BEGAN), 5, NOBODY, None, TIMING, hours(0.2), back)
    looked = look(waits, 5, Controls(10, 0), None, TIMING, hours(0.35), back)

    assert (waits.live, waits.look_at) == (None, hours(0.35))
    assert looked.live == 10


def test_the_silence_of_a_device_counts_from_the_return_of_the_server() -> None:
    rules, device = policy(deadline_s=60.0), trying("d0", at(0))

    assert progress(device, NEW, rules, at(100))[0] == "silent"
    assert progress(replace(device, deaf_until=at(90)), NEW, rules, at(100))[0] == "pending"
    assert progress(replace(device, deaf_until=at(90)), NEW, rules, at(150))[0] == "silent"


@pytest.mark.parametrize("seed", range(4))
def test_devices_that_die_while_the_server_is_away_complete_no_rollout(seed: int) -> None:
    dark = Behaviour("0.1:dark:0.5", 0.1, "dark", 0.5)

    found = simulate(2_000, SCENES["server away"], dark, seed)

    assert found.stopped in ("paused", "aborted")
    assert found.harmed < 60


@pytest.mark.parametrize("seed", range(4))
def test_a_good_release_is_completed_although_the_server_is_there_half_an_hour_in_six(seed: int) -> None:
    assert simulate(2_000, SCENES["server away"], Behaviour("1 %", 0.01), seed).stopped == ""


def test_micros_and_moments_of_an_absence_are_the_same(world: World) -> None:
    listened(world, Hearing(now_us(world), back_at=to_micros(BEGAN)))

    with world.services.db.read() as connection:
        assert hearing.deaf_until(connection, world.clock()) == BEGAN
