"""Native chatter while a graph loads never reaches stdout."""

import os
import threading

import pytest

from edgefleet.quiet import quiet_load


def test_what_native_code_writes_to_stdout_comes_out_on_stderr_without_mere_information(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_load():
        os.write(1, b"EP Error: this matters\nINFO: Created a delegate\n")
        os.write(2, b"INFO: told to stderr\nand this too\n")
    os.write(1, b"result\n")
    seen = capfd.readouterr()
    assert seen.out == "result\n"
    assert seen.err == "EP Error: this matters\nand this too\n"


def test_the_descriptors_come_back_after_an_error_and_blocks_may_nest(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="refused"), quiet_load(), quiet_load():
        raise ValueError("refused")
    os.write(1, b"result\n")
    assert capfd.readouterr().out == "result\n"


def test_two_threads_that_load_at_once_leave_the_descriptors_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    before = [os.fstat(fd).st_ino for fd in (1, 2)]
    start = threading.Barrier(4)

    def load() -> None:
        start.wait()
        for _ in range(25):
            with quiet_load():
                os.write(1, b"INFO: noise\n")

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [os.fstat(fd).st_ino for fd in (1, 2)] == before
    assert capfd.readouterr().out == ""
