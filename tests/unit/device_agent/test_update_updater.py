"""The updater through restarts, withdrawals and rollbacks, with real models, a real store and blobs over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from device_agent.config import AgentConfig, load_identity
from device_agent.doors.answering import Answering
from device_agent.update.disk import Disk
from device_agent.update.outside import Outside
from device_agent.update.selftest import SelftestResult, check_golden
from device_agent.update.store import Store
from device_agent.update.updater import Updater
from edgefleet.bundle import Bundle
from edgefleet.desired import TrialPolicy
from edgefleet.errors import ConfigError
from tests.unit.device_agent.agent_world import QUICK, BlobServer, Enrolled, blob_server, enroll, make_bundle, rows, weights

PATIENT = TrialPolicy(soak_s=0.0, soak_rows=10**6, timeout_s=10**6, agreement_rows=10, min_agreement=0.9)
ALONE = TrialPolicy(soak_s=0.0, soak_rows=0, timeout_s=30.0, agreement_rows=10, min_agreement=0.9)


class Device:
    """One start of an agent's update path; `again` is the next start after a kill."""

    def __init__(self, enrolled: Enrolled, runtimes: tuple[str, ...] | None = None, memory_bytes: int | None = None) -> None:
        self.enrolled, self.models = enrolled, Answering()
        self.told: list[tuple[str, str]] = []
        self.operations: list[tuple[str, Path]] = []
        self.crashing: set[str] = set()
        disk = Disk(lambda name, path: self.operations.append((name, path)))
        self.store = Store(enrolled.folder, disk)
        outside = Outside(
            self.selftest, lambda: False, lambda: False, lambda name, detail, _: self.told.append((name, detail)), lambda: None
        )
        config = AgentConfig(dir=enrolled.folder, runtimes=runtimes, model_memory_bytes=memory_bytes)  # type: ignore[arg-type]
        self.updater = Updater(load_identity(enrolled.folder), config, disk, self.models, outside)
        self.updater.load()

    def selftest(self, digest: str) -> SelftestResult:
        if digest in self.crashing:
            return SelftestResult(False, True, "the model ended its own process in the self-test (signal 11)")
        return check_golden(*self.store.open_slot(digest))

    def want(self, digest: str | None, trial: TrialPolicy = QUICK) -> "Device":
        self.updater.receive(self.enrolled.desired(digest, trial))
        return self.work()

    def work(self, times: int = 12) -> "Device":
        for i in range(times):
            self.updater.work()
            for row in rows(5, seed=i):
                if self.models.running is not None:
                    self.models.score(row)
            assert self.models.settle(30.0)
        return self

    def again(self) -> "Device":
        self.models.close()
        return Device(self.enrolled)

    @property
    def state(self) -> tuple[str, str, str]:
        progress = self.updater.progress
        return progress.state, progress.subject, self.models.running_digest()


class Bench:
    def __init__(self, folder: Path, server: BlobServer) -> None:
        self.folder, self.server = folder, server
        self.enrolled = enroll(folder / "device", server.url)

    def bundle(self, name: str, matrix: np.ndarray[tuple[int, ...], np.dtype[np.float32]], golden_shift: float = 0.0) -> Bundle:
        made = make_bundle(self.folder / name, matrix, golden_shift=golden_shift)
        self.server.add(made)
        return made

    def device_running(self, bundle: Bundle) -> Device:
        return Device(self.enrolled).want(bundle.digest, ALONE)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


def test_the_first_model_and_then_the_second_are_committed(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))

    device = bench.device_running(a).want(b.digest)

    assert device.state == ("committed", b.digest, b.digest)
    assert (device.store.pointer("active"), device.store.pointer("previous"), device.store.pointer("trial")) == (b.digest, a.digest, "")


def test_a_third_model_sweeps_the_first_and_keeps_the_last_two(bench: Bench) -> None:
    a, b, c = (bench.bundle(name, weights(1) * np.float32(factor)) for name, factor in (("a", 1.0), ("b", 1.01), ("c", 1.02)))

    device = bench.device_running(a).want(b.digest).want(c.digest)

    assert not device.store.has_blob(a.digest)
    assert device.store.is_complete(b.digest)
    assert device.store.is_complete(c.digest)


def test_going_back_to_the_good_model_needs_no_trial_and_no_download(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest)
    bench.server.requests.clear()

    device.want(a.digest, PATIENT)

    assert device.state == ("committed", a.digest, a.digest)
    assert bench.server.requests == []


def test_a_failed_self_test_quarantines_at_once(bench: Bench) -> None:
    a, liar = bench.bundle("a", weights(1)), bench.bundle("liar", weights(1), golden_shift=0.1)

    device = bench.device_running(a).want(liar.digest)

    assert device.state == ("quarantined", liar.digest, a.digest)
    assert "self-test failed: largest error 0.1" in device.updater.progress.reason
    assert not device.store.has_blob(liar.digest)


def test_a_self_test_that_crashes_is_tried_three_times(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a)
    device.crashing.add(b.digest)

    device.want(b.digest)

    assert device.state == ("quarantined", b.digest, a.digest)
    assert device.updater.progress.attempt == 3
    assert "signal 11" in device.updater.progress.reason


def test_a_trial_killed_again_and_again_runs_out_of_attempts(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest, PATIENT)
    attempts = [device.updater.progress.attempt]
    for _ in range(2):
        device = device.again().work()
        attempts.append(device.updater.progress.attempt)

    last = device.again().work()

    assert attempts == [1, 2, 3]
    assert last.state[2] == a.digest
    assert last.updater.progress.conviction(b.digest) == "interrupted or crashed in 3 of 3 attempts"


def test_a_clean_stop_in_a_trial_costs_no_attempt(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest, PATIENT)
    device.updater.close()

    device = device.again().work()

    assert device.state == ("trial", b.digest, a.digest)
    assert device.updater.progress.attempt == 1


def test_a_withdrawn_trial_goes_back_without_quarantine(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest, PATIENT)
    assert device.state[0] == "trial"

    device.want(a.digest)

    assert device.state == ("idle", "", a.digest)
    assert device.updater.progress.quarantined == ()
    assert device.models.candidate is None
    assert not device.store.has_blob(b.digest)


def test_a_project_that_is_no_longer_named_leaves_the_running_model_alone(bench: Bench) -> None:
    a = bench.bundle("a", weights(1))
    device = bench.device_running(a).want(None)
    assert device.state == ("idle", "", a.digest)


def test_a_trial_goes_on_when_the_same_bundle_is_desired_again(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest, PATIENT)
    trial = device.models.trial

    device.want(b.digest, PATIENT)

    assert device.models.trial is trial


def test_an_old_desired_state_that_comes_again_is_told_and_not_obeyed(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    old = bench.enrolled.desired(b.digest)
    device = bench.device_running(a)

    device.updater.receive(old)
    device.work()

    assert device.state[2] == a.digest
    assert ("desired-stale", "an older desired state came again; counter 2 stays") in device.told


def test_two_documents_with_one_counter_are_refused_even_after_a_restart(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).again()
    bench.enrolled.counter -= 1

    device.want(b.digest)

    assert device.state[2] == a.digest
    assert any("equivocation" in detail for name, detail in device.told if name == "desired-refused")


def test_a_damaged_active_model_falls_back_to_the_previous_one_and_is_fetched_again(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest)
    graph = device.store.blob_path(b.manifest.files["onnx-fp32.onnx"].sha256)
    graph.chmod(0o644)
    graph.write_bytes(b"\0" * 100)

    restarted = device.again()
    at_start = restarted.models.running_digest()
    restarted.work(20)

    assert at_start == a.digest
    assert restarted.state == ("committed", b.digest, b.digest)
    assert any(name == "active-unusable" for name, _ in restarted.told)


def test_before_the_first_model_a_row_is_refused_and_counted(bench: Bench) -> None:
    device = Device(bench.enrolled)

    with pytest.raises(ConfigError, match="no model is installed yet"):
        device.models.score([0.0] * 5)
    assert device.models.unanswered == 1


def test_the_state_is_in_the_journal_before_anything_is_done_for_it(bench: Bench) -> None:
    a = bench.bundle("a", weights(1))
    device = bench.device_running(a)

    names = [(name, path.name) for name, path in device.operations]
    committed = max(
        i for i, (name, path) in enumerate(names) if (name, path) == ("append", "journal") and i < names.index(("rename", "active"))
    )
    records = [record["progress"]["state"] for record in device.again().updater.journal.records]

    assert names.index(("rename", "desired")) < names.index(("append_part", f".part-{a.digest}"))
    assert committed < names.index(("write_part", ".part-active"))
    assert records == ["downloading", "verified", "self-test", "trial", "committed"]


def test_every_rename_has_its_bytes_synced_before_and_its_folder_after(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    operations = bench.device_running(a).want(b.digest).operations

    renames = [i for i, (name, _) in enumerate(operations) if name == "rename"]
    for i in renames:
        target = operations[i][1]
        synced = [name for name, path in operations[max(0, i - 3) : i] if path.name == f".part-{target.name}"]
        assert "fsync" in synced, operations[i]
        assert operations[i + 1] == ("fsync_dir", target.parent)
    assert len(renames) > 10


def test_a_journal_record_of_another_version_is_skipped(bench: Bench) -> None:
    a = bench.bundle("a", weights(1))
    device = bench.device_running(a)
    device.updater.journal.append({"event": "?", "progress": {"state": "teleported"}})

    restarted = device.again().work()

    assert restarted.state == ("committed", a.digest, a.digest)


@pytest.mark.parametrize("content", [b"", b"\0" * 65, b"../../etc/passwd", b"\xff" * 65, json.dumps({}).encode()])
def test_a_damaged_pointer_names_nothing(bench: Bench, content: bytes) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))
    device = bench.device_running(a).want(b.digest)
    (bench.enrolled.folder / "active").write_bytes(content)

    restarted = device.again()

    assert restarted.store.pointer("active") == ""
    assert restarted.models.running_digest() == a.digest
    assert restarted.work(20).state == ("committed", b.digest, b.digest)
