"""The command line against a server process: push, enrol, plan, steer, look; and its refusals."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.locks import FolderLock
from tests.integration.test_server_broker import ServerProcess
from tests.unit.fleet_server.server_world import make_bundle

POLICY = """
name = "quick"
waves = [1, "100%"]
soak_s = 1.0
soak_rows = 1
deadline_s = 60.0
hold_s = 60.0
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server"), ["--port", "0"])
    process.start()
    yield process
    assert process.end(signal.SIGTERM) == 0


def run(server: ServerProcess, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    url = json.loads((server.data / "server.json").read_text())["url"]
    values = {"EDGEFLEET_SERVER": url, "EDGEFLEET_TOKEN_FILE": str(server.data / "admin.token")} | environment
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EDGEFLEET")}
    command = [sys.executable, "-m", "edgefleet", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=kept | values, timeout=60)


def in_terminal(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """Exit code and screen of a command whose output is a terminal."""
    url = json.loads((server.data / "server.json").read_text())["url"]
    values = {"EDGEFLEET_SERVER": url, "EDGEFLEET_TOKEN_FILE": str(server.data / "admin.token"), "COLUMNS": "120", "LINES": "40"}
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-m", "edgefleet", *arguments], stdout=theirs, stdin=theirs, env=dict(os.environ) | values)
    os.close(theirs)
    screen = b""
    while True:
        try:
            more = os.read(ours, 65_536)
        except OSError:  # the other end was closed: Linux says so by an error
            break
        if not more:
            break
        screen += more
    os.close(ours)
    return child.wait(timeout=60), screen.decode()


def document(server: ServerProcess, *arguments: str) -> Any:
    result = run(server, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_a_release_goes_from_a_bundle_to_a_rollout_by_commands_alone(server: ServerProcess, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "policy.toml").write_text(POLICY)
    enrolled = document(
        server, "enroll", "--device", "press-7", "--project", "digits", "--label", "site=north", "--dir", str(tmp_path / "d")
    )
    release = document(server, "push", str(bundle.folder), "--version", "1", "--note", "first")

    dry = document(
        server,
        "rollout",
        "plan",
        "--release",
        release["release_id"],
        "--policy",
        str(tmp_path / "policy.toml"),
        "--select",
        "site=north",
        "--devices",
    )
    default = run(server, "rollout", "plan", "--release", release["release_id"])
    plan = document(
        server, "rollout", "create", "--release", release["release_id"], "--policy", str(tmp_path / "policy.toml"), "--select", "site=north"
    )
    started = document(server, "rollout", "start", plan["rollout_id"], "--version", str(plan["version"]))
    explained = run(server, "rollout", "explain", plan["rollout_id"])
    aborted = document(server, "rollout", "abort", plan["rollout_id"], "--reason", "enough")
    watched = run(server, "rollout", "watch", plan["rollout_id"])
    for_machines = run(server, "rollout", "status", plan["rollout_id"], "--watch", "--json")
    code, screen = in_terminal(server, "rollout", "status", plan["rollout_id"], "--watch")

    assert enrolled == {
        "device_id": "press-7",
        "project": "digits",
        "labels": {"site": "north"},
        "dir": str(tmp_path / "d"),
        "fleet": "fleet",
    }
    assert oct((tmp_path / "d" / "identity.json").stat().st_mode & 0o777) == "0o600"
    assert oct((tmp_path / "d" / "device.key").stat().st_mode & 0o777) == "0o600"
    assert [wave["device_ids"] for wave in dry["waves"]] == [["press-7"]]
    assert default.returncode == 0, default.stderr
    assert "Nothing was changed." in default.stdout
    assert "With 1 devices nothing can prove 5 %" in default.stdout
    assert "wave 1 of 1" in explained.stdout, explained.stderr
    # Watching ends with the rollout, and the exit code says that it was not completed.
    assert (watched.returncode, watched.stdout.count("(aborted, version")) == (1, 1)
    assert "\x1b" not in watched.stdout
    assert (for_machines.returncode, json.loads(for_machines.stdout)["state"]) == (1, "aborted")
    assert code == 1
    assert screen.startswith("\x1b[2J\x1b[H")  # cleared once, then drawn from the corner
    assert "press-7" in screen
    assert (plan["state"], started["state"], aborted["state"]) == ("draft", "running", "aborted")
    assert [row["device_id"] for row in document(server, "devices", "list", "--label", "site=north")] == ["press-7"]
    assert document(server, "rollout", "status")[0]["rollout_id"] == plan["rollout_id"]
    assert document(server, "drift")["sentence"] == "No drift round has run yet."
    for words in (("devices",), ("rollout", "status"), ("rollout", "status", plan["rollout_id"]), ("drift",)):
        shown = run(server, *words)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.strip()


@pytest.mark.slow
def test_refusals_are_one_line_with_the_documented_exit_code(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("eft_wrong\n")

    unknown = run(server, "rollout", "pause", "nothing")
    stranger = run(server, "devices", "--token-file", str(tmp_path / "bad"))
    no_bundle = run(server, "push", str(tmp_path), "--version", "1")
    away = run(server, "devices", EDGEFLEET_SERVER="http://127.0.0.1:9")
    exposed = run(server, "serve", "--data", str(tmp_path / "x"), "--host", "0.0.0.0")  # noqa: S104  # that is the point

    assert [r.returncode for r in (unknown, stranger, no_bundle, away, exposed)] == [3, 3, 3, 4, 3]
    for result, words in ((unknown, "nothing"), (stranger, "token"), (no_bundle, "manifest"), (away, "does not answer"), (exposed, "TLS")):
        assert result.stderr.startswith("edgefleet: ")
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


@pytest.mark.slow
def test_a_second_server_on_the_folder_is_refused_and_the_first_stays_to_be_found(server: ServerProcess) -> None:
    first = json.loads((server.data / "server.json").read_text())

    second = run(server, "serve", "--data", str(server.data), "--port", "0")

    assert second.returncode == 3
    assert f"another fleet server (process {first['pid']}) runs on this folder" in second.stderr
    assert json.loads((server.data / "server.json").read_text()) == first
    assert document(server, "devices") is not None


@pytest.mark.slow
def test_a_start_that_fails_leaves_neither_a_lock_nor_the_address_of_a_server_that_was_killed(
    server: ServerProcess, tmp_path: Path
) -> None:
    first = json.loads((server.data / "server.json").read_text())
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": 1, "port": 1}))

    failed = run(server, "serve", "--data", str(tmp_path), "--port", str(first["port"]))

    assert failed.returncode == 3
    assert "cannot be listened on" in failed.stderr
    assert not (tmp_path / "server.json").exists()
    FolderLock(tmp_path / "lock", "fleet server").release()


@pytest.mark.slow
def test_rows_are_allowed_shown_and_forbidden_by_commands(server: ServerProcess, tmp_path: Path) -> None:
    document(server, "enroll", "--device", "press-8", "--project", "digits", "--label", "site=south", "--dir", str(tmp_path / "d"))

    before = run(server, "devices", "show", "press-8")
    (ordered,) = document(server, "devices", "sampling", "--project", "digits", "--select", "site=south", "--rate", "12.5", "--until", "2h")
    listed = run(server, "devices", "sampling")
    after = run(server, "devices", "show", "press-8")
    samples = run(server, "devices", "samples", "press-8")
    stopped = run(server, "devices", "sampling", "press-8", "--off")
    again = run(server, "devices", "sampling", "press-8", "--off")

    assert "load: not told yet" in before.stdout
    assert "rows that may leave it: none; 0 rows arrived" in before.stdout
    assert (ordered["device_id"], ordered["rows_per_hour"], ordered["redact"], ordered["ordered_by"]) == ("press-8", 12.5, [], "admin")
    assert "press-8" in listed.stdout
    assert "12.5 an hour until" in after.stdout
    assert samples.stdout.split()[:4] == ["arrived", "release", "answer", "score"]
    assert stopped.stdout == "No row may leave press-8 any more.\n"
    assert again.stdout == "None of these devices had an order; nothing was changed.\n"
    assert document(server, "devices", "sampling") == []
    assert document(server, "devices", "show", "press-8", "--hours", "3")["observed"]["windows"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--rate", "5"), 2, "name devices"),
        (("press-7",), 2, "either --rate or --off"),
        (("press-7", "--rate", "5", "--off"), 2, "either --rate or --off"),
        (("press-7", "--select", "a=b", "--project", "p", "--rate", "5"), 2, "either devices, or --project"),
        (("--select", "a=b", "--rate", "5"), 2, "--project and --select"),
        (("nobody", "--rate", "5"), 3, "'nobody' does not exist"),
        (("press-7", "--rate", "5", "--until", "soon"), 3, "'soon' is not understood"),
        (("press-7", "--rate", "5", "--until", "2026-03-01T12:00"), 3, "no time zone"),
        (("press-7", "--rate", "5", "--until", "40d"), 3, "at most 31 days"),
        (("press-7", "--rate", "4000"), 3, "at most 3600"),
    ],
)
def test_an_order_that_is_not_clear_is_refused_and_changes_nothing(
    server: ServerProcess, words: tuple[str, ...], code: int, said: str
) -> None:
    refused = run(server, "devices", "sampling", *words)

    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert document(server, "devices", "sampling") == []
