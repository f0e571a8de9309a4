"""Run folders: what they keep when all goes well and when it does not."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgefleet.errors import ConfigError
from trainer.runs import EVENTS_NAME, RUN_NAME, Run, git_state, plain_values, read_events, read_run, read_runs


def test_a_finished_run_is_read_back_with_its_phases_environment_and_reason(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.phase("fit"):
        run.record["winner"] = "forest"
    run.finish("refused", "G4 failed")

    (record,) = read_runs(tmp_path)

    assert (record["status"], record["reason"], record["winner"], list(record["seconds"])) == ("refused", "G4 failed", "forest", ["fit"])
    assert record["environment"]["packages"]["numpy"] == np.__version__
    assert record["git"] is None


def test_a_finished_run_may_be_finished_again_with_more(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.finish("packaged")
    run.record["remarks"] = ["the mirror was away"]
    run.finish("packaged")

    assert read_run(tmp_path, run.id)["remarks"] == ["the mirror was away"]


def test_events_are_on_disk_at_once_and_a_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.event("epoch", candidate="mlp", step=1, loss=float("nan"))
    run.event("epoch", candidate="mlp", step=2, loss=0.25)
    with (run.folder / EVENTS_NAME).open("a") as stream:
        stream.write('{"kind": "epo')

    events = read_events(run.folder)

    assert [(event["step"], event["loss"]) for event in events] == [(1, None), (2, 0.25)]
    assert read_events(tmp_path / "absent") == []
    run.finish("packaged")


def test_a_run_that_goes_on_says_running(tmp_path: Path) -> None:
    run = Run(tmp_path)

    assert read_runs(tmp_path)[0]["status"] == "running"
    run.finish("packaged")
    assert read_runs(tmp_path)[0]["status"] == "packaged"


def test_a_killed_run_says_interrupted_and_keeps_what_it_had(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from trainer.runs import Run\n"
        "run = Run(Path(sys.argv[1])); run.record['data_digest'] = 'abc'; run._save('running', ''); run.event('trial', number=0)\n"
        "print('here', flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        alive = read_runs(tmp_path)[0]["status"]
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)

    (record,) = read_runs(tmp_path)
    assert (alive, record["status"], record["data_digest"]) == ("running", "interrupted", "abc")
    assert [event["number"] for event in read_events(tmp_path / record["id"])] == [0]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"status": ', b"[" * 100_000])
def test_a_damaged_record_is_shown_as_unreadable(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "20260101T000000Z-abcdef").mkdir()
    (tmp_path / "20260101T000000Z-abcdef" / RUN_NAME).write_bytes(content)

    (record,) = read_runs(tmp_path)

    assert (record["id"], record["status"]) == ("20260101T000000Z-abcdef", "unreadable")


def test_a_run_is_found_by_the_beginning_or_the_end_of_its_id(tmp_path: Path) -> None:
    for name in ("20260101T000000Z-aaaaaa", "20260101T000000Z-abbbbb", "20260202T000000Z-cccccc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / RUN_NAME).write_text("{}")

    assert read_run(tmp_path, "20260202")["id"] == "20260202T000000Z-cccccc"
    assert read_run(tmp_path, "bbb")["id"] == "20260101T000000Z-abbbbb"
    with pytest.raises(ConfigError, match=r"2 runs fit '202601': .*; write more of the id"):
        read_run(tmp_path, "202601")
    with pytest.raises(ConfigError, match=r"no run 'x'; the newest are .*cccccc; `edgefleet runs list` lists them"):
        read_run(tmp_path, "x")
    with pytest.raises(ConfigError, match="no run 'x'; there are none"):
        read_run(tmp_path / "absent", "x")


def test_a_folder_where_no_run_can_be_made_is_a_setting_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"cannot make the run folder: .*; name another with --runs-dir"):
        Run(tmp_path / "file")


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, timeout=60)


def test_the_commit_is_recorded_and_the_run_folders_alone_do_not_make_it_dirty(tmp_path: Path) -> None:
    project = tmp_path / "repository" / "project"
    project.mkdir(parents=True)
    git(tmp_path / "repository", "init", "-q")
    assert git_state(project) is None, "no commit yet"
    (project / "project.toml").write_text("a")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "first")

    run = Run(project / "runs", project)
    assert run.record["git"]["dirty"] is False
    assert len(run.record["git"]["commit"]) == 40
    (tmp_path / "repository" / "elsewhere").write_text("not this project's")
    assert git_state(project, project / "runs") == run.record["git"]
    (project / "steps.py").write_text("untracked code counts")
    assert git_state(project, project / "runs") == run.record["git"] | {"dirty": True}
    run.finish("packaged")


def test_a_folder_outside_of_any_repository_has_no_commit(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


class Note(msgspec.Struct):
    value: float


def test_values_that_json_does_not_know_cannot_lose_a_record() -> None:
    awkward = {
        1: np.float32(0.5),
        "a": [float("inf"), np.int64(3), np.array([1.0, np.nan])],
        "b": Note(float("nan")),
        "c": Path("x"),
        "d": {2, 1},
    }

    assert plain_values(awkward) == {"1": 0.5, "a": [None, 3, [1.0, None]], "b": {"value": None}, "c": "x", "d": [1, 2]}
    json.dumps(plain_values(awkward), allow_nan=False)
