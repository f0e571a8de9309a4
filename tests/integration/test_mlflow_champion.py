"""The fleet server and a real MLflow server of the pinned version: the alias follows what is in service, whoever is away meanwhile."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from converter.mlmodel import mlflow_files
from edgefleet.digests import sha256_hex
from edgefleet.manifest import FileEntry, manifest_bytes
from edgefleet.ports import free_port
from fleet_server import queries
from fleet_server.registry import Registrar
from tests.integration import foreign
from tests.integration.mlflow_models import DOWNLOAD, LOAD, graph
from tests.integration.test_server_broker import ServerProcess
from tests.unit.fleet_server.server_world import MadeBundle, World, make_bundle
from tests.unit.fleet_server.steered import complete, start

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.environment(tmp_path_factory.mktemp("foreign"), *foreign.MLFLOW)


@pytest.fixture(autouse=True)
def client_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client sets before its import stays inside the test."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        monkeypatch.setenv(name, "true")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data", mlflow_prefix="berlin")
    for number in range(3):
        device = opened.enroll(f"d{number}", tmp_path)
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


def test_the_alias_follows_what_is_in_service_forth_and_back(world: World, python: Path, tmp_path: Path) -> None:
    doubling, squaring = servable_bundle(tmp_path / "b1", "Add"), servable_bundle(tmp_path / "b2", "Mul")
    ids = {bundle.digest: world.push(bundle, version) for bundle, version in ((doubling, "1"), (squaring, "2"))}
    seen = []

    with foreign.mlflow_server(python, tmp_path) as url:
        registrar = Registrar(world.services, url)
        registrar.start()
        for step, bundle in enumerate((doubling, squaring, doubling), start=1):
            complete(world, start(world, ids[bundle.digest]), bundle)
            until_registered(world, step)
            seen.append(json.loads(foreign.run(python, LOAD, url, "berlin-digits", "f0", "f1")))
        files = json.loads(foreign.run(python, DOWNLOAD, url, "berlin-digits"))
        registrar.stop(timeout_s=10)

    assert [entry["answer"] for entry in seen] == [[2.0, 1.0, 4.0, -2.0], [1.0, 0.25, 4.0, 1.0], [2.0, 1.0, 4.0, -2.0]]
    assert files["version"] == "1"
    whole = {"manifest.json": doubling.digest} | {name: entry.sha256 for name, entry in doubling.manifest.files.items()}
    assert whole.items() <= files["digests"].items()
    assert registrations(world) == [
        f"registered digits {version} in MLflow as berlin-digits version {version}, alias champion" for version in ("1", "2", "1")
    ]


def test_a_server_that_began_while_mlflow_was_away_registers_when_it_comes_back(world: World, python: Path, tmp_path: Path) -> None:
    bundle = servable_bundle(tmp_path / "b1", "Add")
    complete(world, start(world, world.push(bundle, "1")), bundle)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = ServerProcess(tmp_path, ["--port", "0", "--mlflow", url])

    def note() -> dict[str, Any]:
        return dict(client.releases()[0]["registry"] or {})

    try:
        client = process.start()
        until(lambda: bool(note().get("trouble")))
        assert note()["version"] == ""
        with foreign.mlflow_server(python, tmp_path, port):
            until(lambda: note()["version"] == "1")
            assert note()["trouble"] == ""
            assert json.loads(foreign.run(python, LOAD, url, "digits", "f0", "f1"))["answer"] == [2.0, 1.0, 4.0, -2.0]
    finally:
        ended = process.end(signal.SIGTERM)

    assert ended == 0
    done = [event.action for _, event in queries.events(world.services.db) if event.actor == "mlflow"]
    assert (done[0], done[-1]) == ("register-failed", "register")
    assert len(done) <= 3, "the same trouble is said once; a port that begins to answer may be trouble of its own"


def registrations(world: World) -> list[str]:
    """What the log says about registrations, oldest first."""
    return [event.detail.split(": ")[1] for _, event in queries.events(world.services.db) if event.action == "register"]


def until_registered(world: World, count: int) -> None:
    """Wait for the registrar's thread, which talks to a program of others."""
    until(lambda: len(registrations(world)) == count)


def until(happened: Callable[[], bool]) -> None:
    """Wait; what is waited for has no signal of its own."""
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in 120 s"
        time.sleep(0.05)


def servable_bundle(folder: Path, operation: str) -> MadeBundle:
    """A bundle with a real graph and the files that make its folder an MLflow model, listed like every other file."""
    made = make_bundle(folder, operation, features=2)
    content = graph(operation)
    variant = made.manifest.variants[0]
    contents = {variant.file: content, **mlflow_files(variant.file, sha256_hex(content), "p" * 64, made.manifest.inputs)}
    for name, text in contents.items():
        (folder / name).write_bytes(text)
    entries = {name: FileEntry(sha256=sha256_hex(text), size_bytes=len(text)) for name, text in contents.items()}
    manifest = msgspec.structs.replace(
        made.manifest,
        variants=[msgspec.structs.replace(variant, model_digest=sha256_hex(content))],
        files=made.manifest.files | entries,
        mlflow=None,
    )
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return MadeBundle(folder, manifest, sha256_hex(manifest_bytes(manifest)), made.reference)
