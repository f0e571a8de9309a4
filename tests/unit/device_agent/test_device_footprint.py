"""What a scorer, a door and an agent may take in memory beside the bare runtime, and what they must not import."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import http_servers
from benchmarks.device_memory import measure
from benchmarks.http_door import drive, json_request
from benchmarks.scorer_graphs import FEATURES, lite_network_graph, network_graph, write_bundle
from edgefleet.bundle import Bundle
from edgefleet.manifest import Runtime

ROOT = Path(__file__).resolve().parents[3]
MB = 1_000_000
# Measured: 8, 22 and 13 MB. The rest is for other processors, versions and allocators, not for more imports: those are named below.
SCORER_BEYOND_RUNTIME = 15 * MB
AGENT_BEYOND_RUNTIME = 30 * MB
DOOR_BEYOND_RUNTIME = 21 * MB

# OpenSSL, its wrappers, mail and web clients, command lines, readers of graphs, and the other runtime.
NOT_FOR_A_SCORER = {
    "_hashlib", "_ssl", "cryptography", "email", "http.client", "urllib.request", "importlib.metadata", "paho", "click",
    "asyncio", "unittest", "sqlite3", "numpy.random", "numpy.testing", "device_agent.agent", "device_agent.treeshap",
    "device_agent.sampled", "edgefleet.graphs.onnx_file", "edgefleet.graphs.tflite_file", "edgefleet.steps", "edgefleet.sketch_building",
}  # fmt: skip
NOT_FOR_AN_AGENT = {
    "cryptography", "_cffi_backend", "click", "asyncio", "unittest", "sqlite3", "numpy.random", "numpy.testing", "http.server",
    "device_agent.doors.http.application", "device_agent.doors.mqtt.door", "device_agent.doors.batch", "device_agent.treeshap",
    "device_agent.sampled", "edgefleet.graphs.onnx_file", "edgefleet.graphs.tflite_file", "edgefleet.sketch_building",
}  # fmt: skip
PACKAGE_OF = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def network_bundle(folder: Path, runtime: Runtime) -> Bundle:
    x = np.random.default_rng(0).normal(size=(512, FEATURES)).astype(np.float32)
    graph = network_graph((64, 32)) if runtime == "onnxruntime" else lite_network_graph((64, 32))
    return Bundle.open(write_bundle(folder, graph, x, runtime=runtime))


def imported(program: str, *arguments: str) -> set[str]:
    script = program + "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, env=environment(), check=True
    )
    return set(done.stdout.split())


@pytest.mark.broker
@pytest.mark.parametrize("runtime", ["onnxruntime", pytest.param("litert", marks=pytest.mark.conversions)])
def test_scorer_and_agent_take_little_more_memory_than_the_bare_runtime(tmp_path: Path, runtime: Runtime) -> None:
    found = measure(Path(sys.executable), tmp_path, network_bundle(tmp_path / "bundle", runtime), 20_000, environment())

    assert found.python < found.runtime < found.scorer <= found.scoring < found.agent_scoring, found
    assert found.scoring - found.runtime < SCORER_BEYOND_RUNTIME, found
    assert found.agent_scoring - found.runtime < AGENT_BEYOND_RUNTIME, found
    assert found.command - found.runtime < AGENT_BEYOND_RUNTIME, found


def test_the_http_door_takes_little_more_memory_than_the_bare_runtime(tmp_path: Path) -> None:
    bundle = network_bundle(tmp_path / "bundle", "onnxruntime")
    folder, graph = tmp_path / "bundle", bundle.locate(bundle.manifest.variants[0].file)
    bare = http_servers.bare_memory_bytes(Path(sys.executable), graph)
    with http_servers.door(Path(sys.executable), folder) as door:
        drive(door.port, json_request(np.zeros((1, FEATURES), np.float32)), 8, 1.0)
        taken = door.memory_bytes()

    assert bare < taken < bare + DOOR_BEYOND_RUNTIME, (bare, taken)


def test_an_open_scorer_has_imported_one_runtime_and_nothing_that_scoring_does_not_need(tmp_path: Path) -> None:
    network_bundle(tmp_path / "bundle", "onnxruntime")
    program = "import sys\nfrom device_agent import Scorer\nscorer = Scorer.open(sys.argv[1])\nscorer.score([0.0] * 20)"

    modules = imported(program, str(tmp_path / "bundle"))

    assert {"onnxruntime", "device_agent.scorer", "numpy"} <= modules
    assert not modules & (NOT_FOR_A_SCORER | {PACKAGE_OF["litert"]})


def test_an_agent_without_doors_has_imported_neither_cryptography_nor_doors() -> None:
    modules = imported("import device_agent.agent, device_agent.config, edgefleet.signing\nedgefleet.signing.ed25519()")

    assert {"device_agent.agent", "paho.mqtt.client", "edgefleet.ed25519"} <= modules
    assert not modules & (NOT_FOR_AN_AGENT | set(PACKAGE_OF.values()))


ARENAS = """
import ctypes, sys, threading
from pathlib import Path
from device_agent.allocator import use_one_arena
assert sys.argv[1] == "own" or use_one_arena()
ready, done = threading.Barrier(9), threading.Event()
def work():
    kept = [bytes(1000) for _ in range(1000)]
    ready.wait()
    done.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
ready.wait()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b"w"))
libc.malloc_info(0, stream)
libc.fclose(stream)
done.set()
print(Path(sys.argv[2]).read_text().count("<heap nr="))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has arenas")
def test_threads_share_one_arena_where_a_command_says_so(tmp_path: Path) -> None:
    def arenas(mode: str) -> int:
        command = [sys.executable, "-c", ARENAS, mode, str(tmp_path / mode)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=True)
        return int(done.stdout)

    assert arenas("one") == 1
    assert arenas("own") > 1
