"""A disk that is full: the old model goes on scoring, nothing half-written counts, and the agent recovers by itself once there is room."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from device_agent.config import AgentConfig, load_identity
from device_agent.doors.answering import Answering
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.outside import Outside
from device_agent.update.selftest import check_golden
from device_agent.update.store import Store
from device_agent.update.updater import Updater
from edgefleet.errors import StorageError
from tests.faults.update_victim import update
from tests.unit.device_agent.agent_world import QUICK, BlobServer, Enrolled, blob_server, enroll, make_bundle, rows, weights

ALONE = type(QUICK)(soak_s=0.0, soak_rows=0, timeout_s=30.0, agreement_rows=10, min_agreement=0.9)


class FullDisk:
    """Refuses every write from the n-th operation on, until there is room again."""

    def __init__(self, operation: int) -> None:
        self.operation, self.count, self.refused = operation, 0, 0

    def __call__(self, name: str, path: Path) -> None:
        self.count += 1
        if self.count > self.operation and name in {"write_part", "append", "append_chunk", "make_folder"}:
            self.refused += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Device:
    """An updater with its models, driven by hand."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self.models, self.told = Answering(), [("", "")]
        store = Store(folder, disk)
        outside = Outside(
            selftest=lambda digest: check_golden(*store.open_slot(digest)),
            stopped=lambda: False,
            newer=lambda: False,
            tell=lambda name, detail, _: self.told.append((name, detail)),
            changed=lambda: None,
        )
        self.updater = Updater(load_identity(folder), AgentConfig(dir=folder, runtimes=("onnxruntime",)), disk, self.models, outside)
        self.updater.load()

    def work(self, times: int = 12) -> None:
        for i in range(times):
            self.updater.work()
            for row in rows(10, seed=i):
                assert self.models.score(row).label is not None
            assert self.models.settle(30.0)  # a candidate sees the rows on a thread of its own

    def close(self) -> None:
        self.models.close()


@contextmanager
def device_with_old_model(folder: Path, blobs: BlobServer) -> Iterator[tuple[Enrolled, str, str]]:
    old, new = make_bundle(folder / "old", weights(1)), make_bundle(folder / "new", weights(1) * np.float32(1.01), extra_bytes=10)
    blobs.add(old)
    blobs.add(new)
    enrolled = enroll(folder / "device", blobs.url)
    update(enrolled.folder, enrolled.desired(old.digest, ALONE), None, lambda _: None)
    yield enrolled, old.digest, new.digest


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_operation_stops_the_update_and_not_the_scoring(quick_folder: Path) -> None:
    with blob_server() as blobs:
        for operation in range(0, 60, 2):
            full = FullDisk(operation)
            with device_with_old_model(quick_folder / str(operation), blobs) as (enrolled, old, new):
                device = Device(enrolled.folder, Disk(full))
                device.updater.receive(enrolled.desired(new))

                device.work()
                running_while_full = device.models.running_digest()
                problem = device.updater.storage_problem
                full.operation = 10**9
                device.work(20)

                assert running_while_full in {old, new}
                assert bool(problem) == bool(full.refused), (operation, problem)
                assert not problem or "the disk is full; make room" in problem
                assert device.models.running_digest() == new, (operation, device.updater.progress)
                assert device.updater.storage_problem == ""
                device.close()


def test_a_desired_state_that_could_not_be_stored_is_obeyed_when_there_is_room(tmp_path: Path) -> None:
    full = FullDisk(0)
    with blob_server() as blobs, device_with_old_model(tmp_path, blobs) as (enrolled, old, new):
        device = Device(enrolled.folder, Disk(full))
        device.updater.receive(enrolled.desired(new))
        device.work()
        before = (device.models.running_digest(), device.updater.director.position)

        full.operation = 10**9
        device.work(20)

        assert before == (old, (1, 1))
        assert device.models.running_digest() == new
        assert ("storage" in {name for name, _ in device.told}) is True
        device.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True).returncode == 0
    )
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root; the same is tested with a disk that refuses")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_file_system_refuses_a_large_bundle_and_takes_it_when_freed(small_disk: Path, tmp_path: Path) -> None:
    with blob_server() as blobs, device_with_old_model(small_disk, blobs) as (enrolled, old, new):
        stuffing = small_disk / "stuffing"
        with stuffing.open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(b"\0" * 4096):
                pass
        device = Device(enrolled.folder, Disk())
        device.updater.receive(enrolled.desired(new))
        device.work()
        while_full = (device.models.running_digest(), device.updater.storage_problem)

        stuffing.unlink()
        device.work(20)

        assert while_full[0] == old
        assert str(enrolled.folder) in while_full[1]
        assert device.models.running_digest() == new
        device.close()


def test_a_full_disk_costs_counted_records_and_what_is_spooled_stays(tmp_path: Path) -> None:
    full = FullDisk(10**9)
    spool = Spool(tmp_path / "spool", 7, 1_000_000, Disk(full))
    for _ in range(3):
        spool.put("event", "tiny", "", 1, 2, b"before")

    full.operation = 0
    for _ in range(5):
        with pytest.raises(StorageError, match="the disk is full"):
            spool.put("event", "tiny", "", 1, 2, b"lost")
    full.operation = 10**9
    spool.put("event", "tiny", "", 1, 2, b"after")

    assert (len(spool), spool.dropped) == (4, 5)
    assert [seq for (_, seq), _ in spool.to_send()] == [1, 2, 3, 4]
