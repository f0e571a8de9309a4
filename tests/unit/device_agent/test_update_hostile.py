"""Hostile graphs on their way to a device: the agent's own process never opens them, and goes on scoring."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.config import AgentConfig, load_identity
from device_agent.doors.answering import Answering
from device_agent.runtime import open_runtime
from device_agent.update.disk import Disk
from device_agent.update.outside import Outside
from device_agent.update.selftest import SelftestResult, run_in_child, try_bundle
from device_agent.update.updater import Updater
from edgefleet.bundle import Bundle
from edgefleet.desired import TrialPolicy
from edgefleet.isolate import ChildFailed, run_isolated
from tests.faults.hostile_graphs import NAMES, hostile, long_work
from tests.unit.device_agent.agent_world import BlobServer, Enrolled, blob_server, enroll, make_bundle, rows, weights
from tests.unit.device_agent.test_update_selftest import installed

ROOT = Path(__file__).resolve().parents[3]
MEMORY_BYTES = 3 << 30
ONCE = TrialPolicy(soak_s=0.0, soak_rows=0, timeout_s=30.0, attempts=1)


class Device:
    """An agent's update path with the self-test that agents have: a child with limits."""

    def __init__(self, enrolled: Enrolled, timeout_s: float = 60.0) -> None:
        self.enrolled, self.models, self.results = enrolled, Answering(), list[SelftestResult]()

        def tried(digest: str) -> SelftestResult:
            self.results.append(run_in_child(enrolled.folder, digest, timeout_s=timeout_s, memory_bytes=MEMORY_BYTES))
            return self.results[-1]

        outside = Outside(tried, lambda: False, lambda: False, lambda *_: None, lambda: None)
        self.updater = Updater(load_identity(enrolled.folder), AgentConfig(dir=enrolled.folder), Disk(), self.models, outside)
        self.updater.load()

    def want(self, bundle: Bundle) -> str:
        """The state in which the update to a bundle ends."""
        self.updater.receive(self.enrolled.desired(bundle.digest, ONCE))
        for _ in range(10):
            self.updater.work()
        return self.updater.progress.state

    def answer(self) -> str | None:
        return self.models.score(rows(1)[0]).label


class World:
    def __init__(self, folder: Path, server: BlobServer) -> None:
        self.folder, self.server = folder, server
        self.good = self.bundle("good", None)
        self.device = Device(enroll(folder / "device", server.url))
        assert self.device.want(self.good) == "committed"

    def bundle(self, name: str, graph: bytes | None, **more: Any) -> Bundle:
        made = make_bundle(self.folder / name, weights(1), graph=graph, explain=False, **more)
        self.server.add(made)
        return made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with blob_server() as server:
        yield World(tmp_path_factory.mktemp("hostile"), server)


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_graph_is_quarantined_and_the_running_model_goes_on(world: World, name: str) -> None:
    before = world.device.answer()

    state = world.device.want(world.bundle(name.replace(" ", "-"), hostile(name)))

    reason = world.device.updater.progress.reason
    assert state == "quarantined", reason
    assert reason.startswith("self-test failed: ")
    assert not world.device.results[-1].crashed
    assert (world.device.answer(), world.device.models.running_digest()) == (before, world.good.digest)


def test_an_operator_that_is_not_on_the_list_is_refused_by_name(world: World) -> None:
    world.device.want(world.bundle("random", hostile("random numbers")))
    assert "operator 'RandomNormal' is not on the list of operators that a device may be given" in world.device.updater.progress.reason


def test_the_endless_loop_is_refused_by_name_before_a_runtime_sees_it(world: World) -> None:
    world.device.want(world.bundle("loop", hostile("endless loop")))
    assert "operator 'Loop' may run without end: it turns up to 4611686018427387904 times" in world.device.updater.progress.reason


def test_a_graph_that_takes_too_long_is_a_timeout(tmp_path: Path, world: World) -> None:
    slow = world.bundle("slow", long_work(60))
    device = Device(enroll(tmp_path / "device", world.server.url), timeout_s=4.0)

    state = device.want(slow)

    assert (state, device.results[-1].crashed) == ("quarantined", True)
    assert device.updater.progress.reason == "timeout: the self-test took longer than 4 s"


def test_a_graph_that_kills_its_process_is_a_crash_with_the_signal_and_hurts_nobody(world: World) -> None:
    """A file that one damage made: LiteRT 2.3 ends by a segmentation fault in it. A version that refuses it is as good."""
    before = world.device.answer()
    graph = (ROOT / "tests" / "faults" / "ends_litert.tflite").read_bytes()

    state = world.device.want(world.bundle("ends", graph, runtime="litert", operators=[]))

    result = world.device.results[-1]
    assert state == "quarantined"
    assert result.reason.startswith("crashed(signal ") if result.crashed else "litert cannot load" in result.reason
    assert (world.device.answer(), world.device.models.running_digest()) == (before, world.good.digest)


def loop_in_runtime(job: dict[str, str]) -> dict[str, str]:
    """In a child: what a runtime does with a graph when nobody has looked at its operators."""
    open_runtime("onnxruntime", Path(job["graph"]).read_bytes())
    return {}


def test_without_the_list_the_endless_loop_would_run_until_it_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop.onnx").write_bytes(hostile("endless loop"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    with pytest.raises(ChildFailed, match="timed out after 3 s"):
        run_isolated(f"{__name__}:loop_in_runtime", {"graph": str(tmp_path / "loop.onnx")}, timeout_s=3)


def test_a_model_whose_process_is_killed_is_a_crash_with_the_signal(tmp_path: Path) -> None:
    """Killed from outside, as the kernel does when memory runs out."""
    bundle = make_bundle(tmp_path / "slow", weights(1), graph=long_work(600), explain=False)
    installed(tmp_path / "device", bundle)
    killed: list[int] = []

    def kill_child() -> bool:
        for pid in [] if killed else children_about(bundle.digest):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        return False

    result = run_in_child(tmp_path / "device", bundle.digest, timeout_s=60.0, memory_bytes=MEMORY_BYTES, stopped=kill_child)

    assert (len(killed), result.ok, result.crashed) == (1, False, True)
    assert result.reason == "crashed(signal 9): the model ended its own process in the self-test"


def children_about(word: str) -> list[int]:
    """This process's children with that word on their command line: others may be workers that a library keeps, or starts meanwhile."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and word in (folder / "cmdline").read_text().split("\0"):
                found.append(int(folder.name))
    return found


_LIMITED = """
import resource
from pathlib import Path
from device_agent.update.limits import limit_process

limit_process(cpu_s=1, memory_bytes=1 << 30)
print(resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CORE))
print(resource.getrlimit(resource.RLIMIT_DATA)[0] <= 1 << 30, Path("/proc/self/oom_score_adj").read_text().strip(), flush=True)
try:
    bytearray(2 << 30)
except MemoryError:
    print("no memory", flush=True)
while True:
    pass
"""


def test_the_limits_hold() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, timeout=60)

    assert done.stdout.split("\n")[:3] == ["(1073741824, 1073741824) (0, 0)", "True 1000", "no memory"]
    assert done.returncode == -signal.SIGXCPU


_LIMITED_BEFORE = """
import resource
from device_agent.update.limits import limit_process

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (500, 500))
limit_process(cpu_s=1000, memory_bytes=8 << 30)
print(resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU))
"""


def test_a_limit_of_the_service_manager_is_not_raised_and_does_not_convict_the_model() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED_BEFORE], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("(3221225472, 3221225472) (500, 500)\n", "")


def test_a_hostile_bundle_in_a_folder_is_refused_in_a_child_too(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle", weights(1), graph=hostile("endless loop"), explain=False)

    result = try_bundle(tmp_path / "bundle", "onnx-fp32")

    assert (result.ok, result.crashed) == (False, False)
    assert "'Loop'" in result.reason
