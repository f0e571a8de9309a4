"""Resident memory of a Python, of a bare runtime, of a scorer and of a whole agent, each a process of its own.

What is read is /proc/self/statm: also the pages of libraries that are mapped and touched, which other processes share.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.soak_server import Server, commit, connected, enroll, mosquitto
from edgefleet.bundle import MANIFEST_NAME, Bundle
from edgefleet.ports import free_port

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
    """

    python: int
    runtime: int
    scorer: int
    scoring: int
    agent: int
    agent_scoring: int


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
    port, server = free_port(), Server()
    with mosquitto(folder, port), connected(server, port):
        identity = enroll(folder / "identity", port)
        commit(identity, bundle, variant.name)
        resting, working = asked(_AGENT, str(identity), str(rows))
    if not server.kinds["attestation"] or server.answered != rows:
        raise SystemExit(
            f"the agent attested {server.kinds['attestation']} times and told of {server.answered} rows, expected 1 and {rows}"
        )
    return Memory(nothing, floor, idle, scoring, resting, working)
