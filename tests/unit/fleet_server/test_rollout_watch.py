"""`edgefleet rollout watch` over HTTP to a real server: what a terminal shows, what a pipe gets, and a server that is restarted."""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import BaseWSGIServer, make_server

from edgefleet.cli.rollout_watch import columns, follow
from edgefleet.client import FleetClient
from edgefleet.errors import TransportError
from fleet_server import usecases
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, World, make_bundle

EVERY_S = 0.02


class Terminal(io.StringIO):
    """Standard output that says it is a terminal, and does something after each screen."""

    def __init__(self, after: Callable[[int], None]) -> None:
        super().__init__()
        self._after, self._screens = after, 0

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self._screens += 1
        self._after(self._screens)

    def screens(self) -> list[list[str]]:
        """The lines of each screen, without control characters."""
        return [re.sub(r"\x1b\[[0-9]*[A-Z]", "", one).rstrip("\n").split("\n") for one in self.getvalue().split("\x1b[H")[1:]]


class Server:
    """The API of a world on a port that stays the same over restarts."""

    def __init__(self, world: World) -> None:
        self._world, self.port = world, 0
        self._server: BaseWSGIServer | None = None

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self.port, self._world.app, threaded=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(18):
        opened.enroll(f"d{number:02}", tmp_path, site="s")
    yield opened
    opened.close()


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    made = Server(world)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(world: World, server: Server) -> FleetClient:
    return FleetClient(f"http://127.0.0.1:{server.port}", world.admin_token())


@pytest.fixture
def rollout_id(world: World, tmp_path: Path) -> str:
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    policy = POLICY | {"waves": [1, 2, 4, 8, 16, "100%"]}
    return usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={}, actor=OPERATOR).rollout_id


def abort(world: World, rollout_id: str) -> None:
    usecases.rollout_action(world.services, rollout_id, "abort", version=1, reason="enough", actor=OPERATOR)


def watched(client: FleetClient, rollout_id: str, **more: Any) -> int:
    """Exit code of a watch."""
    with pytest.raises(SystemExit) as ended:
        follow(client, rollout_id, EVERY_S, **more)
    return int(ended.value.code or 0)


def test_a_screen_of_80_columns_and_24_lines_shows_the_sentence_first_and_never_scrolls(
    world: World, client: FleetClient, rollout_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal(lambda screens: abort(world, rollout_id) if screens == 2 else None)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")

    assert watched(client, rollout_id) == 1

    first, *_, last = terminal.screens()
    assert first[0].startswith(f"{rollout_id} (draft, version 1): Waiting: 18 devices")
    assert last[0].startswith(f"{rollout_id} (discarded, version 2)")
    assert all(len(screen) < 24 and max(map(len, screen)) <= 80 for screen in terminal.screens())
    assert any(line.endswith("more lines") for line in first)
    assert first[-1].startswith("Looked at every")
    assert "Ctrl-C" not in last[-1]


def test_a_pipe_gets_one_line_per_change_and_no_control_character(
    world: World, client: FleetClient, rollout_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    abort(world, rollout_id)

    assert watched(client, rollout_id) == 1

    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{rollout_id} (discarded, version 2): ")
    assert line.isprintable()
    assert columns() is None


def test_a_server_that_is_restarted_does_not_end_a_watch(
    world: World, server: Server, client: FleetClient, rollout_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def restart(screens: int) -> None:
        if screens == 1:
            server.stop()
            again.start()

    def later() -> None:
        abort(world, rollout_id)
        server.start()

    again = threading.Timer(0.2, later)
    monkeypatch.setattr(sys, "stdout", Terminal(restart))

    assert watched(client, rollout_id) == 1

    again.join()
    said = capsys.readouterr().err
    assert said.count("does not answer") == 1
    assert "asked again for 5 minutes" in said


def test_a_server_that_never_answered_ends_a_watch_at_once(server: Server, client: FleetClient, rollout_id: str) -> None:
    server.stop()

    with pytest.raises(TransportError):
        follow(client, rollout_id, EVERY_S)
