import os
from pathlib import Path

import pytest

from edgefleet.files import write_durably
from edgefleet.report.table import table


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_durably(tmp_path / "deep" / "x", b"old")
    write_durably(tmp_path / "deep" / "x", b"new", mode=0o600)
    assert (tmp_path / "deep" / "x").read_bytes() == b"new"
    assert os.listdir(tmp_path / "deep") == ["x"]
    assert (tmp_path / "deep" / "x").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("x")
    with pytest.raises(OSError, match="directory"):
        write_durably(tmp_path / "folder", b"cannot replace a folder that holds a file")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_table_aligns_numbers_right_and_words_left() -> None:
    assert table(["name", "n"], [["a", 1], ["bcd", 1234]]).splitlines() == ["name     n", "----  ----", "a        1", "bcd   1234"]
