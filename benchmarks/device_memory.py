"""Resident memory of a Python, of a bare runtime, of a scorer and of a whole agent, each a process of its own.

What is read is /proc/self/statm: also the pages of libraries that are mapped and touched, which other processes share.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.soak_server import Server, commit, connected, enroll, mosquitto
from device_agent.health import read_health
from edgefleet.bundle import MANIFEST_NAME, Bundle
from edgefleet.ports import free_port

WAIT_S: Final = 60.0
_RSS: Final = """
import os
from pathlib import Path
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""
_BARE: Final = {
    "onnxruntime": """
import sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: np.zeros((1, 20), np.float32)})
print(rss())
""",
    "litert": """
import sys, numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 20), np.float32))
interpreter.invoke()
print(rss())
""",
}
_SCORER: Final = """
import sys
from device_agent import Scorer
scorer = Scorer.open(sys.argv[1])
idle = rss()
for i in range(int(sys.argv[2])):
    scorer.score([float(i % 7)] * 20)
print(idle, rss())
"""
_AGENT: Final = """
import sys, threading
from pathlib import Path
from device_agent.agent import Agent
from device_agent.config import AgentConfig
agent = Agent(AgentConfig(dir=Path(sys.argv[1]), heartbeat_s=1.0))
agent.start()
for _ in range(1000):
    if agent._link.connected:
        break
    threading.Event().wait(0.02)
assert agent._link.connected
threading.Event().wait(2.0)  # the running model is attested, the first heartbeat sent
idle = rss()
for i in range(int(sys.argv[2])):
    agent.score([float(i % 7)] * 20)
print(idle, rss())
agent.close()
"""


@dataclass(frozen=True)
class Memory:
    """Resident bytes.

    Attributes:
        python: An interpreter that has done nothing.
        runtime: One that loaded the runtime and a graph, and answered one row by hand.
        scorer: A scorer, opened.
        scoring: The same after it scored.
        agent: An agent that loaded its model on the director's signed word, connected to its broker, and signed what it runs; no door open.
        agent_scoring: The same after it scored.
        command: `edgefleet agent run` after it scored as many rows from a file.
    """

    python: int
    runtime: int
    scorer: int
    scoring: int
    agent: int
    agent_scoring: int
    command: int


def measure(python: Path, folder: Path, bundle: Bundle, rows: int, environment: Mapping[str, str]) -> Memory:
    """Start the processes one after the other.

    Args:
        python: Interpreter of an environment with edgefleet and the runtime.
        folder: For the agent's identity and the broker.
        bundle: Of 20 numbers, with one variant.
        rows: To be scored.
        environment: Of the processes.
    """
    variant = bundle.manifest.variants[0]

    def asked(program: str, *arguments: str) -> list[int]:
        command = [str(python), "-c", _RSS + program, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder, env=dict(environment), timeout=300)
        answer: list[Any] = json.loads(f"[{','.join(done.stdout.split()[-2:])}]")
        return [int(value) for value in answer]

    nothing = asked("print(rss())")[0]
    floor = asked(_BARE[variant.runtime], str(bundle.locate(variant.file)))[0]
    idle, scoring = asked(_SCORER, str(bundle.locate(MANIFEST_NAME).parent), str(rows))
    with _fleet(folder / "python", bundle) as (identity, server):
        resting, working = asked(_AGENT, str(identity), str(rows))
        _check(server, rows)
    with _fleet(folder / "command", bundle) as (identity, server):
        command = _command(python, identity, rows, server, environment)
        _check(server, rows)
    return Memory(nothing, floor, idle, scoring, resting, working, command)


@contextmanager
def _fleet(folder: Path, bundle: Bundle) -> Iterator[tuple[Path, Server]]:
    """An identity folder whose model runs already, its broker and its server."""
    folder.mkdir()
    port, server = free_port(), Server()
    with mosquitto(folder, port), connected(server, port):
        identity = enroll(folder / "identity", port)
        commit(identity, bundle, bundle.manifest.variants[0].name)
        yield identity, server


def _command(python: Path, identity: Path, rows: int, server: Server, environment: Mapping[str, str]) -> int:
    """Resident bytes of `edgefleet agent run` that followed a file of `rows` rows."""
    file = identity.parent / "rows.ndjson"
    file.touch()
    asked = [str(python), "-m", "edgefleet", "agent", "run", "--dir", str(identity), "--sensor", str(file)]
    with subprocess.Popen(asked, cwd=identity, env=dict(environment), stderr=subprocess.DEVNULL) as child:
        try:
            _wait(lambda: server.kinds["attestation"] > 0, "the agent did not attest")
            with file.open("a") as stream:
                stream.writelines(json.dumps([float(i % 7)] * 20) + "\n" for i in range(rows))
            _wait(lambda: read_health(identity).rows == rows, "the rows were not answered")  # it is written every two seconds
            return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        finally:
            child.terminate()  # it closes its window and waits for the server's word
            child.wait(WAIT_S)


def _check(server: Server, rows: int) -> None:
    """An agent that attested and told of its rows was whole when it was measured; on a busy machine the last windows stay in its spool."""
    if not server.kinds["attestation"] or not rows // 2 <= server.answered <= rows:
        raise SystemExit(
            f"the agent attested {server.kinds['attestation']} times and told of {server.answered} rows, expected 1 and {rows // 2} or more"
        )


def _wait(probe: Callable[[], bool], what: str) -> None:
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while not probe():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} within {WAIT_S:g} s")
        pause.wait(0.05)
