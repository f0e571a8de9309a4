"""A device that sleeps gives the place of its site back: others begin, and it is asked anew when it is heard."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleet_server.flooring import raise_floor
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import evidence_members
from fleet_server.store.tables import ACTIVATION, EVENT, ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import POLICY, TICK_S, Fleet, act, asked, open_fleet, start, value
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


def log(world: World, action: str) -> list[str]:
    with world.services.db.read() as connection:
        return list(connection.scalars(sa.select(EVENT.c.detail).where(EVENT.c.action == action)))


def parked(world: World) -> set[str]:
    with world.services.db.read() as connection:
        return set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.parked_at.is_not(None))))


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


def test_who_sleeps_through_the_whole_rollout_is_asked_after_it(world: World, tmp_path: Path) -> None:
    fleet, rollout_id, sleeping = asleep(world, tmp_path, count=40, dwell_s=[200.0])

    assert until(fleet, rollout_id, "completed", "paused", ticks=200) == "completed"
    Scheduler(world.services, None).decide_due()
    fleet.tick(2)

    assert asked(world, fleet.bundle) >= sleeping
    assert parked(world) == set()


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
