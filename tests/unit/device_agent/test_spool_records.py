"""The spool: nothing that was put is lost before the server has it, and the limit holds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.telemetry.spool import MAX_BODY_BYTES, WINDOW_RECORDS, Spool
from device_agent.update.disk import Disk
from edgefleet.errors import ArtifactError
from edgefleet.messages import MAX_MESSAGE_BYTES, Acked, Telemetry, decode


def make(folder: Path, boot: int = 1, limit_bytes: int = 1_000_000) -> Spool:
    return Spool(folder, boot, limit_bytes, Disk())


def fill(spool: Spool, n: int, size_bytes: int = 10) -> None:
    for i in range(n):
        spool.put("event", "tiny", "m" * 64, i, i + 1, bytes([i % 256]) * size_bytes)


def sent(spool: Spool) -> list[tuple[int, int]]:
    keys = []
    for key, _ in spool.to_send():
        spool.mark_sent(key)
        keys.append(key)
    return keys


def test_a_record_comes_back_as_it_was_put(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.put("window", "tiny", "digest", 10, 20, b"body")

    message = decode(Telemetry, spool.to_send()[0][1])

    assert message == Telemetry(
        boot=1, seq=1, oldest_seq=1, kind="window", project="tiny", model_digest="digest", start_at=10, end_at=20, body=b"body"
    )


def test_at_most_twenty_records_are_under_way(tmp_path: Path) -> None:
    spool = make(tmp_path)
    fill(spool, 50)

    first, second = sent(spool), sent(spool)
    spool.acknowledge(Acked(stored=[(1, 5)]))
    third = sent(spool)

    assert (len(first), second, third) == (WINDOW_RECORDS, [], [(1, seq) for seq in range(21, 26)])


def test_only_the_servers_acknowledgement_frees_a_record(tmp_path: Path) -> None:
    spool = make(tmp_path)
    fill(spool, 10)
    sent(spool)

    freed = spool.acknowledge(Acked(stored=[(1, 4), (99, 1000)]))

    assert (freed, len(spool), spool.outstanding) == (4, 6, 6)
    assert decode(Telemetry, make(tmp_path, boot=2).to_send()[-1][1]).seq == 10


def test_after_a_reconnect_everything_outstanding_is_sent_again(tmp_path: Path) -> None:
    spool = make(tmp_path)
    fill(spool, 3)
    first = sent(spool)

    spool.resend()

    assert sent(spool) == first == [(1, 1), (1, 2), (1, 3)]


def test_the_records_of_an_earlier_start_keep_their_boot_and_go_first(tmp_path: Path) -> None:
    fill(make(tmp_path, boot=1), 2)
    spool = make(tmp_path, boot=2)
    fill(spool, 1)

    assert sent(spool) == [(1, 1), (1, 2), (2, 1)]


def test_at_the_limit_the_oldest_go_and_are_counted_and_the_server_learns_that_it_is_no_gap(tmp_path: Path) -> None:
    spool = make(tmp_path, limit_bytes=20_000)
    fill(spool, 100, 1000)

    oldest = decode(Telemetry, spool.to_send()[0][1])

    assert spool.size_bytes <= 20_000
    assert sum(path.stat().st_size for path in tmp_path.glob("*.seg")) <= 20_000
    assert spool.dropped + len(spool) == 100
    assert oldest.seq == oldest.oldest_seq == spool.dropped + 1


def test_acknowledged_segments_leave_the_disk(tmp_path: Path) -> None:
    spool = make(tmp_path, limit_bytes=20_000)
    fill(spool, 15, 1000)

    spool.acknowledge(Acked(stored=[(1, 15)]))
    fill(spool, 1)

    assert len(spool) == 1
    assert len(list(tmp_path.glob("*.seg"))) == 1


def test_a_record_larger_than_a_message_is_refused_before_it_blocks_the_others(tmp_path: Path) -> None:
    spool = make(tmp_path)

    with pytest.raises(ArtifactError, match=f"{MAX_BODY_BYTES + 1} bytes exceed the limit of {MAX_BODY_BYTES}"):
        spool.put("event", "tiny", "", 1, 2, b"x" * (MAX_BODY_BYTES + 1))
    spool.put("event", "p" * 64, "d" * 64, 2**62, 2**62, b"x" * MAX_BODY_BYTES)

    assert spool.dropped == 1
    assert len(spool.to_send()[0][1]) <= MAX_MESSAGE_BYTES


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_torn_tail_costs_the_last_record_only(tmp_path: Path, cut: int) -> None:
    fill(make(tmp_path), 5, 40)
    path = next(tmp_path.glob("*.seg"))
    path.write_bytes(path.read_bytes()[:-cut])

    spool = make(tmp_path, boot=2)
    fill(spool, 1)

    assert sent(spool) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]


def test_a_foreign_file_in_the_folder_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "000000000007.seg").write_bytes(os.urandom(5000))
    spool = make(tmp_path)
    fill(spool, 2)

    assert sent(spool) == [(1, 1), (1, 2)]


def test_records_survive_kill_9_right_after_they_were_put(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, pathlib\n"
        "from device_agent.telemetry.spool import Spool\nfrom device_agent.update.disk import Disk\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), 5, 10**6, Disk())\n"
        "for i in range(30): spool.put('event', 'tiny', '', i, i, b'x')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert len(make(tmp_path, boot=6)) == 30
