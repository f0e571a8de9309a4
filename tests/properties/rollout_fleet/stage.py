"""A whole fleet in one thread: the real store, scheduler, relay and ingest; simulated devices, broker, clock, people and deaths.

After each commit of any process the invariants look at what stands in the database now (`watch`).
"""

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest import mock

from edgefleet.errors import EdgefleetError
from edgefleet.messages import encode
from edgefleet.signing import PublicKey, SigningKey
from fleet_server import usecases
from fleet_server.approving import approvals_of, approve_rollout
from fleet_server.auth import Actor
from fleet_server.flooring import raise_floor
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.read_models import RolloutView
from fleet_server.rollout.transitions import FINAL
from fleet_server.scheduler.loop import Scheduler
from fleet_server.scheduler.relay import Relay
from fleet_server.selection import Document
from fleet_server.services import Services
from fleet_server.store import Database
from fleet_server.store.database import FILE_NAME
from fleet_server.store.moments import to_micros
from tests.properties.rollout_fleet.broker import Broker, Link
from tests.properties.rollout_fleet.device import FieldDevice
from tests.properties.rollout_fleet.kept import Broken
from tests.properties.rollout_fleet.process import Killed, ProcessDatabase
from tests.properties.rollout_fleet.seen import NOTHING, Eye, Seen
from tests.unit.fleet_server.server_world import PROJECT, START, Clock, MadeBundle, World, make_bundle, window_body

PEOPLE: Final = (Actor("olga", "operator"), Actor("anton", "admin"), Actor("otto", "operator"), Actor("vera", "viewer"))
RELEASES: Final = 4
LATE_DEVICES: Final = 4
FLEETS: Final = (6, 8, 11)
SITES: Final = ("north", "south", "west")
ZONES: Final = ("Europe/Berlin", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Nowhere/Lost", "Europe/Berlin", "")


def labels_of(number: int) -> dict[str, str]:
    """Labels of the device with that number; one in seven says nothing of its time."""
    zone = ZONES[number % len(ZONES)]
    return {"site": SITES[number % 3], "hardware": "ab"[number % 2], "region": "eu"} | ({"time-zone": zone} if zone else {})


@dataclass(frozen=True)
class Template:
    """A fleet before its first rollout: a data folder to copy, and what the devices must know."""

    folder: Path
    services: Services
    bundles: tuple[MadeBundle, ...]
    release_ids: tuple[str, ...]
    windows: dict[str, bytes]
    keys: dict[str, SigningKey]
    enrolled: tuple[str, ...]


class Templates:
    """Made once per process: migrations and uploads are not what is tested here."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rollout-fleet-")
        atexit.register(self._folder.cleanup)
        self._made: dict[int, Template] = {}

    def of(self, devices: int) -> Template:
        """A fleet of so many devices."""
        if devices not in self._made:
            self._made[devices] = _template(Path(self._folder.name) / str(devices), devices)
        return self._made[devices]


def _template(folder: Path, devices: int) -> Template:
    world = World.open(folder / "data")
    bundles = tuple(make_bundle(folder / f"bundle{n}", f"graph {n}", seed=n) for n in range(RELEASES))
    release_ids = tuple(world.push(bundle, str(n + 1)) for n, bundle in enumerate(bundles))
    keys = {f"d{n:02}": SigningKey.load_or_create(folder / f"d{n:02}.key") for n in range(devices + LATE_DEVICES)}
    for number, device_id in enumerate(list(keys)[:devices]):
        device = world.enroll(device_id, folder, **labels_of(number))
        world.receive(device.presence(), device.heartbeat())
    services = world.services
    world.close()
    windows = {bundle.digest: encode(window_body(bundle, 20)) for bundle in bundles}
    return Template(folder / "data", services, bundles, release_ids, windows, keys, tuple(list(keys)[:devices]))


@dataclass
class Server:
    """One process: it decides, publishes, takes reports in."""

    db: ProcessDatabase
    services: Services
    scheduler: Scheduler
    relay: Relay


@dataclass
class Stage:
    """Everything that a step may touch."""

    template: Template
    watchers: list[Callable[["Stage", Seen, Seen], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rollout-stage-")
        # Salts and nonces must be the same when a sequence of steps is repeated, else Hypothesis cannot repeat what it found.
        self._drawn = 0
        self._secrets = mock.patch("secrets.token_hex", self._token)
        self._secrets.start()
        path = Path(self._folder.name) / FILE_NAME
        shutil.copyfile(self.template.folder / FILE_NAME, path)
        self.shared = Database(f"sqlite:///{path}")
        self.eye = Eye(str(path))
        self.clock, self.broker = Clock(START + timedelta(minutes=1)), Broker()
        self.devices: dict[str, FieldDevice] = {}
        self.deaths = 0
        self.broken: Broken | None = None
        self.history: dict[tuple[str, int], bytes] = {}
        self.servers = [self._process(), self._process()]
        for device_id in self.template.enrolled:
            self._add(device_id)
        self.before = self.seen = NOTHING
        self.watch()

    def close(self) -> None:
        """Let files and connections go."""
        self._secrets.stop()
        self.eye.close()
        self.shared.close()
        self._folder.cleanup()

    def watch(self) -> None:
        """Look at what was committed, and let the invariants judge it."""
        now = self.eye.look()
        if now is self.seen:
            return
        self.before, self.seen = self.seen, now
        for watcher in self.watchers:
            self.judged(watcher)(self.before, now)

    def judged(self, judge: Callable[..., None]) -> Callable[..., None]:
        """A judge whose finding ends the step, although the scheduler survives exceptions."""

        def ending(*arguments: Any) -> None:
            try:
                judge(self, *arguments)
            except Broken as err:
                self.broken = self.broken or err
                raise Killed from err

        return ending

    def damage(self, sql: str, *values: Any) -> None:
        """Change the database behind everybody's back: nobody committed it, so nobody is judged for it."""
        self.eye.execute(sql, *values)
        self.before = self.seen = self.eye.look()

    def as_server(self, act: Callable[[Server], Any], *, number: int = 0, dies_after: int | None = None) -> Any:
        """Let a process act; if it dies, another one takes its place with an empty memory. Returns None when it died."""
        server = self.servers[number]
        server.db.left = dies_after
        try:
            return act(server)
        except Killed:
            if self.broken is not None:
                raise self.broken from None
            self.deaths += 1
            self.servers[number] = self._process()
            self.watch()
            return None
        finally:
            server.db.left = server.db.let_in = None

    def tick(self, *, number: int = 0, dies_after: int | None = None) -> None:
        """A scheduler decides what is due, and tells a floor that was raised."""

        def work(server: Server) -> None:
            server.scheduler.decide_due()
            server.scheduler.tell_floors()

        self.as_server(work, number=number, dies_after=dies_after)

    def publish(self, *, number: int = 0, dies_after: int | None = None) -> None:
        """A relay publishes what waits."""
        self.as_server(lambda server: server.relay.publish_waiting(), number=number, dies_after=dies_after)

    def receive(self, messages: Sequence[Incoming], *, dies_after: int | None = None) -> None:
        """The ingest stores a batch and acknowledges its records; one that dies first leaves it to the broker."""
        stored = self.as_server(
            lambda server: store_batch(server.db, list(messages), to_micros(self.clock())), number=1, dies_after=dies_after
        )
        if stored is None:
            self.broker.uplink = [*messages, *self.broker.uplink]
            return
        self.broker.remember(list(messages))
        for device_id, said in stored.items():
            self.devices[device_id].acknowledged(said)

    def hear(self, device_id: str) -> None:
        """A device gets the last desired state that the broker keeps for it."""
        content = self.broker.retained.get(device_id)
        if content is not None:
            self.devices[device_id].hear(content)

    def plan(self, release: int, policy: dict[str, Any], selection: Document, person: Actor) -> RolloutView | None:
        """A person plans a rollout; None when it is refused."""
        view: RolloutView | None = self.person(
            lambda services: usecases.create_rollout(
                services, release_id=self.template.release_ids[release], policy=policy, selection=selection, actor=person
            )
        )
        return view

    def raise_floor(self, release: int, person: Actor) -> bool:
        """A person raises the release floor to a release; False when it is there already."""
        release_id = self.template.release_ids[release]
        return (
            self.person(lambda services: raise_floor(services, PROJECT, release_id=release_id, reason="a hole", actor=person)) is not None
        )

    def act(self, rollout_id: str, action: str, person: Actor, *, version: int | None = None) -> bool:
        """A person acts on a rollout; False when it is refused."""
        seen = self.seen.versions[rollout_id] if version is None else version
        done = self.person(
            lambda services: usecases.rollout_action(services, rollout_id, action, version=seen, reason="because", actor=person)
        )
        return done is not None

    def person(self, act: Callable[[Services], Any]) -> Any:
        """Something that a person does; None when the server refuses it with one of its own errors."""
        try:
            return self.as_server(lambda server: act(server.services))
        except EdgefleetError:
            return None

    @property
    def may_approve(self) -> frozenset[str]:
        """Names of the people whose role allows it."""
        return frozenset(one.name for one in PEOPLE if one.role != "viewer")

    def approve(self, rollout_id: str, person: Actor, *, digest: str | None = None) -> bool:
        """A person approves the plan as it is, or another one."""
        known = approvals_of(self.shared, rollout_id).digest if digest is None else digest
        return self.person(lambda services: approve_rollout(services, rollout_id, digest=known, actor=person)) is not None

    def join(self) -> str | None:
        """A device is enrolled; None when there are no more."""
        left = [device_id for device_id in self.template.keys if device_id not in self.devices]
        if not left:
            return None
        device_id, number = left[0], len(self.devices)
        labels = labels_of(number)
        key = self.template.keys[device_id].public.hex
        self._add(device_id)
        self.person(
            lambda services: usecases.enroll_device(
                services, device_id=device_id, project=PROJECT, public_key=key, labels=labels, actor=PEOPLE[0]
            )
        )
        return device_id

    def live(self) -> list[str]:
        """Rollouts that are not over, newest last."""
        return [rollout_id for rollout_id, one in self.seen.rollouts.items() if one.state not in FINAL]

    def due_next(self) -> datetime | None:
        """When the next rollout is due."""
        at = self.eye.value("SELECT min(due_at) FROM rollout WHERE due_at IS NOT NULL")
        return None if at is None else datetime.fromtimestamp(at / 1e6, UTC)

    def _token(self, length: int | None = None) -> str:
        self._drawn += 1
        return hashlib.sha256(f"{self._drawn}".encode()).hexdigest()[: 2 * (length or 32)]

    def _process(self) -> Server:
        db = ProcessDatabase(self.shared, self.watch)
        services = replace(self.template.services, db=db, clock=self.clock)
        relay = Relay(services, Link(self.broker, db.may_die))
        return Server(db, services, Scheduler(services, None), relay)

    def _add(self, device_id: str) -> None:
        models = {bundle.digest: bundle.manifest.variants[0].model_digest for bundle in self.template.bundles}
        services = self.template.services
        director: PublicKey = services.director.public
        self.devices[device_id] = FieldDevice(device_id, self.template.keys[device_id], director, services.config.fleet, models)
