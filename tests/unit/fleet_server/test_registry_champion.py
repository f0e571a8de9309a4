"""What is in service is registered: a real database and engine, and an MLflow that is away when a test says so.

The invented MLflow obeys the rules of the real one (a version is found again by its digest); the real one is in tests/integration.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgefleet.digests import sha256_file
from edgefleet.errors import ConfigError, InputError, TransportError
from edgefleet.manifest import parse_manifest
from fleet_server import audit, queries, usecases
from fleet_server.config import ServerConfig
from fleet_server.registry import Registrar
from tests.unit.fleet_server.server_world import OPERATOR, World, make_bundle
from tests.unit.fleet_server.steered import complete, start, tick, wanting

URL = "http://127.0.0.1:9"
AWAY = "MLflow is away"


@dataclass
class InventedMlflow:
    """Versions by name and digest, one alias per name."""

    away: bool = False
    versions: dict[str, list[str]] = field(default_factory=dict)
    champion: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    answered: threading.Event = field(default_factory=threading.Event)

    def register(self, folder: Path, name: str) -> str:
        self.calls += 1
        if self.away:
            raise TransportError(AWAY)
        for file, entry in parse_manifest((folder / "manifest.json").read_bytes()).files.items():
            assert sha256_file(folder / file) == entry.sha256
        digests = self.versions.setdefault(name, [])
        digest = sha256_file(folder / "manifest.json")
        if digest not in digests:
            digests.append(digest)
        self.champion[name] = str(digests.index(digest) + 1)
        self.answered.set()
        return self.champion[name]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(3):
        device = opened.enroll(f"d{number}", tmp_path, site="north")
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


@pytest.fixture
def mlflow() -> InventedMlflow:
    return InventedMlflow()


@pytest.fixture
def registrar(world: World, mlflow: InventedMlflow) -> Registrar:
    return Registrar(world.services, URL, mlflow.register)


def put_in_service(world: World, folder: Path, version: str) -> str:
    """The release that a completed rollout brought to every device."""
    bundle = make_bundle(folder / f"b{version}", version)
    release_id = world.push(bundle, version)
    complete(world, start(world, release_id), bundle)
    return release_id


def lines(world: World, action: str) -> list[str]:
    return [event.detail for _, event in queries.events(world.services.db) if event.action == action]


def test_the_release_of_a_completed_rollout_is_registered_once_and_logged(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    release_id = put_in_service(world, tmp_path, "7")

    assert registrar.register_due()
    assert registrar.register_due()

    assert mlflow.calls == 1
    assert lines(world, "register") == [f"release {release_id}: registered digits 7 in MLflow as digits version 1, alias champion"]
    note = queries.release(world.services.db, release_id).registry
    assert note is not None
    assert (note.name, note.version, note.registered_at, note.trouble) == ("digits", "1", world.clock(), "")
    assert list((tmp_path / "data").glob("mlflow-*")) == []


def test_what_is_not_completed_is_not_registered(world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    start(world, world.push(bundle))

    assert registrar.register_due()

    assert mlflow.calls == 0
    assert queries.releases(world.services.db)[0].registry is None


def test_a_rollout_of_the_older_release_moves_the_alias_back_to_its_own_version(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    moved = []
    for version in ("1", "2"):
        put_in_service(world, tmp_path, version)
        registrar.register_due()
        moved.append(mlflow.champion["digits"])
    first, bundle = queries.releases(world.services.db)[-1], make_bundle(tmp_path / "again", "1")

    complete(world, start(world, first.release_id), bundle)
    registrar.register_due()
    moved.append(mlflow.champion["digits"])

    assert moved == ["1", "2", "1"]
    assert len(mlflow.versions["digits"]) == 2
    noted = {row.version: row.registry for row in queries.releases(world.services.db)}
    assert noted["2"] is None
    assert noted["1"] is not None


def test_a_rollout_that_is_rolled_back_leaves_the_alias_where_it_is(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    put_in_service(world, tmp_path, "1")
    registrar.register_due()
    bundle = make_bundle(tmp_path / "b2", "2")
    rollout_id = start(world, world.push(bundle, "2"))
    for device_id in sorted(wanting(world, bundle)):
        world.receive(*world.devices[device_id].install(bundle))
    tick(world)
    view = queries.rollout(world.services.db, rollout_id, world.clock())

    usecases.rollout_action(world.services, rollout_id, "roll-back", version=view.version, reason="no", actor=OPERATOR)
    registrar.register_due()

    assert mlflow.calls == 1
    assert mlflow.champion["digits"] == "1"


def test_an_mlflow_that_hangs_delays_no_decision_and_is_given_the_release_when_it_comes_back(
    world: World, mlflow: InventedMlflow, tmp_path: Path
) -> None:
    asked, released = threading.Event(), threading.Event()

    def hang(folder: Path, name: str) -> str:
        if not released.is_set():
            asked.set()
            assert released.wait(120)
            raise TransportError(AWAY)
        return mlflow.register(folder, name)

    put_in_service(world, tmp_path, "1")
    registrar = Registrar(world.services, URL, hang, first_pause_s=0.01)
    registrar.start()
    assert asked.wait(60)

    second = put_in_service(world, tmp_path, "2")
    page = world.client().get("/api/v1/releases", headers={"Authorization": f"Bearer {world.admin_token()}"})
    assert page.status_code == 200
    assert mlflow.calls == 0
    released.set()
    assert mlflow.answered.wait(45)
    registrar.stop(timeout_s=60)

    assert lines(world, "register")[-1].startswith(f"release {second}: registered digits 2 in MLflow")
    note = queries.release(world.services.db, second).registry
    assert note is not None
    assert note.trouble == ""
    with world.services.db.read() as connection:
        assert audit.verify(connection) > 0


def test_a_completed_rollout_wakes_the_registrar(world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path) -> None:
    registrar.start()

    put_in_service(world, tmp_path, "1")

    assert mlflow.answered.wait(45), "the next look of its own would come after a minute"
    registrar.stop(timeout_s=60)


def test_the_same_trouble_is_one_line_in_the_log_however_often_it_is_tried(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    release_id = put_in_service(world, tmp_path, "1")
    mlflow.away = True

    tries = [registrar.register_due() for _ in range(3)]
    world.clock.move(60)
    tries.append(registrar.register_due())

    assert tries == [False] * 4
    assert lines(world, "register-failed") == [f"release {release_id}: {AWAY}"]
    note = queries.release(world.services.db, release_id).registry
    assert note is not None
    assert (note.version, note.trouble, note.tried_at) == ("", AWAY, world.clock())
    needed = queries.overview(world.services.db, world.clock()).needs_you
    assert [(line.severity, line.detail) for line in needed] == [("notice", AWAY)]


def test_trouble_is_over_when_the_registered_release_is_in_service_again(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    first = put_in_service(world, tmp_path, "1")
    registrar.register_due()
    mlflow.away = True
    put_in_service(world, tmp_path, "2")
    registrar.register_due()
    assert queries.overview(world.services.db, world.clock()).needs_you != []

    complete(world, start(world, first), make_bundle(tmp_path / "again", "1"))

    assert registrar.register_due()
    assert queries.overview(world.services.db, world.clock()).needs_you == []
    assert mlflow.calls == 2


def test_a_server_killed_between_mlflow_and_its_own_note_makes_no_second_version(
    world: World, mlflow: InventedMlflow, tmp_path: Path
) -> None:
    put_in_service(world, tmp_path, "1")

    def killed_after(folder: Path, name: str) -> str:
        mlflow.register(folder, name)
        raise SystemExit

    with pytest.raises(SystemExit):
        Registrar(world.services, URL, killed_after).register_due()
    assert Registrar(world.services, URL, mlflow.register).register_due()

    assert len(mlflow.versions["digits"]) == 1
    assert len(lines(world, "register")) == 1


def test_a_start_removes_what_a_killed_server_left_half_way(world: World, registrar: Registrar, tmp_path: Path) -> None:
    left = tmp_path / "data" / "mlflow-abc" / "r1"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")

    registrar.start()
    registrar.stop(timeout_s=60)

    assert not left.parent.exists()


def test_a_file_that_is_gone_is_trouble_of_its_project_and_ends_no_thread(
    world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path
) -> None:
    release_id = put_in_service(world, tmp_path, "1")
    digest = make_bundle(tmp_path / "again", "1").manifest.variants[0].model_digest
    world.services.blobs.path(digest).unlink()

    assert not registrar.register_due()

    note = queries.release(world.services.db, release_id).registry
    assert note is not None
    assert digest in note.trouble
    assert mlflow.calls == 0


def test_another_mlflow_server_is_given_it_too(world: World, mlflow: InventedMlflow, registrar: Registrar, tmp_path: Path) -> None:
    put_in_service(world, tmp_path, "1")
    registrar.register_due()
    other = InventedMlflow()

    Registrar(world.services, "http://127.0.0.1:10", other.register).register_due()

    assert (mlflow.calls, other.champion) == (1, {"digits": "1"})


def test_two_fleets_with_prefixes_have_aliases_of_their_own(tmp_path: Path, mlflow: InventedMlflow) -> None:
    for fleet in ("berlin", "essen"):
        world = World.open(tmp_path / fleet, fleet=fleet, mlflow_prefix=fleet)
        device = world.enroll("d0", tmp_path / fleet)
        world.receive(device.presence(), device.heartbeat())
        put_in_service(world, tmp_path / fleet, "1")
        Registrar(world.services, URL, mlflow.register).register_due()
        world.close()

    assert mlflow.champion == {"berlin-digits": "1", "essen-digits": "1"}


def test_settings_that_cannot_work_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mlflow = 'mlflow\.db' is no server's address"):
        ServerConfig(data_dir=tmp_path, mlflow_url="mlflow.db")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD"):
        ServerConfig(data_dir=tmp_path, mlflow_url="https://anna:secret@mlflow.example.org")
    with pytest.raises(InputError, match="mlflow prefix 'A/B' is not an identifier"):
        ServerConfig(data_dir=tmp_path, mlflow_url=URL, mlflow_prefix="A/B")
