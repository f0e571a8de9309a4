"""The servers that `benchmarks.http_door` compares, each a process of its own on loopback before the same graph."""

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
START_S: Final = 60.0
# MLServer's runtime for the graph: what its own ONNX users write; one thread, as the device's scorer.
_RUNTIME: Final = """
import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Graph(MLModel):
    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32)
        margin, probabilities = self._session.run(["margin", "probabilities"], {"inputs": rows})
        outputs = [NumpyCodec.encode_output("margin", margin), NumpyCodec.encode_output("probabilities", probabilities)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        name: For the figures.
        port: Where it listens.
        pid: Its first process.
    """

    name: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """User and system seconds of its processes."""
        ticks = 0
        for pid in _tree(self.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Resident memory of its processes together."""
        return sum(_rss(pid) for pid in _tree(self.pid))


def foreign(requirement: str) -> Path | None:
    """The python of an environment that the tests made, None where there is none: set EDGEFLEET_FOREIGN and run them with `-m foreign`."""
    root = os.environ.get("EDGEFLEET_FOREIGN")
    python = Path(root or "/nowhere") / requirement.replace("==", "-") / "bin" / "python"
    return python if python.is_file() else None


def bare_memory_bytes(python: Path, graph: Path) -> int:
    """Resident memory of a Python that has done nothing but run the graph once."""
    program = (
        "import sys, numpy, onnxruntime; s = onnxruntime.InferenceSession(sys.argv[1]); "
        "s.run(None, {'inputs': numpy.zeros((1, s.get_inputs()[0].shape[1]), numpy.float32)}); "
        "print(open('/proc/self/statm').read().split()[1])"
    )
    pages = subprocess.run([str(python), "-c", program, str(graph)], check=True, capture_output=True, text=True).stdout
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def door(python: Path, bundle: Path) -> Iterator[Server]:
    """`edgefleet agent serve`."""
    port = free_port()
    command = [str(python), "-m", "edgefleet", "agent", "serve", "--bundle", str(bundle), "--http", str(port)]
    with _running("door", command, port, "/v2/health/ready", {"PYTHONPATH": str(ROOT)}) as server:
        yield server


@contextmanager
def mlserver(python: Path, graph: Path, folder: Path) -> Iterator[Server]:
    """MLServer with the same graph, in one process, which is its quickest way for a small model."""
    port, grpc, metrics = free_port(), free_port(), free_port()
    settings = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    model = {"name": "benchmark", "implementation": "graph_runtime.Graph", "parameters": {"uri": str(graph)}}
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "graph_runtime.py").write_text(_RUNTIME)
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    with _running("MLServer", command, port, "/v2/models/benchmark/ready", {"PYTHONPATH": str(folder)}) as server:
        yield server


@contextmanager
def granian(python: Path, bundle: Path) -> Iterator[Server]:
    """The door's application in granian."""
    port = free_port()
    command = [str(python.parent / "granian"), "--interface", "wsgi", "--factory", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--runtime-mode", "st", "--blocking-threads", "1"]  # one interpreter lock: more threads only wait for it
    command += ["--no-ws", "--log-level", "warning", "device_agent.doors.http.mount:from_environment"]
    env = {"PYTHONPATH": str(ROOT), "EDGEFLEET_BUNDLE": str(bundle)}
    with _running("granian", command, port, "/v2/health/ready", env) as server:
        yield server


@contextmanager
def _running(name: str, command: list[str], port: int, ready: str, env: dict[str, str]) -> Iterator[Server]:
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV", "EDGEFLEET_TOKEN_FILE"}}
    process = subprocess.Popen(
        command, env={**kept, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        _wait(name, process, f"http://127.0.0.1:{port}{ready}")
        yield Server(name, port, process.pid)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # its own session: the server and its workers, nobody else
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        assert process.stderr is not None  # noqa: S101  # it was piped
        process.stderr.close()


def _wait(name: str, process: "subprocess.Popen[str]", url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own loopback address
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                assert process.stderr is not None  # noqa: S101  # it was piped
                raise SystemExit(f"{name} did not start: {process.stderr.read()[-1000:]}") from None
            time.sleep(0.1)
    raise SystemExit(f"{name} did not answer {url} within {START_S:g} s")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    return found


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
