"""What users of Seldon and KServe do with a fleet of versions, asked of rollouts by evidence."""

import copy
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet_server.evidence_world import Fleet, act, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import World, make_bundle

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


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """A fleet on which the first version is everywhere; its server is closed, its folder is for copies."""
    folder = tmp_path_factory.mktemp("everywhere")
    world, first = World.open(folder / "data"), make_bundle(folder / "first")
    open_fleet(world, DEVICES)
    fleet = Fleet(world, first)
    fleet.tick()
    rollout_id = start(world, world.push(first), **EVERYBODY)
    for _ in range(60):
        fleet.tick()
        if value(world, rollout_id).state.value == "completed":
            world.close()
            return fleet
    raise AssertionError("the first version did not get everywhere")


@pytest.fixture
def fleet(everywhere: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A copy of it that a test may change."""
    before = everywhere.world
    shutil.copytree(before.services.config.data_dir, tmp_path / "data")
    world = World.open(tmp_path / "data")
    world.clock.now, world.devices = before.clock.now, copy.deepcopy(before.devices)
    own = Fleet(world, everywhere.bundle, told=dict(everywhere.told))
    yield own
    own.world.close()


def test_two_versions_are_split_by_cohort_and_each_device_keeps_its_own_over_restarts(fleet: Fleet, tmp_path: Path) -> None:
    world, first = fleet.world, fleet.bundle
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


def test_a_canary_goes_from_a_tenth_to_a_half_and_back_to_the_last_good_version(fleet: Fleet, tmp_path: Path) -> None:
    world, first = fleet.world, fleet.bundle
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


def test_a_canary_that_does_well_becomes_the_version_of_everybody(fleet: Fleet, tmp_path: Path) -> None:
    world = fleet.world
    fleet.bundle = second = make_bundle(tmp_path / "second", "two", seed=1)
    rollout_id = start(world, world.push(second, "2"), **CANARY)
    for _ in range(120):
        fleet.tick()
        if value(world, rollout_id).state.value == "completed":
            break

    assert {device.running for device in world.devices.values()} == {second.digest}
