"""The broker's password file: no line is lost, and only a broker that listens for it is told to reload."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.errors import ConfigError
from fleet_server.enroll.credentials import give_password, take_password

ENROL = """
import sys
from pathlib import Path
from fleet_server.enroll.credentials import give_password
print("ready", flush=True)
sys.stdin.readline()
for number in range(25):
    give_password(f"{sys.argv[2]}-{number}", Path(sys.argv[1]), None)
"""
# A shell that ends with 7 at a hangup, and says when it is ready for it.
LISTENS = "trap 'exit 7' HUP; echo ready; while :; do read line || exit 0; done"
DEAF = "echo ready; read line"


def test_processes_that_enrol_at_once_keep_each_other_s_lines(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    command = [sys.executable, "-c", ENROL, str(file)]
    processes = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "abc"]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n")

    assert [process.returncode for process in processes] == [0, 0, 0]
    users = [line.partition(":")[0] for line in file.read_text().splitlines()]
    assert sorted(users) == sorted(f"{name}-{number}" for name in "abc" for number in range(25))


def told_to_reload(tmp_path: Path, script: str) -> "subprocess.Popen[str]":
    """A process whose id stands in the pid file when a device is enrolled."""
    process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "pid").write_text(f"{process.pid}\n")
    give_password("d0", tmp_path / "passwords", tmp_path / "pid")
    return process


def test_a_broker_that_listens_is_told_to_reload(tmp_path: Path) -> None:
    with told_to_reload(tmp_path, LISTENS) as broker:
        assert broker.wait(60) == 7


def test_a_process_that_has_the_id_of_a_broker_that_is_gone_is_not_ended(tmp_path: Path) -> None:
    with told_to_reload(tmp_path, DEAF) as stranger:
        stranger.communicate("go on\n")

        assert stranger.returncode == 0


@pytest.mark.parametrize("content", [None, ""])
def test_a_broker_that_is_not_there_or_writes_its_pid_file_at_this_moment_is_not_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "pid").write_text(content)

    give_password("d0", tmp_path / "passwords", tmp_path / "pid")
    take_password("d0", tmp_path / "passwords", tmp_path / "pid")

    assert (tmp_path / "passwords").read_text() == ""


def test_a_removal_that_is_tried_again_tells_the_broker_although_the_line_is_gone(tmp_path: Path) -> None:
    passwords, pid_file = tmp_path / "passwords", tmp_path / "pid"
    give_password("d0", passwords, None)
    pid_file.write_text("not a number")
    with pytest.raises(ConfigError, match="no process id of the broker in it"):
        take_password("d0", passwords, pid_file)
    with subprocess.Popen(["sh", "-c", LISTENS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        assert broker.stdout.readline() == "ready\n"
        pid_file.write_text(f"{broker.pid}\n")

        take_password("d0", passwords, pid_file)

        assert broker.wait(60) == 7


@pytest.mark.parametrize("pid", ["-1", "0", "1", str(2**31), "9" * 40])
def test_a_number_that_is_no_process_id_is_refused(tmp_path: Path, pid: str) -> None:
    (tmp_path / "pid").write_text(pid)

    with pytest.raises(ConfigError, match="is no process id of a broker; name the file"):
        give_password("d0", tmp_path / "passwords", tmp_path / "pid")
