"""The journal: good records survive, a torn tail does not."""

import errno
from pathlib import Path

import pytest

from device_agent.update import journal as journal_module
from device_agent.update.disk import Disk
from device_agent.update.journal import Journal, frame, read_frames
from edgefleet.errors import StorageError


def make(path: Path, records: int) -> bytes:
    journal = Journal(path, Disk())
    for i in range(records):
        journal.append({"n": i})
    return path.read_bytes()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    make(tmp_path / "journal", 3)
    assert [r["n"] for r in Journal(tmp_path / "journal", Disk()).records] == [0, 1, 2]


@pytest.mark.parametrize("tail", [b"\x05", frame(b'{"n": 9}')[:-1], b"\0" * 4096, frame(b'{"n": 9}')[:-3] + b"xyz", b"\xff" * 20])
def test_a_damaged_tail_is_cut_away_and_counted(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "journal"
    good = make(path, 3)
    path.write_bytes(good + tail)

    journal = Journal(path, Disk())

    assert (len(journal.records), journal.torn_tails) == (3, 1)
    assert path.read_bytes() == good


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_journal_cut_anywhere_gives_a_prefix_and_takes_new_records(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    path.write_bytes(make(path, 3)[:-cut])

    journal = Journal(path, Disk())
    kept = [r["n"] for r in journal.records]
    journal.append({"n": 99})

    assert kept == list(range(len(kept)))
    assert [r["n"] for r in Journal(path, Disk()).records] == [*kept, 99]


def test_a_record_that_the_disk_took_in_part_is_gone_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    make(path, 1)
    failing = [True]

    def half(name: str, where: Path) -> None:
        if name == "append" and failing[0]:
            with where.open("ab") as stream:
                stream.write(b"\x10\x00")
            raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(path, Disk(half))
    with pytest.raises(StorageError, match="the disk is full"):
        journal.append({"n": 1})
    failing[0] = False
    journal.append({"n": 2})

    assert [r["n"] for r in Journal(path, Disk()).records] == [0, 2]


def test_a_grown_journal_becomes_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_BYTES", 100)
    path = tmp_path / "journal"
    make(path, 20)

    assert Journal(path, Disk()).compact({"n": "all"})

    assert [r["n"] for r in Journal(path, Disk()).records] == ["all"]


def test_a_length_that_cannot_be_ends_the_log() -> None:
    assert read_frames(frame(b"x" * 100), limit_bytes=50) == ([], 0)
