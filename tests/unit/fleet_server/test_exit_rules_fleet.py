"""What users of Seldon and KServe do with a fleet of versions, asked of rollouts by evidence."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet_server.evidence_world import Fleet, act, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import MadeBundle, World, make_bundle

DEVICES = 200
EVERYBODY: dict[str, Any] = {"waves": ["100%"], "dwell_s": [0.0], "hold_back": {"fraction": 0.0}, "pace": {"first": DEVICES}}
CANARY: dict[str, Any] = {
    "waves": ["10%", "50%", "100%"],
    "dwell_s": [60.0, 60.0, 0.0],
    "hold_back": {"fraction": 0.0},
    "pace": {"first": 20, "every_s": 20.0, "growth": 2.0},
}
# Two-sided 99 % interval of a binomial with n = 200 and p = 0.1: 10 to 32 (scipy.stats.binom.interval).
LEAST, MOST = 10, 32


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def settled(world: World, tmp_path: Path) -> tuple[Fleet, MadeBundle]:
    """A fleet on which the first version is everywhere, and that bundle."""
    first = make_bundle(tmp_path / "first")
    open_fleet(world, DEVICES)
    fleet = Fleet(world, first)
    fleet.tick()
    rollout_id = start(world, world.push(first), **EVERYBODY)
    for _ in range(60):
        fleet.tick()
        if value(world, rollout_id).state.value == "completed":
            return fleet, first
    raise AssertionError("the first version did not get everywhere")


def test_two_versions_are_split_by_cohort_and_each_device_keeps_its_own_over_restarts(world: World, tmp_path: Path) -> None:
    fleet, first = settled(world, tmp_path)
    fleet.bundle = second = make_bundle(tmp_path / "second", "two", seed=1)
    rollout_id = start(world, world.push(second, "2"), **CANARY)
    fleet.tick(4)
    act(world, rollout_id, "pause")
    fleet.tick(2)
    cohort = asked(world, second)

    assert LEAST <= len(cohort) <= MOST
    for _ in range(3):
        world.close()
        reopened = World.open(tmp_path / "data")
        reopened.clock.now, reopened.devices = world.clock.now, world.devices
        fleet.world = world = reopened
        fleet.tick(5)
        running = Counter(device.running for device in world.devices.values())
        assert asked(world, second) == cohort
        assert {device_id for device_id, device in world.devices.items() if device.running == second.digest} == cohort
        assert running == {first.digest: DEVICES - len(cohort), second.digest: len(cohort)}
    world.close()


def test_a_canary_goes_from_a_tenth_to_a_half_and_back_to_the_last_good_version(world: World, tmp_path: Path) -> None:
    fleet, first = settled(world, tmp_path)
    fleet.bundle = second = make_bundle(tmp_path / "second", "two", seed=1)
    rollout_id = start(world, world.push(second, "2"), **CANARY)
    shares: dict[int, set[str]] = {}
    for _ in range(80):
        fleet.tick()
        shares[value(world, rollout_id).wave] = asked(world, second)
        if len(shares.get(2, ())) == DEVICES // 2:
            break

    assert [len(shares[wave]) for wave in (1, 2)] == [DEVICES // 10, DEVICES // 2]
    assert shares[1] < shares[2]
    act(world, rollout_id, "roll-back")
    for _ in range(30):
        fleet.tick()
    assert value(world, rollout_id).state.value == "rolled-back"
    assert {device.running for device in world.devices.values()} == {first.digest}


def test_a_canary_that_does_well_becomes_the_version_of_everybody(world: World, tmp_path: Path) -> None:
    fleet, _ = settled(world, tmp_path)
    fleet.bundle = second = make_bundle(tmp_path / "second", "two", seed=1)
    rollout_id = start(world, world.push(second, "2"), **CANARY)
    for _ in range(120):
        fleet.tick()
        if value(world, rollout_id).state.value == "completed":
            break

    assert {device.running for device in world.devices.values()} == {second.digest}
