"""Workers of a search that are killed, and two that share one: real processes, real kill -9, a real PostgreSQL."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.trainer.search_worker import run
from tests.unit.trainer.test_trainer_search import url, without_time
from trainer.search import SearchResult

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts worker processes; those that a failed test left behind are ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(storage: str, trials: int, hold: int = 0) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.unit.trainer.search_worker", storage, str(trials), str(hold)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def held(process: "subprocess.Popen[str]") -> None:
    """Wait until the worker stands in the middle of a trial."""
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"


def results_of(*processes: "subprocess.Popen[str]") -> list[SearchResult]:
    """Let the workers go on, all of them first, and read their results."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [msgspec.json.decode(process.communicate(timeout=120)[0], type=SearchResult) for process in processes]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a private PostgreSQL on a socket in a folder of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        missing = "no PostgreSQL under /usr/lib/postgresql: apt-get install postgresql"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    folder = Path(tempfile.mkdtemp(prefix="ef-pg-"))
    who: dict[str, Any] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    quiet: dict[str, Any] = {
        "check": True,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "cwd": folder,
        "timeout": 120,
        **who,
    }
    data, options = folder / "data", f"-c listen_addresses='' -c fsync=off -k {folder}"
    try:
        subprocess.run([programs[-1] / "initdb", "-D", data, "-U", "edgefleet", "-A", "trust", "-E", "UTF8", "--no-locale"], **quiet)
        subprocess.run([programs[-1] / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start"], **quiet)
        try:
            yield f"postgresql://edgefleet@/postgres?host={folder}"
        finally:
            subprocess.run([programs[-1] / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: str) -> str:
    """URL of an empty database of this test's own."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.replace("/postgres?", f"/{name}?")


def test_a_killed_search_goes_on_and_ends_as_one_that_was_never_killed(tmp_path: Path, start: Start) -> None:
    whole = run(url(tmp_path, "whole"), 14)

    for own_trial in (3, 2, 5):
        process = start(url(tmp_path, "killed"), 14, own_trial)
        held(process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    resumed = results_of(start(url(tmp_path, "killed"), 14))[0]

    assert without_time(resumed) == without_time(whole)
    assert resumed.parameters == whole.parameters
    assert resumed.lost == 3
    assert [trial["number"] for trial in resumed.trials] == list(range(14))


def test_a_trial_of_a_living_worker_is_not_taken_for_lost(tmp_path: Path, start: Start) -> None:
    first = start(url(tmp_path), 6, 2)
    held(first)
    second = start(url(tmp_path), 6, 3)
    held(second)

    results = results_of(first, second)

    assert results[0].lost == results[1].lost == 0
    assert [trial["number"] for trial in results[1].trials] == list(range(6))


def test_two_workers_share_one_search_on_postgresql(database: str, start: Start) -> None:
    workers = [start(database, 9, 1) for _ in range(2)]
    for worker in workers:
        held(worker)  # both stand in a trial of their own at the same time

    results = results_of(*workers)

    assert without_time(results[0]) == without_time(results[1])
    assert [trial["number"] for trial in results[0].trials] == list(range(9))
    assert {trial["state"] for trial in results[0].trials} == {"complete"}
    assert results[0].lost == 0


@pytest.mark.conversions
def test_the_survivor_does_the_trial_of_a_worker_killed_beside_it(database: str, start: Start) -> None:
    victim, survivor = start(database, 7, 1), start(database, 7, 1)
    held(victim)
    held(survivor)
    os.kill(victim.pid, signal.SIGKILL)

    result = results_of(survivor)[0]

    assert [trial["number"] for trial in result.trials] == list(range(7))
    assert result.lost == 1


@pytest.mark.conversions
def test_a_killed_search_on_postgresql_ends_as_one_that_was_never_killed(tmp_path: Path, database: str, start: Start) -> None:
    process = start(database, 12, 6)
    held(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    resumed = results_of(start(database, 12))[0]

    assert without_time(resumed) == without_time(run(url(tmp_path), 12))
    assert resumed.lost == 1
