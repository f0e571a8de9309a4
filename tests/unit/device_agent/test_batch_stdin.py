"""Rows of a pipe are answered one by one, as they come."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgefleet.cli.agent_score import score_rows
from edgefleet.errors import ConfigError
from tests.unit.device_agent.batch_world import child, command, csv_text, environment, ndjson_text, rows
from tests.unit.device_agent.bundles import logistic_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logistic_bundle(tmp_path_factory.mktemp("bundle")).folder


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_every_line_is_answered_before_the_next_one_is_sent(bundle: Path, kind: str) -> None:
    with subprocess.Popen(
        command("--bundle", bundle, "--format", kind, "--output-format", "ndjson", "-"),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        if kind == "csv":
            running.stdin.write(b"f0,f1,f2,f3,f4\n")
        for number in range(1, 6):
            running.stdin.write(b"[1,2,3,4,5]\n" if kind == "ndjson" else b"1,2,3,4,5\n")
            running.stdin.flush()
            answer = json.loads(running.stdout.readline())
            assert (answer["row"], answer["status"]) == (number, "ok")
        running.stdin.close()
        assert running.wait(90) == 0


def test_csv_of_a_pipe_is_answered_as_csv_and_its_summary_goes_to_stderr(bundle: Path) -> None:
    done = child("--bundle", bundle, "--format", "csv", "--json", "-", stdin=csv_text(rows(3)).encode() + b"1,2\n")

    lines = done.stdout.decode().splitlines()
    assert (done.returncode, len(lines), lines[0].split(",")[0]) == (3, 5, "row")
    summary = json.loads(done.stderr.decode().splitlines()[0])
    assert (summary["offered"], summary["scored"], summary["rejected"]) == (4, 3, {"count": 1})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--resume", "-"], click.UsageError, "a pipe cannot be read twice"),
        (["--format", "parquet", "-"], ConfigError, "Parquet cannot be read from a pipe"),
        (["--output-format", "parquet", "-"], ConfigError, "Parquet cannot be written to a stream"),
        (["--delimiter", "ab", "-"], ConfigError, "is not one character"),
        (["--model", "m", "-"], click.UsageError, "belong to --url"),
        (["--watch", ".", "-"], click.UsageError, "name either INPUT"),
        (["--url", "http://127.0.0.1:1", "-"], click.UsageError, "name either --bundle"),
        (["--format", "oip", "--explain", "-"], ConfigError, "say themselves what they want"),
        (["--group", "machine", "-"], ConfigError, "are for models of windows"),
    ],
)
def test_options_that_contradict_each_other_are_said(bundle: Path, arguments: list[str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        score_rows.main(["--bundle", str(bundle), *arguments], standalone_mode=False)


def test_how_far_the_run_is_is_shown_to_a_person(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(ndjson_text(rows(2000)) * 12)
    asked = command("--bundle", bundle, tmp_path / "in.ndjson", "--output", tmp_path / "out.csv")
    terminal, other = pty.openpty()
    try:
        subprocess.run(asked, env=environment(), stderr=other, check=True, timeout=60)
        shown = os.read(terminal, 65_536).decode()
    finally:
        os.close(terminal)
        os.close(other)
    assert re.search(r"\d+ %  [\d,]+ rows", shown)


def test_the_door_opens_without_parquet_and_pandas() -> None:
    probe = "import sys, device_agent.doors.batch.planning; print(sorted({'pyarrow', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_reader_that_goes_away_is_no_error(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text(ndjson_text(rows(2000)) * 5)
    line = " ".join(shlex.quote(word) for word in command("--bundle", bundle, tmp_path / "in.ndjson"))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -n 1; exit ${{PIPESTATUS[0]}}"], env=environment(), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr, done.stdout.count(b"\n")) == (0, b"", 1)
