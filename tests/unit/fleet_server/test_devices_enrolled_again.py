"""The id of a removed device, enrolled again: another device, for which nothing of the first one speaks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgefleet.signing import SigningKey
from fleet_server import queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.store import stays
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, MadeBundle, SimulatedDevice, World, make_bundle
from tests.unit.fleet_server.steered import complete, small_fleet, start, tick
from tests.unit.fleet_server.test_devices_removed import asked, remove, view, wave


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 5, lambda number: {"site": "north", "hall": str(number % 2)})


def again(world: World, folder: Path, device_id: str) -> SimulatedDevice:
    """Another device under the id of a removed one, with a key of its own."""
    (folder / "again").mkdir(exist_ok=True)
    return world.enroll(device_id, folder / "again", site="south")


def test_the_id_of_a_removed_device_belongs_to_another_device_without_its_past(world: World, bundle: MadeBundle, tmp_path: Path) -> None:
    rollout_id = start(world, world.push(bundle))
    complete(world, rollout_id, bundle)
    old = world.devices["d1"]
    counter = old.counter
    remove(world, "d1")

    new = again(world, tmp_path, "d1")
    world.receive(new.presence(), new.heartbeat())

    with world.services.db.read() as connection:
        assert stays.of_devices(connection, ["d1"], PROJECT) == {}
    shown = queries.device(world.services.db, "d1", world.clock()).device
    assert (shown.removed_at, shown.rows_total, shown.running_digest, shown.labels) == (None, 0, "", {"site": "south"})
    # What it reports is no late failure of the rollout that the first one went through.
    new.counter = counter + 1
    world.receive(*new.fail(bundle))
    tick(world)
    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(ROLLOUT_MEMBER.c.failed_at).where(ROLLOUT_MEMBER.c.device_id == "d1")) is None
    second = start(world, world.push(make_bundle(tmp_path / "newer", "two"), "2"), waves=["100%"])
    wanted = world.desired("d1")
    assert wanted is not None
    assert wanted.rollout == second
    assert new.counter > counter


def test_a_device_of_the_same_id_does_not_speak_for_the_removed_one_in_an_open_rollout(
    world: World, bundle: MadeBundle, tmp_path: Path
) -> None:
    rollout_id = start(world, world.push(bundle))
    device = asked(world, bundle)
    world.receive(*device.install(bundle)[:2])
    remove(world, device.device_id)
    tick(world)
    new = again(world, tmp_path, device.device_id)

    new.counter, new.running, new.model = device.counter + 1, bundle.digest, bundle.manifest.variants[0].model_digest
    world.receive(new.presence(), new.reported("committed", bundle.digest), new.window(bundle))
    tick(world, 10.0)

    member = view(world, rollout_id).waves[0].members[0]
    assert (member.progress, member.reason) == ("pending", "removed from the fleet, neither a success nor a failure")
    assert wave(world, rollout_id) == 1


def test_the_key_of_a_removed_device_does_not_come_back(world: World, tmp_path: Path) -> None:
    remove(world, "d1")
    key = SigningKey.load_or_create(tmp_path / "d1.key").public.hex

    with pytest.raises(ConflictError, match="this key is that of the device 'd1' that was removed"):
        usecases.enroll_device(world.services, device_id="d1", project=PROJECT, public_key=key, labels={}, actor=OPERATOR)
