"""A child that crashes, hangs, prints or floods takes nothing with it."""

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.isolate import ChildFailed, run_isolated

WORK = """
import ctypes, os, sys, time

def answer(job):
    print("chatter on stdout")
    os.write(1, b"native chatter\\n")
    return {"twice": 2 * job["n"], "pid": os.getpid()}

def crash(job):
    ctypes.string_at(0)

def hang(job):
    time.sleep(60)

def flood(job):
    raise ValueError("line\\n" * 50_000)

def hoard(job):
    return {"n": len(bytearray(3 * 1024**3))}

def leave(job):
    os._exit(7)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_child_returns_its_result_and_keeps_stdout_clean(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_isolated("child_work:answer", {"n": 21}, timeout_s=30)

    assert result["twice"] == 42
    assert capfd.readouterr().out == ""


def test_a_crash_becomes_a_verdict_with_the_signal() -> None:
    with pytest.raises(ChildFailed, match="crashed: ended by signal SIGSEGV"):
        run_isolated("child_work:crash", {}, timeout_s=30)


def test_a_child_that_hangs_is_ended() -> None:
    began = time.monotonic()

    with pytest.raises(ChildFailed, match="timed out after 1 s"):
        run_isolated("child_work:hang", {}, timeout_s=1)
    assert time.monotonic() - began < 20


def test_the_text_of_a_foreign_error_is_bounded() -> None:
    with pytest.raises(ChildFailed) as caught:
        run_isolated("child_work:flood", {}, timeout_s=30)

    assert caught.value.reason.startswith("ValueError: line line")
    assert len(caught.value.reason) <= 300


def test_a_child_beyond_its_memory_limit_fails_alone() -> None:
    with pytest.raises(ChildFailed, match="MemoryError"):
        run_isolated("child_work:hoard", {}, timeout_s=30, memory_bytes=2 * 1024**3)


def test_a_child_that_leaves_without_a_result_is_a_failure() -> None:
    with pytest.raises(ChildFailed, match="ended with code 7 and no result"):
        run_isolated("child_work:leave", {}, timeout_s=30)


def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    work = "import os, time\n\ndef hang(job):\n    os.write(job['said'], f'{os.getpid()}\\n'.encode())\n    time.sleep(60)\n"
    (tmp_path / "child_work.py").write_text(work.replace("job['said']", "os.open(job['said'], os.O_WRONLY)"))
    said = tmp_path / "said"
    os.mkfifo(said)
    call = f"from edgefleet.isolate import run_isolated; run_isolated('child_work:hang', {{'said': {str(said)!r}}}, timeout_s=60)"
    parent = subprocess.Popen([sys.executable, "-c", call], cwd=Path(__file__).parents[3])
    with said.open() as stream:
        child = os.pidfd_open(int(stream.readline()))

        parent.kill()
        parent.wait(60)

    # Readable once the process has ended, whoever is to take note of it.
    assert select.select([child], [], [], 20)[0]
    os.close(child)
