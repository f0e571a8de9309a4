"""A small fleet over a `World`, and steps of a rollout over it: start, let time pass, let every device obey until it is over."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fleet_server import queries, usecases
from fleet_server.scheduler.loop import Scheduler
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, World


def small_fleet(folder: Path, devices: int, labels: Callable[[int], dict[str, str]]) -> Iterator[World]:
    """For fixtures: devices d0, d1 ... that have been heard once."""
    opened = World.open(folder / "data")
    for number in range(devices):
        device = opened.enroll(f"d{number}", folder, **labels(number))
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


def start(world: World, release_id: str, **changes: Any) -> str:
    view = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY | changes, selection={}, actor=OPERATOR)
    usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)
    tick(world)
    return view.rollout_id


def tick(world: World, seconds: float = 0.0) -> None:
    world.clock.move(seconds)
    Scheduler(world.services, None).decide_due()


def wanting(world: World, bundle: MadeBundle) -> set[str]:
    found = set()
    for device_id in world.devices:
        wanted = world.desired(device_id)
        if wanted is not None and wanted.bundle_digest == bundle.digest:
            found.add(device_id)
    return found


def complete(world: World, rollout_id: str, bundle: MadeBundle) -> None:
    """Every device that is asked installs, soaks and scores; until the rollout is over."""
    for _ in range(10):
        for device_id in sorted(wanting(world, bundle)):
            device = world.devices[device_id]
            if device.running != bundle.digest:
                world.receive(*device.install(bundle))
        tick(world, 4.0)
        world.receive(*[world.devices[d].window(bundle) for d in sorted(wanting(world, bundle))])
        tick(world, 0.5)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "completed"
