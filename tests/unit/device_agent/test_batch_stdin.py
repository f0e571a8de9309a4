"""Rows of a pipe are answered one by one, as they come."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.device_agent.batch_world import child, command, csv_text, environment, rows
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
        assert running.wait(30) == 0


def test_csv_of_a_pipe_is_answered_as_csv_and_its_summary_goes_to_stderr(bundle: Path) -> None:
    done = child("--bundle", bundle, "--format", "csv", "--json", "-", stdin=csv_text(rows(3)).encode() + b"1,2\n")

    lines = done.stdout.decode().splitlines()
    assert (done.returncode, len(lines), lines[0].split(",")[0]) == (3, 5, "row")
    summary = json.loads(done.stderr.decode().splitlines()[0])
    assert (summary["offered"], summary["scored"], summary["rejected"]) == (4, 3, {"count": 1})


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--resume", "-"], 2, "a pipe cannot be read twice"),
        (["--format", "parquet", "-"], 3, "Parquet cannot be read from a pipe"),
        (["--output-format", "parquet", "-"], 3, "Parquet cannot be written to a stream"),
        (["--delimiter", "ab", "-"], 3, "is not one character"),
        (["--model", "m", "-"], 2, "belong to --url"),
        (["--watch", ".", "-"], 2, "name either INPUT"),
        (["--format", "oip", "--explain", "-"], 3, "say themselves what they want"),
    ],
)
def test_options_that_contradict_each_other_are_said(bundle: Path, arguments: list[str], code: int, words: str) -> None:
    done = child("--bundle", bundle, *arguments)
    assert (done.returncode, words in done.stderr.decode(), b"Traceback" in done.stderr) == (code, True, False)
