"""A run that was interrupted anywhere goes on without duplicates or gaps: the result has the bytes of an undisturbed one."""

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from device_agent.doors.batch.journal import journal_of, read_journal
from device_agent.doors.batch.parquet_sink import PART_ROWS
from device_agent.doors.batch.rows import CHUNK_ROWS, Position
from device_agent.doors.batch.sinks import partial_of
from edgefleet.errors import ConfigError, InputError
from tests.unit.device_agent.batch_world import HEADER, NAMES, child, command, csv_text, environment, ndjson_text, rows, score
from tests.unit.device_agent.bundles import logistic_bundle

ROWS = 5000


def stop_after(chunks: int) -> Any:
    left = chunks

    def said(_: Position, __: int | None) -> bool:
        nonlocal left
        left -= 1
        return left == 0

    return said


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logistic_bundle(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows of which every hundredth is bad."""
    lines = csv_text(rows(ROWS)).splitlines(keepends=True)
    for i in range(100, ROWS, 100):
        lines[i] = "x,1,2\n"
    (tmp_path / "in.csv").write_text("".join(lines))
    return tmp_path / "in.csv"


@pytest.mark.parametrize("written", ["csv", "ndjson"])
def test_a_run_stopped_at_every_second_chunk_ends_with_the_undisturbed_bytes(
    bundle: Path, source: Path, tmp_path: Path, written: str
) -> None:
    whole, parts = tmp_path / f"whole.{written}", tmp_path / f"parts.{written}"
    score(bundle, source, whole, bad=tmp_path / "whole.bad.csv")

    for _ in range(2):
        score(bundle, source, parts, bad=tmp_path / "parts.bad.csv", resume=True, said=stop_after(2))
        assert not parts.exists()
    last = score(bundle, source, parts, bad=tmp_path / "parts.bad.csv", resume=True)

    assert parts.read_bytes() == whole.read_bytes()
    assert (tmp_path / "parts.bad.csv").read_bytes() == (tmp_path / "whole.bad.csv").read_bytes()
    assert (last.resumed_at, last.tally.offered, last.tally.rejected) == (4096, ROWS, {"count": 49})
    assert not list(tmp_path.glob("*.partial"))


def test_parquet_goes_on_at_its_last_whole_part_in_the_middle_of_a_row_group(bundle: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    x = rows(2 * PART_ROWS + 5000)
    table = pyarrow.table({name: x[:, i] for i, name in enumerate(NAMES)})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=40_000)
    score(bundle, tmp_path / "in.parquet", tmp_path / "whole.parquet")

    score(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", said=stop_after(PART_ROWS // CHUNK_ROWS))
    (partial_of(tmp_path / "out.parquet") / "draft").write_bytes(b"torn")
    last = score(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", resume=True)

    assert (last.resumed_at, last.tally.scored) == (PART_ROWS, len(x))
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_a_torn_tail_is_cut(bundle: Path, source: Path, tmp_path: Path) -> None:
    score(bundle, source, tmp_path / "whole.csv")
    score(bundle, source, tmp_path / "out.csv", said=stop_after(2))
    with partial_of(tmp_path / "out.csv").open("ab") as stream:
        stream.write(b"2049,ok,no,0.5")

    score(bundle, source, tmp_path / "out.csv", resume=True)

    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("written", ["csv", "parquet"])
def test_a_kill_between_the_last_byte_and_the_journals_last_word_changes_nothing(
    bundle: Path, source: Path, tmp_path: Path, written: str
) -> None:
    output = tmp_path / f"out.{written}"
    score(bundle, source, output, bad=tmp_path / "bad.csv")
    whole, journal = output.read_bytes(), read_journal(journal_of(output))
    assert journal is not None
    journal.state = "placing"
    journal.write(journal_of(output))

    again = score(bundle, source, output, bad=tmp_path / "bad.csv", resume=True)

    assert (output.read_bytes(), again.tally.offered) == (whole, ROWS)


def test_parts_that_were_put_together_are_not_missed_when_some_are_removed_already(bundle: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    score(bundle, source, output)
    whole, journal = output.read_bytes(), read_journal(journal_of(output))
    assert journal is not None
    journal.state = "placing"
    journal.write(journal_of(output))
    output.rename(output.with_name("out.parquet.whole"))
    partial_of(output).mkdir()

    score(bundle, source, output, resume=True)

    assert output.read_bytes() == whole
    assert not partial_of(output).exists()


def test_a_finished_run_asked_for_again_is_done_and_says_the_same(bundle: Path, source: Path, tmp_path: Path) -> None:
    first = score(bundle, source, tmp_path / "out.csv")
    before = (tmp_path / "out.csv").stat()

    again = score(bundle, source, tmp_path / "out.csv", resume=True)

    assert again.tally == first.tally
    assert (tmp_path / "out.csv").stat() == before


def _other_bundle(folder: Path) -> dict[str, Any]:
    return {"bundle": logistic_bundle(folder / "other", columns=3).folder}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_bundle, "the bundle was "),
        (lambda _: {"probabilities": True}, "--probabilities was False"),
        (lambda _: {"missing": ("NA",)}, "--missing was"),
        (lambda _: {"delimiter": ";"}, "--delimiter was ,"),
        (lambda folder: {"bad": folder / "bad.csv"}, "bad rows was False"),
    ],
)
def test_a_resume_with_anything_else_is_refused_by_its_name(bundle: Path, source: Path, tmp_path: Path, change: Any, words: str) -> None:
    score(bundle, source, tmp_path / "out.csv", said=stop_after(1))
    with pytest.raises(InputError, match=words):
        score(**{"bundle": bundle, "source": source, "output": tmp_path / "out.csv", "resume": True, **change(tmp_path)})
    assert partial_of(tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text + "1,2,3,4,5\n", "bytes when in.csv was begun"),
        (lambda text: text.replace("\n0", "\n1", 1), "are not those that were scored"),
    ],
)
def test_a_resume_of_a_changed_input_is_refused(bundle: Path, source: Path, tmp_path: Path, edit: Any, words: str) -> None:
    source.write_text(HEADER + "0.5,2,3,4,5\n" + source.read_text().removeprefix(HEADER))
    score(bundle, source, tmp_path / "out.csv", said=stop_after(1))
    source.write_text(edit(source.read_text()))
    with pytest.raises(InputError, match=words):
        score(bundle, source, tmp_path / "out.csv", resume=True)


def test_an_output_without_journal_is_not_taken_for_a_result_of_this_run(bundle: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("somebody else's")
    with pytest.raises(InputError, match="without a journal"):
        score(bundle, source, tmp_path / "out.csv", resume=True)
    assert (tmp_path / "out.csv").read_text() == "somebody else's"


def test_a_lost_partial_file_and_a_damaged_journal_are_said(bundle: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    score(bundle, source, output, said=stop_after(1))
    os.truncate(partial_of(output), 10)
    with pytest.raises(InputError, match="has 10 bytes, its journal says"):
        score(bundle, source, output, resume=True)
    for damaged in (b"{", b'{"input_name": "\xff"}'):
        journal_of(output).write_bytes(damaged)
        with pytest.raises(InputError, match="the journal cannot be read"):
            score(bundle, source, output, resume=True)


def test_two_processes_cannot_write_one_output(bundle: Path, source: Path, tmp_path: Path) -> None:
    def said(_: Position, __: int | None) -> bool:
        with pytest.raises(ConfigError, match="another process writes it"):
            score(bundle, source, tmp_path / "out.csv")
        return True

    score(bundle, source, tmp_path / "out.csv", said=said)
    assert partial_of(tmp_path / "out.csv").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_who_comes_too_late_takes_nothing_away_from_the_process_that_writes(
    bundle: Path, source: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out.{suffix}"
    score(bundle, source, tmp_path / f"whole.{suffix}")
    score(bundle, source, output, said=stop_after(1))
    before = journal_of(output).read_bytes() if suffix == "csv" else None

    def said(_: Position, __: int | None) -> bool:
        with pytest.raises(ConfigError, match="another process writes it"):
            score(bundle, source, output)
        assert before is None or journal_of(output).exists()
        return False

    score(bundle, source, output, resume=True, said=said)
    assert output.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_a_run_that_begins_anew_forgets_the_receipt_before_it_cuts_the_answers(bundle: Path, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    score(bundle, source, output)
    kept = output.read_bytes()
    score(bundle, source, output, said=stop_after(1))

    assert journal_of(output).exists()
    assert b'"state": "running"' in journal_of(output).read_bytes()
    assert output.read_bytes() == kept
    score(bundle, source, output, resume=True)
    assert output.read_bytes() == kept


def test_kill_9_at_any_moment_leaves_what_a_resume_turns_into_the_undisturbed_bytes(bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.ndjson"
    source.write_text(ndjson_text(rows(60_000)) + "nonsense\n")
    score(bundle, source, tmp_path / "whole.csv", bad=tmp_path / "whole.bad.csv", probabilities=True)
    output, size, kills = tmp_path / "out.csv", 0, 0
    asked = command("--bundle", bundle, source, "--output", output, "--bad", tmp_path / "out.bad.csv", "--probabilities", "--resume")
    for _ in range(4):
        with subprocess.Popen(asked, env=environment(), stderr=subprocess.DEVNULL) as running:
            # Each run is killed when it has written something, each at another point.
            while running.poll() is None and _size(partial_of(output)) <= size:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running.wait(0.002)
            running.send_signal(signal.SIGKILL)
            kills += running.wait() == -signal.SIGKILL
        size = _size(partial_of(output)) + 300_000
    done = child("--bundle", bundle, source, "--output", output, "--bad", tmp_path / "out.bad.csv", "--probabilities", "--resume")

    assert kills >= 2
    assert done.returncode == 3, done.stderr
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "out.bad.csv").read_bytes() == (tmp_path / "whole.bad.csv").read_bytes()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_a_full_disk_leaves_whole_rows_and_a_run_that_can_be_resumed(bundle: Path, source: Path, tmp_path: Path) -> None:
    score(bundle, source, tmp_path / "whole.csv")
    output = tmp_path / "out.csv"
    asked = command("--bundle", bundle, source, "--output", output)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, 250_000))

    full = subprocess.run(asked, env=environment(), capture_output=True, text=True, timeout=60, preexec_fn=small_disk)

    assert full.returncode == 1
    assert "the disk is full; make it writable or make room" in full.stderr
    assert not output.exists()
    assert partial_of(output).read_bytes().endswith(b"\n")
    assert (tmp_path / "whole.csv").read_bytes().startswith(partial_of(output).read_bytes())
    assert child("--bundle", bundle, source, "--output", output, "--resume").returncode == 3
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_journal_is_what_a_person_can_read(bundle: Path, source: Path, tmp_path: Path) -> None:
    score(bundle, source, tmp_path / "out.csv")
    written = msgspec.json.decode((tmp_path / "out.csv.journal").read_bytes())
    assert (written["state"], written["position"]["rows"], written["tally"]["offered"]) == ("done", ROWS, ROWS)
    assert (tmp_path / "out.csv.journal").read_text().count("\n") > 20
