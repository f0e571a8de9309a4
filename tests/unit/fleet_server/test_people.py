"""`edgefleet people` over HTTP to a real server: who is added can approve, who is removed can do nothing any more."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from edgefleet.cli.main import edgefleet
from edgefleet.client import FleetClient, ServerRefusedError
from edgefleet.errors import ConfigError, EdgefleetError, InputError
from fleet_server import audit
from tests.unit.fleet_server.server_world import POLICY, World, make_bundle

Run = Callable[..., Result]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    opened.enroll("d0", tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def url(world: World) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, world.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(world: World, url: str) -> Run:
    def call(*words: str, token: str = "") -> Result:
        return CliRunner().invoke(edgefleet, [*words, "--server", url], env={"EDGEFLEET_TOKEN": token or world.admin_token()})

    return call


def added(run: Run, tmp_path: Path, name: str, role: str = "operator") -> str:
    done = run("people", "add", name, "--role", role, "--out", str(tmp_path / f"{name}.token"), "--reason", "on call")
    assert done.exit_code == 0, done.exception
    return (tmp_path / f"{name}.token").read_text().strip()


def refused(result: Result) -> str:
    assert isinstance(result.exception, EdgefleetError), result.output
    return str(result.exception)


def test_two_people_who_were_added_by_command_approve_what_a_third_one_planned(run: Run, world: World, tmp_path: Path) -> None:
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    tokens = {name: added(run, tmp_path, name) for name in ("anna", "ben", "cleo")}
    (tmp_path / "policy.toml").write_text(json_toml(POLICY | {"approvals": 2}))
    made = run("rollout", "create", "--release", release_id, "--policy", str(tmp_path / "policy.toml"), "--json", token=tokens["anna"])
    rollout_id = json.loads(made.output)["rollout_id"]
    digest = json.loads(run("rollout", "approve", rollout_id, "--json").output)["digest"]
    seen = json.loads(run("rollout", "status", rollout_id, "--json").output)
    assert seen["missing"] == "2 operators or admins other than anna must approve it first."
    assert next(one for one in seen["actions"] if one["name"] == "start")["refused"] == seen["missing"]

    assert "anna planned rollout" in refused(run("rollout", "approve", rollout_id, "--plan", digest, token=tokens["anna"]))
    assert run("rollout", "approve", rollout_id, "--plan", digest[:12], token=tokens["ben"]).exit_code == 1
    assert "1 of 2 approvals are there (ben)" in refused(run("rollout", "start", rollout_id, token=tokens["anna"]))
    assert run("rollout", "approve", rollout_id, "--plan", digest[:12], token=tokens["cleo"]).exit_code == 0
    assert json.loads(run("rollout", "status", rollout_id, "--json").output)["missing"] == "A person starts it."
    assert "(running," in run("rollout", "start", rollout_id, token=tokens["anna"]).output


def test_who_is_removed_can_do_nothing_at_once_and_others_can(run: Run, tmp_path: Path) -> None:
    anna, ben = added(run, tmp_path, "anna"), added(run, tmp_path, "ben", "viewer")

    assert run("people", "remove", "anna", "--reason", "left").exit_code == 0

    assert "unknown, expired or revoked" in refused(run("rollout", "status", token=anna))
    assert run("rollout", "status", token=ben).exit_code == 0
    assert [one["name"] for one in json.loads(run("people", "list", "--json").output)] == ["admin", "ben"]
    assert "person 'anna' does not exist" in refused(run("people", "remove", "anna", "--reason", "left"))
    assert added_again(run, tmp_path) == "operator"


def added_again(run: Run, tmp_path: Path) -> str:
    """Role of a person who comes back."""
    done = run("people", "add", "anna", "--role", "operator", "--out", str(tmp_path / "again"), "--reason", "is back", "--json")
    return str(json.loads(done.output)["role"])


def test_what_would_make_two_people_one_or_leave_nobody_to_add_people_is_refused(run: Run, tmp_path: Path) -> None:
    anna = added(run, tmp_path, "anna")
    out = ("--out", str(tmp_path / "x"), "--reason", "r")

    assert "anna is operator until" in refused(run("people", "add", "anna", "--role", "admin", *out))
    assert "part of the server" in refused(run("people", "add", "engine", "--role", "viewer", *out))
    assert "'An na' is not an identifier" in refused(run("people", "add", "An na", "--role", "viewer", *out))
    assert "nobody but admin is admin" in refused(run("people", "remove", "admin", "--reason", "r"))
    assert "anna is operator; this needs admin" in refused(run("people", "list", token=anna))
    assert not (tmp_path / "x").exists()


def test_a_token_lasts_a_moment_to_ten_years(run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "x"), "--reason", "r")
    for days in ("0", "-1", "3661"):
        done = run("people", "add", "anna", "--role", "viewer", "--days", days, *out)
        assert isinstance(done.exception, InputError)
        assert f"days = {days} is outside" in str(done.exception)
    for days in ("nan", "inf"):
        assert f"days = {days} is no finite number" in refused(run("people", "add", "anna", "--role", "viewer", "--days", days, *out))
    assert run("people", "add", "anna", "--role", "viewer", "--days", "3660", *out).exit_code == 0


def test_nobody_is_added_whose_token_could_not_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    unwritable = Path("/proc/anna.token")  # for the administrator of the machine too
    for path, words in (
        (tmp_path / "there", "exists; nobody was added"),
        (tmp_path / "no" / "x", "there is no folder"),
        (unwritable, "nobody was added"),
    ):
        done = run("people", "add", "anna", "--role", "viewer", "--out", str(path), "--reason", "r")
        assert isinstance(done.exception, ConfigError)
        assert words in str(done.exception)
    assert [one["name"] for one in json.loads(run("people", "list", "--json").output)] == ["admin"]
    assert (tmp_path / "there").read_text() == "mine"


def test_a_refused_person_leaves_no_token_file_and_a_token_file_is_for_its_owner_only(run: Run, tmp_path: Path) -> None:
    added(run, tmp_path, "anna")
    refused(run("people", "add", "anna", "--role", "admin", "--out", str(tmp_path / "x"), "--reason", "r"))

    assert (tmp_path / "anna.token").stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir() if "token" in one.name or one.name == "x"] == ["anna.token"]


def test_the_log_says_who_added_and_removed_whom_and_holds_no_token(run: Run, world: World, url: str, tmp_path: Path) -> None:
    token = added(run, tmp_path, "anna")
    run("people", "remove", "anna", "--reason", "left the company")

    log = [one for one in FleetClient(url, world.admin_token()).events() if one["action"].endswith("-person")]
    assert [(one["actor"], one["action"]) for one in log] == [("admin", "add-person"), ("admin", "remove-person")]
    assert "person anna: operator until" in log[0]["detail"]
    assert "on call" in log[0]["detail"]
    assert "left the company" in log[1]["detail"]
    assert token not in json.dumps(log)
    with world.services.db.read() as connection:
        assert audit.verify(connection) >= 2
    with pytest.raises(ServerRefusedError):
        FleetClient(url, token).rollouts()


def json_toml(document: dict[str, object]) -> str:
    """A policy as TOML: plain keys, and one table."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in document.items() if not isinstance(value, dict)]
    tables = [f"[{key}]\n{json_toml(value)}" for key, value in document.items() if isinstance(value, dict)]
    return "\n".join([*plain, *tables])
