"""Removing and relabelling devices of a rollout by evidence: counts only get worse, the next in the order takes a free place."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import relabelling
from fleet_server.removing import remove_device
from fleet_server.rollout.tally import Tally
from fleet_server.store import evidence_members, evidence_tally
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import asked, value
from tests.unit.fleet_server.server_world import OPERATOR, World
from tests.unit.fleet_server.test_evidence_rollouts import QUICK, counts, fleet_of, until, wave_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def remove(world: World, *device_ids: str) -> None:
    for device_id in device_ids:
        remove_device(world.services, device_id, reason="scrapped", actor=OPERATOR)


def tally(world: World, rollout_id: str) -> Tally:
    with world.services.db.read() as connection:
        return evidence_tally.read(connection, value(world, rollout_id), world.clock())


def sizes(world: World, rollout_id: str) -> tuple[int, ...]:
    course = value(world, rollout_id).course
    assert course is not None
    return course.sizes


def test_the_next_in_the_order_takes_the_place_of_a_device_that_was_not_asked(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK)
    fleet.tick()
    before, waves = sizes(world, rollout_id), wave_of(world, rollout_id)
    waiting = sorted(device_id for device_id, wave in waves.items() if wave == 1 and device_id not in asked(world, fleet.bundle))
    assert waiting or before[0] <= 20
    unasked = waiting or sorted(device_id for device_id, wave in waves.items() if wave == 2)

    remove(world, unasked[0])

    after = Counter(wave_of(world, rollout_id).values())
    assert unasked[0] not in wave_of(world, rollout_id)
    assert after[1] == before[0]
    assert sizes(world, rollout_id) == (before[0], before[1] - 1)
    assert {wave: one.members for wave, one in counts(world, rollout_id).items()} == dict(after)


def test_a_wave_that_would_be_emptied_is_filled_from_the_later_ones(world: World, tmp_path: Path) -> None:
    _, rollout_id = fleet_of(world, tmp_path, 30, waves=[2, 4, 8, "100%"], dwell_s=[60.0, 0.0, 0.0, 0.0])
    before = sizes(world, rollout_id)
    second = [device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 2]

    remove(world, *second)

    assert sizes(world, rollout_id)[:-1] == before[:-1]
    assert sizes(world, rollout_id)[-1] == before[-1] - len(second)


def test_a_last_wave_that_lost_all_its_devices_never_passes(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 20, waves=["50%", "100%"], dwell_s=[60.0, 0.0], pace={"first": 20, "every_s": 20.0})
    remove(world, *[device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 2])

    assert until(fleet, rollout_id, "completed", "aborted", ticks=120) not in ("completed", "soaking")
    assert len(value(world, rollout_id).promoted_at) == 1


def test_a_device_that_was_asked_is_no_success_and_no_silence_when_it_is_removed(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK)
    fleet.tick(2)
    begun = sorted(asked(world, fleet.bundle))
    fleet.dark = set(begun[:3])
    fleet.tick(2)

    remove(world, *begun[:2])
    fleet.tick(12)

    found = tally(world, rollout_id).quiet
    assert found.exposed >= len(begun)
    assert found.silent == 1  # the dark one that is still of the fleet
    assert found.missing >= 3  # all three have proved nothing


def test_proven_devices_stop_being_evidence_and_the_wave_cannot_pass_by_that(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK)
    fleet.tick(16)
    before = tally(world, rollout_id).quiet
    query = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.proven_at.is_not(None)).order_by(ROLLOUT_MEMBER.c.began_at)
    with world.services.db.read() as connection:
        proven = list(connection.scalars(query.limit(4)))
    assert before.due > 4

    remove(world, *proven)

    after = tally(world, rollout_id).quiet
    assert (after.due, after.missing, after.exposed, after.silent) == (before.due - 4, before.missing, before.exposed, before.silent)


def test_failures_of_removed_devices_still_abort(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK, bad=lambda _device_id: True)
    fleet.tick()
    failed = sorted(world.devices[device_id].device_id for device_id in asked(world, fleet.bundle))
    before = tally(world, rollout_id).failed

    remove(world, *failed[:5])

    assert tally(world, rollout_id).failed == before > 0
    assert until(fleet, rollout_id, "aborted") == "aborted"


def test_a_removed_control_is_silent_for_nobody(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK, hold_back={"fraction": 0.2}, sites=1)
    fleet.tick(3)
    held = sorted(device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 0)
    assert len(held) == 12

    remove(world, *held[:6])
    fleet.tick(14)

    found = tally(world, rollout_id).quiet
    assert found.due > 0
    assert found.missing_baseline <= 0.05
    assert set(held[:6]) & set(wave_of(world, rollout_id)) == set()


@pytest.mark.conversions  # a slow proof, for the second stage
def test_a_good_rollout_by_evidence_comes_through_while_devices_are_removed_all_the_time(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 200)
    names = sorted(world.devices)

    for tick in range(10):
        fleet.tick(4)
        remove(world, names[7 * tick])

    assert until(fleet, rollout_id, "completed", "aborted", "paused", ticks=200) == "completed"


def test_a_running_rollout_keeps_wave_stratum_and_site_of_a_device_that_is_relabelled(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 30)
    fleet.tick(2)
    device_id = sorted(asked(world, fleet.bundle))[0]
    wave = wave_of(world, rollout_id)[device_id]
    site = f"s{int(device_id[1:]) % 4}"

    relabelling.set_labels(world.services, device_id, put={"site": "elsewhere"}, reason="moved", actor=OPERATOR)
    fleet.tick(3)

    assert wave_of(world, rollout_id)[device_id] == wave
    with world.services.db.read() as connection:
        assert "elsewhere" not in evidence_members.in_activation(connection, [site, "elsewhere"])
    assert tally(world, rollout_id).exposed == len(asked(world, fleet.bundle))


def test_a_device_that_is_relabelled_into_the_selection_joins_and_one_that_leaves_makes_room(world: World, tmp_path: Path) -> None:
    _, rollout_id = fleet_of(world, tmp_path, 60, selection={"hardware": "a"})
    outside = next(device_id for device_id in sorted(world.devices) if device_id not in wave_of(world, rollout_id))
    last = len(sizes(world, rollout_id))
    leaving = next(device_id for device_id, wave in sorted(wave_of(world, rollout_id).items()) if 1 < wave < last)
    before = sizes(world, rollout_id)

    relabelling.set_labels(world.services, outside, put={"hardware": "a"}, reason="was mistaken", actor=OPERATOR)
    relabelling.set_labels(world.services, leaving, put={"hardware": "b"}, reason="was mistaken", actor=OPERATOR)

    assert outside in wave_of(world, rollout_id)
    assert leaving not in wave_of(world, rollout_id)
    assert sizes(world, rollout_id)[-1] == before[-1]
