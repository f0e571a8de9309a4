"""A watched directory: every complete file is scored once, whatever restarts between."""

import fcntl
import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from device_agent import Scorer
from device_agent.doors.batch.folder import WatchedFolder
from device_agent.doors.batch.planning import Wishes
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import eventually
from tests.unit.device_agent.batch_world import child, command, csv_text, environment, lines_of, ndjson_text, rows, score, table_of
from tests.unit.device_agent.bundles import logistic_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logistic_bundle(tmp_path_factory.mktemp("bundle")).folder


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def look(bundle: Path, inbox: Path, output: Path | None = None, stop_after: int = 10**9) -> WatchedFolder:
    """One look of a process of its own."""
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_after

    with Scorer.open(bundle) as scorer:
        watched = WatchedFolder(inbox, scorer, Wishes(), output, keep_bad=True)
        watched.look(stopped)
    return watched


def test_complete_files_are_scored_beside_themselves_and_unfinished_ones_are_left_alone(bundle: Path, inbox: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(10)) + "x\n")
    (inbox / "b.ndjson").write_text(ndjson_text(rows(7)))
    for name in (".c.csv", "d.csv.partial", "e.csv.tmp", "notes.txt"):
        (inbox / name).write_text(csv_text(rows(3)))

    watched = look(bundle, inbox)

    assert (watched.files, watched.tally.scored, watched.tally.refused) == (2, 17, 1)
    assert len(table_of(inbox / "a.scores.csv")) == 11
    assert len(lines_of(inbox / "b.scores.ndjson")) == 7
    assert lines_of(inbox / "a.csv.bad.ndjson")[0]["row"] == 11
    assert len(list(inbox.glob("*.scores.*"))) == 4  # two answers, two journals


def test_nothing_is_scored_twice_by_the_next_look_or_the_next_process(bundle: Path, inbox: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(10)))
    look(bundle, inbox)
    before = (inbox / "a.scores.csv").stat()
    (inbox / "a.scores.csv.journal").chmod(0o444)

    again = look(bundle, inbox)

    assert again.files == 0
    assert (inbox / "a.scores.csv").stat() == before


def test_a_file_interrupted_in_the_middle_is_finished_by_the_next_process(bundle: Path, inbox: Path, tmp_path: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(5000)))
    first = look(bundle, inbox, stop_after=3)
    assert (first.files, (inbox / "a.scores.csv").exists()) == (0, False)

    second = look(bundle, inbox)

    score(bundle, inbox / "a.csv", tmp_path / "whole.csv")
    assert second.files == 1
    assert json.loads((inbox / "a.scores.csv.journal").read_text())["tally"]["offered"] == 5000
    assert (inbox / "a.scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_another_file_under_the_same_name_is_scored_anew(bundle: Path, inbox: Path, tmp_path: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(10)))
    look(bundle, inbox)
    (tmp_path / "a.csv").write_text(csv_text(rows(4)))
    (tmp_path / "a.csv").rename(inbox / "a.csv")

    assert look(bundle, inbox).files == 1
    assert len(table_of(inbox / "a.scores.csv")) == 4


def test_a_file_that_is_none_is_noted_once_and_stops_nobody(bundle: Path, inbox: Path) -> None:
    (inbox / "bad.csv").write_bytes(b"")
    (inbox / "bad.parquet").write_bytes(b"PAR1")
    (inbox / "good.csv").write_text(csv_text(rows(5)))

    first, second = look(bundle, inbox), look(bundle, inbox)

    assert (first.files, first.failed, second.failed) == (1, 2, 0)
    noted = json.loads((inbox / "bad.scores.csv.journal").read_text())
    assert (noted["state"], "is empty" in noted["why"]) == ("failed", True)


def test_answers_may_go_to_another_folder(bundle: Path, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (inbox / "a.csv").write_text(csv_text(rows(5)))
    look(bundle, inbox, tmp_path / "outbox")
    assert [path.name for path in inbox.iterdir()] == ["a.csv"]
    assert len(table_of(tmp_path / "outbox" / "a.scores.csv")) == 5


def test_a_folder_that_is_not_there_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        look(bundle, tmp_path / "none")


def test_the_command_watches_until_sigterm_and_survives_kill_9(bundle: Path, inbox: Path, tmp_path: Path) -> None:
    asked = command("--bundle", bundle, "--watch", inbox, "--json")

    def arrive(name: str, n: int) -> Path:
        (tmp_path / name).write_text(csv_text(rows(n)))
        shutil.move(tmp_path / name, inbox / name)
        return inbox / name.replace(".csv", ".scores.csv")

    with (tmp_path / "log").open("w") as log:
        with subprocess.Popen(asked, env=environment(), stderr=log) as first:
            answers = arrive("a.csv", 10)
            eventually("answers of a.csv", answers.exists)
            eventually("journal of a.csv", lambda: json.loads(journal(answers))["state"] == "done")
            first.kill()
        late = arrive("b.csv", 20)
        with subprocess.Popen(asked, env=environment(), stderr=log, stdout=subprocess.PIPE) as second:
            eventually("answers of b.csv", late.exists)
            eventually("journal of b.csv", lambda: json.loads(journal(late))["state"] == "done")
            second.send_signal(signal.SIGTERM)
            said = second.communicate(timeout=90)[0]

    assert second.returncode == 0
    assert json.loads(said)["files"] == 1
    assert len(table_of(answers)) == 10
    assert child("--bundle", bundle, "--watch", inbox, "--once").returncode == 0


def journal(answers: Path) -> str:
    return answers.with_name(answers.name + ".journal").read_text()


def test_a_file_whose_answers_another_process_writes_is_left_to_it_and_taken_up_when_it_is_gone(bundle: Path, inbox: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(5)))
    with (inbox / "a.scores.csv.partial").open("wb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        watched = look(bundle, inbox)

    assert (watched.files, watched.failed, (inbox / "a.scores.csv.journal").exists()) == (0, 0, False)
    assert look(bundle, inbox).files == 1
    assert len(table_of(inbox / "a.scores.csv")) == 5


def test_watchers_that_begin_at_once_score_every_file_once_between_them(bundle: Path, inbox: Path) -> None:
    for number in range(20):
        (inbox / f"{number}.csv").write_text(csv_text(rows(30)))
    together, watched = threading.Barrier(4), list[WatchedFolder]()

    def watch() -> None:
        with Scorer.open(bundle) as scorer:
            one = WatchedFolder(inbox, scorer, Wishes(), keep_bad=True)
            together.wait()
            one.look(lambda: False)
            watched.append(one)

    threads = [threading.Thread(target=watch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [one.failed for one in watched] == [0] * 4
    assert sum(one.files for one in watched) == 20
    assert {len(table_of(inbox / f"{number}.scores.csv")) for number in range(20)} == {30}
    assert not [path.name for path in inbox.iterdir() if path.suffix in (".lock", ".partial")]


def test_the_lock_that_a_killed_process_left_behind_keeps_nobody_out(bundle: Path, inbox: Path) -> None:
    (inbox / "a.csv").write_text(csv_text(rows(5)))
    (inbox / "a.scores.csv.lock").touch()

    assert look(bundle, inbox).files == 1
    assert not (inbox / "a.scores.csv.lock").exists()
