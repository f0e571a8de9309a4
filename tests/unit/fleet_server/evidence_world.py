"""A fleet of devices without models for rollouts by evidence: enrolled at once, heard tick by tick, obeying what the server signed."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgefleet.signing import PublicKey, SigningKey
from fleet_server import queries, usecases
from fleet_server.ingest.inbox import Incoming
from fleet_server.read_models import RolloutView
from fleet_server.rollout import Rollout
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DESIRED, DEVICE, DEVICE_LABEL
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, MadeBundle, SimulatedDevice, World

TICK_S = 10.0
# An hour of real life is forty seconds here: cells of ten, a soak of forty, a deadline of eighty.
POLICY: dict[str, Any] = {
    "name": "evidence",
    "evidence": "auto",
    "soak_s": 40.0,
    "soak_rows": 20,
    "deadline_s": 80.0,
    "hold_s": 2_000.0,
    "dwell_s": 120.0,
    "pace": {"first": 5, "every_s": 60.0, "growth": 2.0},
    "patience_s": 100.0,
    "activation_gap_s": 0.0,
    "gates": {"compare": []},
    "trial": {"soak_s": 1.0, "soak_rows": 5, "timeout_s": 30.0, "min_agreement": 0.8},
}
BATCH = 500


@dataclass
class Fleet:
    """Devices of one world.

    Attributes:
        bad: Whether the release fails on a device.
        dark: Devices that are not heard at all.
    """

    world: World
    bundle: MadeBundle
    bad: Callable[[str], bool] = lambda _device_id: False
    dark: set[str] = field(default_factory=set)
    told: dict[str, int] = field(default_factory=dict)

    def tick(self, times: int = 1) -> None:
        """Time passes: devices obey what is new, say that they live; the server decides."""
        for _ in range(times):
            self.world.clock.move(TICK_S)
            self.receive(self._said())
            Scheduler(self.world.services, None).decide_due()

    def receive(self, messages: Iterable[Incoming]) -> None:
        waiting = list(messages)
        for start in range(0, len(waiting), BATCH):
            self.world.receive(*waiting[start : start + BATCH])

    def _said(self) -> list[Incoming]:
        with self.world.services.db.read() as connection:
            desired = {row.device_id: row for row in connection.execute(sa.select(DESIRED))}
        found: list[Incoming] = []
        for device_id, device in self.world.devices.items():
            if device_id in self.dark:
                continue
            row = desired.get(device_id)
            if row is not None and self.told.get(device_id) != row.counter:
                self.told[device_id] = row.counter
                found += self._obey(device, row.message)
            found.append(device.heartbeat())
        return found

    def _obey(self, device: SimulatedDevice, content: bytes) -> list[Incoming]:
        wanted = device.obey(content)
        if wanted is None:
            device.running = device.model = ""
            return [device.reported("idle")]
        if wanted.bundle_digest != self.bundle.digest:
            device.running = wanted.bundle_digest
            return [device.reported("committed", wanted.bundle_digest)]
        if self.bad(device.device_id):
            return device.fail(self.bundle)
        return [*device.install(self.bundle), device.window(self.bundle)]


def open_fleet(world: World, count: int, *, sites: int = 4, hardware: Sequence[str] = ("a", "b")) -> None:
    """Enrol devices in one transaction, all of them heard."""
    with world.services.db.write() as connection:
        rows, labels = [], []
        for number in range(count):
            device_id = f"d{number:05d}"
            key = SigningKey(hashlib.sha256(device_id.encode()).digest())
            rows.append({"device_id": device_id, "project": PROJECT, "public_key": key.public.hex, "enrolled_at": 0, "enrolled_by": "test"})
            own = {"site": f"s{number % sites}", "hardware": hardware[number % len(hardware)], "region": "eu"}
            labels += [{"key": name, "value": value, "device_id": device_id} for name, value in own.items()]
            director = PublicKey(world.services.director.public.hex)
            world.devices[device_id] = SimulatedDevice(device_id, key, director, world.services.config.fleet)
        connection.execute(sa.insert(DEVICE), rows)
        connection.execute(sa.insert(DEVICE_LABEL), labels)


def start(world: World, release_id: str, selection: dict[str, str] | None = None, **changes: Any) -> str:
    view = usecases.create_rollout(
        world.services, release_id=release_id, policy=POLICY | changes, selection=selection or {}, actor=OPERATOR
    )
    act(world, view.rollout_id, "start")
    Scheduler(world.services, None).decide_due()
    return view.rollout_id


def act(world: World, rollout_id: str, action: str) -> RolloutView:
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    return usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)


def value(world: World, rollout_id: str) -> Rollout:
    with world.services.db.read() as connection:
        stored = rollouts.load(connection, rollout_id)
    assert stored is not None
    return stored.rollout


def asked(world: World, bundle: MadeBundle) -> set[str]:
    """Devices to which the release is assigned."""
    from fleet_server.store.tables import ASSIGNMENT

    with world.services.db.read() as connection:
        return set(connection.scalars(sa.select(ASSIGNMENT.c.device_id).where(ASSIGNMENT.c.bundle_digest == bundle.digest)))


def now_us(world: World) -> int:
    return to_micros(world.clock())


def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"
