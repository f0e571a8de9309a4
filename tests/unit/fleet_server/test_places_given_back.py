"""A device that sleeps gives the place of its site back: others begin, and it is asked anew when it is heard."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleet_server.flooring import raise_floor
from fleet_server.rollout.hearing import Hearing
from fleet_server.scheduler import by_evidence, parking
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import evidence_members, hearing, latecomers
from fleet_server.store.facts import read
from fleet_server.store.tables import ACTIVATION, EVENT, ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import POLICY, TICK_S, Fleet, act, asked, now_us, open_fleet, start, value
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle
from tests.unit.fleet_server.test_evidence_rollouts import until

SLEEPS_S = POLICY["deadline_s"] + 2 * TICK_S


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def asleep(world: World, tmp_path: Path, count: int = 12, **changes: Any) -> tuple[Fleet, str, set[str]]:
    """A rollout with two places at its only site, whose first two devices fell asleep before they were asked."""
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, count, sites=1)
    fleet = Fleet(world, bundle)
    fleet.tick()
    world.clock.move(TICK_S)
    policy: dict[str, Any] = {"waves": ["100%"], "dwell_s": [60.0], "pace": {"first": count, "every_s": 60.0}, "site_budget": 2} | changes
    rollout_id = start(world, release_id, **policy)
    fleet.dark = asked(world, bundle)
    return fleet, rollout_id, set(fleet.dark)


def in_activation(world: World) -> int:
    with world.services.db.read() as connection:
        return evidence_members.in_activation(connection, ["s0"]).get("s0", 0)


def listens(world: World, heard: Hearing) -> None:
    """What the markers of the server's broker prove."""
    with world.services.db.write() as connection:
        hearing.keep(connection, heard)


def log(world: World, action: str) -> list[str]:
    with world.services.db.read() as connection:
        return list(connection.scalars(sa.select(EVENT.c.detail).where(EVENT.c.action == action)))


def parked(world: World) -> set[str]:
    with world.services.db.read() as connection:
        return set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.parked_at.is_not(None))))


def asked_first(world: World) -> dict[str, int]:
    """Device -> when pace and rate counted it."""
    with world.services.db.read() as connection:
        member = ROLLOUT_MEMBER.c
        query = sa.select(member.device_id, member.assigned_at).where(member.assigned_at.is_not(None)).order_by(member.wave, member.place)
        return {row.device_id: row.assigned_at for row in connection.execute(query)}


def ran_before(world: World, rollout_id: str, release_id: str, *device_ids: str) -> None:
    with world.services.db.write() as connection:
        mine = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.device_id.in_(device_ids))
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine).values(previous_release=release_id))


def test_sleeping_devices_hold_their_places_for_the_deadline_and_then_others_begin(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path)
    assert len(sleeping) == 2
    fleet.tick(2)
    assert asked(world, fleet.bundle) == sleeping

    world.clock.move(SLEEPS_S)
    fleet.tick(2)

    assert parked(world) == sleeping
    assert len(asked(world, fleet.bundle) - sleeping) == 4  # two, and when these had committed two more
    assert in_activation(world) <= 2
    assert log(world, "set-aside")[0].startswith("2 devices that were not heard since they were asked give the place of their site back")


def test_their_signed_document_asks_nothing_until_they_are_heard_and_then_they_are_asked_within_the_budget(
    world: World, tmp_path: Path
) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path)
    world.clock.move(SLEEPS_S)
    fleet.tick(2)
    assert [world.desired(device_id) for device_id in sorted(sleeping)] == [None, None]
    with world.services.db.read() as connection:
        assert not set(connection.scalars(sa.select(ACTIVATION.c.device_id))) & sleeping  # nothing was changed there

    fleet.dark = set()
    busiest = 0
    for _ in range(12):
        fleet.tick()
        busiest = max(busiest, in_activation(world))

    assert busiest <= 2
    assert asked(world, fleet.bundle) == set(world.devices)
    assert parked(world) == set()
    assert until(fleet, rollout_id, "completed") == "completed"
    assert {device.running for device in world.devices.values()} == {fleet.bundle.digest}


def test_a_place_that_nobody_wants_is_not_given_back(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path, count=2)

    world.clock.move(SLEEPS_S)
    fleet.tick(2)

    assert asked(world, fleet.bundle) == sleeping
    assert parked(world) == set()


def test_a_device_that_was_heard_since_it_was_asked_keeps_its_place(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path)
    heard = sorted(sleeping)[0]
    world.receive(world.devices[heard].heartbeat())

    world.clock.move(SLEEPS_S)
    fleet.tick()

    assert parked(world) == sleeping - {heard}


def test_a_device_that_began_unheard_is_counted_when_it_tells(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path)
    device = world.devices[sorted(sleeping)[0]]
    assert world.desired(device.device_id) is not None  # it got the document, and fell silent
    told = device.reported("downloading", fleet.bundle.digest)
    world.clock.move(SLEEPS_S)
    fleet.tick()

    world.receive(told)

    with world.services.db.read() as connection:
        query = sa.select(ROLLOUT_MEMBER.c.began_at).where(ROLLOUT_MEMBER.c.device_id == device.device_id)
        assert connection.scalar(query) is not None


def test_devices_that_begin_while_the_server_is_away_keep_their_places_until_it_could_have_heard_them(world: World, tmp_path: Path) -> None:
    fleet, _, first = asleep(world, tmp_path)
    went_at = now_us(world)
    listens(world, Hearing(went_at))
    held = []
    for device_id in sorted(first):
        assert world.desired(device_id) is not None
        held.append(world.devices[device_id].reported("downloading", fleet.bundle.digest))
    world.clock.move(SLEEPS_S)

    Scheduler(world.services, None).decide_due()  # the broker has not delivered yet what it held
    assert (asked(world, fleet.bundle), parked(world)) == (first, set())
    back_at = now_us(world)
    listens(world, Hearing(back_at, back_at))
    world.clock.move(TICK_S / 2)
    Scheduler(world.services, None).decide_due()  # nor has everybody connected again
    assert (asked(world, fleet.bundle), parked(world)) == (first, set())
    world.receive(*held[:1])
    world.clock.move(TICK_S / 2)
    listens(world, Hearing(now_us(world), back_at))
    fleet.tick()

    assert parked(world) == {max(first)}


def test_who_sleeps_through_the_whole_rollout_is_asked_after_it(world: World, tmp_path: Path) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path, count=40, dwell_s=[200.0])

    assert until(fleet, rollout_id, "completed", "paused", ticks=200) == "completed"
    Scheduler(world.services, None).decide_due()
    fleet.tick(2)

    assert asked(world, fleet.bundle) >= sleeping
    assert parked(world) == set()


def test_who_was_heard_again_waits_like_all_others_while_a_site_of_few_is_out(world: World, tmp_path: Path) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path)
    world.clock.move(SLEEPS_S)
    fleet.tick()
    world.clock.move(1.0)
    fleet.receive(world.devices[device_id].heartbeat() for device_id in sorted(sleeping))
    for device_id in sorted(asked(world, fleet.bundle) - sleeping):  # so that there are places
        world.desired(device_id)
        fleet.receive(world.devices[device_id].install(fleet.bundle))
    assert in_activation(world) == 0
    with world.services.db.write() as connection:
        rollout, now = value(world, rollout_id), world.clock()
        known = read(connection, rollout, now)
        assert known.tally is not None
        out = replace(known, tally=replace(known.tally, sites_exposed=1, sites_out=1))
        by_evidence.carry_on(connection, world.services, rollout, out, now)
    assert parked(world) == sleeping

    fleet.tick()

    assert parked(world) == set()


def test_who_takes_a_release_on_after_the_completion_is_a_latecomer_also_when_a_later_rollout_owns_him(
    world: World, tmp_path: Path
) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path, count=40, dwell_s=[200.0])
    assert until(fleet, rollout_id, "completed", "paused", ticks=200) == "completed"
    fleet.tick()
    newer = world.push(make_bundle(tmp_path / "newer", "two"), "2")
    start(world, newer, waves=[1, "100%"], dwell_s=[2_000.0, 0.0])
    with world.services.db.read() as connection:
        mine = sa.and_(ROLLOUT_MEMBER.c.active, ROLLOUT_MEMBER.c.counter.is_(None), ROLLOUT_MEMBER.c.device_id.in_(sleeping))
        waiting = set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(mine)))
    assert waiting

    fleet.dark = set(world.devices) - waiting
    fleet.tick()

    assert {world.devices[device_id].running for device_id in waiting} == {fleet.bundle.digest}
    with world.services.db.read() as connection:
        told = {device_id: committed_at for device_id, committed_at, _ in latecomers.of_rollout(connection, rollout_id)}
    assert waiting <= {device_id for device_id, committed_at in told.items() if committed_at is not None}


def test_after_an_abort_nobody_who_gave_his_place_back_is_asked(world: World, tmp_path: Path) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path)
    world.clock.move(SLEEPS_S)
    fleet.tick()
    act(world, rollout_id, "abort")

    fleet.dark = set()
    fleet.tick(4)

    assert asked(world, fleet.bundle) & sleeping == set()
    assert value(world, rollout_id).state.value == "aborted"


def test_a_rollback_waits_for_nobody_who_gave_his_place_back(world: World, tmp_path: Path) -> None:
    old = make_bundle(tmp_path / "old", "0")
    old_release = world.push(old, "0")
    fleet, rollout_id, sleeping = asleep(world, tmp_path, baseline=old_release)
    world.clock.move(SLEEPS_S)
    fleet.tick(2)
    assert parked(world) == sleeping
    ran_before(world, rollout_id, old_release, *world.devices)

    act(world, rollout_id, "roll-back")

    assert until(fleet, rollout_id, "rolled-back", ticks=20) == "rolled-back"
    assert asked(world, fleet.bundle) == set()


@pytest.mark.parametrize("below_floor", [False, True])
def test_a_sleeping_device_is_to_run_what_it_ran_before_unless_that_lies_below_the_floor(
    world: World, tmp_path: Path, below_floor: bool
) -> None:
    old = make_bundle(tmp_path / "old", "0")
    old_release = world.push(old, "0")
    fleet, rollout_id, sleeping = asleep(world, tmp_path)
    first, second = sorted(sleeping)
    ran_before(world, rollout_id, old_release, first)
    if below_floor:
        raise_floor(world.services, PROJECT, release_id=value(world, rollout_id).release_id, reason="a hole", actor=OPERATOR)

    world.clock.move(SLEEPS_S)
    fleet.tick()

    assert parked(world) == sleeping
    wanted = world.desired(first)
    assert (None if wanted is None else wanted.bundle_digest) == (None if below_floor else old.digest)
    assert world.desired(second) is None


def test_sleepers_of_a_site_where_nobody_waits_do_not_hide_those_of_another(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "AT_ONCE", 1)
    fleet, _, sleeping = asleep(world, tmp_path)
    first, second = asked_first(world)
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.device_id == first).values(site="lonely"))

    world.clock.move(SLEEPS_S)
    fleet.tick()

    assert {first, second} == sleeping
    assert parked(world) == {second}


def test_a_device_that_woke_and_waits_gets_the_place_of_one_that_fell_asleep_after_it(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path, count=2, site_budget=1)
    (first,) = sleeping
    (second,) = set(world.devices) - sleeping
    fleet.dark = {first, second}
    world.clock.move(SLEEPS_S)
    fleet.tick(2)
    assert (parked(world), asked(world, fleet.bundle)) == ({first}, {second})

    fleet.dark = {second}
    fleet.tick(2)
    assert asked(world, fleet.bundle) == {second}  # for the deadline, as ever
    world.clock.move(SLEEPS_S)
    fleet.tick(2)

    assert parked(world) == {second}
    assert world.devices[first].running == fleet.bundle.digest


def test_who_is_asked_anew_uses_up_neither_pace_nor_rate_and_may_give_his_place_back_again(world: World, tmp_path: Path) -> None:
    fleet, _, sleeping = asleep(world, tmp_path)
    before = asked_first(world)
    world.clock.move(SLEEPS_S)
    fleet.tick()
    world.clock.move(1.0)
    fleet.receive(world.devices[device_id].heartbeat() for device_id in sorted(sleeping))  # heard, and asleep again
    fleet.tick(4)
    assert parked(world) == set()
    assert asked(world, fleet.bundle) >= sleeping
    assert {device_id: at for device_id, at in asked_first(world).items() if device_id in sleeping} == before

    world.clock.move(SLEEPS_S)
    with world.services.db.write() as connection:  # somebody waits again
        connection.execute(sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.device_id == max(world.devices)).values(counter=None))
    fleet.tick()

    assert parked(world) == sleeping


def test_a_rollback_gives_the_baseline_to_who_may_have_begun_unheard_and_had_nothing_before(world: World, tmp_path: Path) -> None:
    old = make_bundle(tmp_path / "old", "0")
    fleet, rollout_id, sleeping = asleep(world, tmp_path, baseline=world.push(old, "0"))
    world.clock.move(SLEEPS_S)
    fleet.tick(2)
    assert [world.desired(device_id) for device_id in sorted(sleeping)] == [None, None]

    act(world, rollout_id, "roll-back")
    fleet.tick(2)

    wanted = [world.desired(device_id) for device_id in sorted(sleeping)]
    assert [None if one is None else one.bundle_digest for one in wanted] == [old.digest, old.digest]
    fleet.dark = set()
    assert until(fleet, rollout_id, "rolled-back", ticks=20) == "rolled-back"
