"""What several processes or threads do to one folder at the same moment."""

import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from edgefleet.errors import ConfigError, StorageError
from edgefleet.files import create_durably
from edgefleet.locks import FolderLock, one_at_a_time
from edgefleet.signing import SigningKey

AT_ONCE = 8

T = TypeVar("T")


def at_once(work: Callable[[int], T]) -> list[T]:
    """What `work(number)` returns in threads that begin in one moment."""
    together = threading.Barrier(AT_ONCE)
    found: dict[int, T] = {}

    def one(number: int) -> None:
        together.wait()
        found[number] = work(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(AT_ONCE)]


def _key_at(path: Path, _: int) -> str:
    return SigningKey.load_or_create(path).public.hex


def test_a_key_that_several_make_at_once_is_one_key(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / f"{number}.key"

        made = at_once(functools.partial(_key_at, path))

        assert set(made) == {SigningKey.load_or_create(path).public.hex}
        assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_of_several_that_create_a_file_one_wins_and_the_others_leave_it(tmp_path: Path) -> None:
    made = at_once(lambda number: create_durably(tmp_path / "file", b"%d" % number))

    assert made.count(True) == 1
    assert (tmp_path / "file").read_bytes() == b"%d" % made.index(True)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_blocks_under_one_lock_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")

    def add(_: int) -> None:
        for _ in range(20):
            with one_at_a_time(tmp_path / "lock"):
                (tmp_path / "count").write_text(str(int((tmp_path / "count").read_text()) + 1))

    at_once(add)

    assert (tmp_path / "count").read_text() == str(20 * AT_ONCE)
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    hold = f"from edgefleet.locks import FolderLock; from pathlib import Path; lock = FolderLock(Path({str(tmp_path / 'lock')!r}), 'agent')"
    wait = "print('held', flush=True); import sys; sys.stdin.read()"
    command = [sys.executable, "-c", f"{hold}; {wait}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"another agent \(process {holder.pid}\)"):
            FolderLock(tmp_path / "lock", "agent")
        holder.kill()

    FolderLock(tmp_path / "lock", "agent").release()


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"gone/lock: No such file"):
        FolderLock(tmp_path / "gone" / "lock", "agent")
