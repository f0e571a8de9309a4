"""`edgefleet agent` as the processes that people and containers start."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.hostile_graphs import hostile
from tests.unit.device_agent.agent_world import (
    enroll,
    eventually,
    make_bundle,
    rows,
    weights,
)
from tests.unit.device_agent.whole_agent import COMMAND, ENVIRONMENT, surrounded


def run(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True, text=True, timeout=60, env=ENVIRONMENT)


@contextmanager
def agent(folder: Path, sensor: Path) -> Iterator["subprocess.Popen[str]"]:
    options = ["--sensor", str(sensor), "--window-seconds", "1", "--heartbeat-seconds", "1", "--memory-mb", "50"]
    with (folder.parent / "agent.log").open("a") as log:
        child = subprocess.Popen([*COMMAND, "run", "--dir", str(folder), *options], stderr=log, text=True, env=ENVIRONMENT)
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


def test_rows_are_scored_from_stdin_with_the_three_strongest_inputs(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1))

    done = run("score", "--bundle", str(tmp_path / "bundle"), "--explain", "-", stdin="[1, 2, 3, 4, 5]\n\n[0, 0, 0, 0, 0]\n")

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(answers) == 2
    assert answers[0]["label"] in {"low", "mid", "high"}
    assert len(answers[0]["explanation"]) == 3


def test_a_hostile_bundle_is_refused_in_a_child_and_nothing_is_scored(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1), graph=hostile("endless loop"), explain=False)

    done = run("score", "--bundle", str(tmp_path / "bundle"), "-", stdin="[1, 2, 3, 4, 5]\n")

    assert (done.returncode, done.stdout) == (1, "")
    assert "does not pass its self-test here and is not opened: onnx-fp32.onnx: operator 'Loop' may run without end" in done.stderr


def test_a_bad_row_is_answered_in_its_place_and_makes_exit_code_3(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1))

    done = run(
        "score",
        "--bundle",
        str(tmp_path / "bundle"),
        "-",
        stdin='[1, 2]\nnonsense\n[1, "x", 3, 4, 5]\n[1, 2, 3, 4, 999]\n[1, 2, 3, 4, 5]\n',
    )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert [answer.get("reason") for answer in answers] == ["count", "type", "type", "range", None]
    assert "4 rows were rejected" in done.stderr


def test_a_folder_that_was_not_enrolled_is_exit_code_3_with_the_remedy(tmp_path: Path) -> None:
    done = run("run", "--dir", str(tmp_path))

    assert done.returncode == 3
    assert "edgefleet enroll" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_check_of_a_folder_without_agent_is_exit_code_1(tmp_path: Path) -> None:
    done = run("status", "--dir", str(tmp_path), "--check")

    assert done.returncode == 1
    assert "is the agent running" in done.stderr


@pytest.mark.broker
@pytest.mark.slow
def test_an_agent_process_survives_kill_9_and_stops_on_sigterm_with_exit_code_0(tmp_path: Path) -> None:
    sensor, bundle = tmp_path / "sensor", make_bundle(tmp_path / "bundle", weights(1))
    sensor.touch()
    with surrounded(tmp_path) as world:
        world.blobs.add(bundle)
        world.want(bundle.digest)
        enrolled = world.enrolled

        def committed() -> bool:
            with sensor.open("a") as stream:
                stream.writelines(json.dumps([float(v) for v in row]) + "\n" for row in rows(5))
            return world.state() == "committed"

        with agent(enrolled.folder, sensor) as first:
            eventually("commit", committed, 60.0)
            eventually("health", lambda: run("status", "--dir", str(enrolled.folder), "--check").returncode == 0)
            first.kill()
            first.wait()
        dead = run("status", "--dir", str(enrolled.folder), "--check")
        with agent(enrolled.folder, sensor) as second:

            def rows_answered() -> bool:
                committed()
                document = json.loads(run("status", "--dir", str(enrolled.folder), "--json").stdout)
                because = document["variant_because"].startswith("onnx-fp32 is the first of 1 variants that this device can run")
                return bool(document["pid"] == second.pid and document["rows"] > 0 and document["running"] == bundle.digest and because)

            eventually("answers after the restart", rows_answered, 60.0)
            second.send_signal(signal.SIGTERM)
            code = second.wait(90)

        assert (dead.returncode, "is gone" in dead.stderr) == (1, True)
        assert code == 0
        eventually("offline", lambda: world.fleet.presence() == "offline")


def test_a_second_agent_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    folder = enroll(tmp_path / "device").folder
    sensor = tmp_path / "sensor"
    with agent(folder, sensor):
        eventually("the first agent", (folder / "health.json").exists)

        done = run("run", "--dir", str(folder))

    assert done.returncode == 3
    assert "another agent (process" in done.stderr


def test_the_status_shows_what_the_agent_watches_about_itself(tmp_path: Path) -> None:
    folder = enroll(tmp_path / "device").folder
    sensor = tmp_path / "sensor"
    with agent(folder, sensor):
        eventually("health", (folder / "health.json").exists)
        shown = dict(line.split(maxsplit=1) for line in run("status", "--dir", str(folder)).stdout.splitlines()[1:] if " " in line)
        document = json.loads(run("status", "--dir", str(folder), "--json").stdout)

    assert shown["versions"].startswith(f"python {document['versions']['python']}")
    assert shown["clock_offset_ms"].strip() == "-"
    assert int(shown["disk_free_bytes"]) > 0
    assert (document["rows_lost"], document["rows_sent"], document["clock_jumps"]) == (0, 0, 0)
