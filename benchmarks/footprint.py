"""What an agent takes on a device: megabytes installed, time to import, memory idle and scoring, beside the bare runtime.

Each runtime gets an environment of its own, installed as a device installs it. Memory is the resident size of a process: of Python alone,
of the runtime with one graph that has answered, of an open scorer, and of a whole agent (MQTT connected, HTTP off) after it scored.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import FEATURES, lite_network_graph, network_graph, write_bundle
from benchmarks.soak_server import Server, commit, connected, enroll, mosquitto
from edgefleet.bundle import Bundle
from edgefleet.manifest import Runtime
from edgefleet.ports import free_port

ROOT: Final = Path(__file__).parents[1]
HIDDEN: Final = (64, 32)
ROWS: Final = 20_000
IMPORTS: Final = 9
MB: Final = 1e6
# The agent beside the bare runtime: its own code, cryptography, the broker's client, a bound ring, statistics, the spool.
MORE_MEMORY_LIMIT_MB: Final = 25.0
RUNTIMES: Final[tuple[tuple[str, Runtime, str], ...]] = (("onnx", "onnxruntime", "ONNX Runtime"), ("tflite", "litert", "LiteRT"))

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


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description="What an agent takes on a device.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/device.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = {title: list(_measure(Path(name) / extra, extra, runtime)) for extra, runtime, title in RUNTIMES}
    if options.markdown:
        print(table(found))
        return
    show([Figure(f"{title}: {f.name}", f.value, f.unit, f.limit, f.n) for title, own in found.items() for f in own], options.json)


def table(found: dict[str, list[Figure]]) -> str:
    """A Markdown table, one column a runtime."""
    names = [figure.name for figure in next(iter(found.values()))]
    lines = [f"| | {' | '.join(found)} |", f"|---|{'---|' * len(found)}"]
    for i, name in enumerate(names):
        lines.append(f"| {name} | " + " | ".join(f"{own[i].value:.0f} {own[i].unit}" for own in found.values()) + " |")
    return "\n".join(lines)


def _measure(folder: Path, extra: str, runtime: Runtime) -> Iterator[Figure]:
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(512, FEATURES)).astype(np.float32)
    graph = network_graph(HIDDEN) if runtime == "onnxruntime" else lite_network_graph(HIDDEN)
    bundle = write_bundle(folder / "bundle", graph, x, runtime=runtime)
    file = folder / f"graph.{'onnx' if runtime == 'onnxruntime' else 'tflite'}"
    file.write_bytes(graph)
    python = _install(folder / "device", extra)
    whole, own, module = _sizes(folder / "device", "onnxruntime" if runtime == "onnxruntime" else "ai_edge_litert")
    yield Figure("installed, all of it", whole / MB, "MB", None, 1)
    yield Figure("installed, the runtime alone", module / MB, "MB", None, 1)
    yield Figure("installed, edgefleet alone", own / MB, "MB", None, 1)
    empty, scorer, agent = (_seconds(python, line) for line in ("pass", "import device_agent.scorer", "import device_agent.agent"))
    yield Figure("import of the scorer", 1e3 * (scorer - empty), "ms", None, IMPORTS)
    yield Figure("import of the agent", 1e3 * (agent - empty), "ms", None, IMPORTS)
    nothing = _asked(python, "print(rss())")[0]
    floor = _asked(python, _BARE[runtime], str(file))[0]
    idle, scoring = _asked(python, _SCORER, str(bundle), str(ROWS))
    resting, working = _agent(python, folder, Bundle.open(bundle))
    yield Figure("memory: Python alone", nothing / MB, "MB", None, 1)
    yield Figure("memory: the bare runtime, one answer", floor / MB, "MB", None, 1)
    yield Figure("memory: a scorer, opened", idle / MB, "MB", None, 1)
    yield Figure("memory: a scorer, scoring", scoring / MB, "MB", None, ROWS)
    yield Figure("memory: the agent, connected", resting / MB, "MB", None, 1)
    yield Figure("memory: the agent, scoring", working / MB, "MB", None, ROWS)
    yield Figure("memory: the agent beyond the bare runtime", (working - floor) / MB, "MB", MORE_MEMORY_LIMIT_MB, ROWS)


def _agent(python: Path, folder: Path, bundle: Bundle) -> list[int]:
    """Bytes of an agent at rest and after it scored; one that has verified the director's signature and made one of its own."""
    port, server = free_port(), Server()
    with mosquitto(folder, port), connected(server, port):
        identity = enroll(folder / "identity", port)
        commit(identity, bundle, bundle.manifest.variants[0].name)
        found = _asked(python, _AGENT, str(identity), str(ROWS))
    if not server.kinds["attestation"] or server.answered != ROWS:
        raise SystemExit(
            f"the agent attested {server.kinds['attestation']} times and told of {server.answered} rows, expected 1 and {ROWS}"
        )
    return found


def _install(folder: Path, extra: str) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    print(f"installing edgefleet[{extra}]", file=sys.stderr)
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
    # A copy, because building leaves files beside the sources.
    source = shutil.copytree(ROOT, folder.parent / "source", ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__"))
    subprocess.run([*command, f"{source}[{extra}]"], check=True, timeout=900, stdout=subprocess.DEVNULL)
    return python


def _sizes(folder: Path, module: str) -> tuple[int, int, int]:
    """Bytes of (everything but pip, our packages, the runtime's package)."""
    packages = next(folder.glob("lib/python*/site-packages"))
    parts = {path.name: _bytes(path) for path in packages.iterdir() if not path.name.startswith(("pip", "setuptools", "_distutils"))}
    ours = sum(parts.get(name, 0) for name in ("edgefleet", "device_agent", "trainer", "converter", "fleet_server"))
    return sum(parts.values()), ours, parts[module]


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _seconds(python: Path, line: str) -> float:
    """Median processor time of a process that runs one line, its bytecode written before."""
    taken: list[float] = []
    for turn in range(IMPORTS + 1):
        before = os.times()
        subprocess.run([str(python), "-c", line], check=True, cwd=python.parent, env=_environment(), timeout=60)
        after = os.times()
        if turn:
            taken.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return statistics.median(taken)


def _asked(python: Path, program: str, *arguments: str) -> list[int]:
    command = [str(python), "-c", _RSS + program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=python.parent, env=_environment(), timeout=300)
    answer: list[Any] = json.loads(f"[{','.join(done.stdout.split()[-2:])}]")
    return [int(value) for value in answer]


def _environment() -> dict[str, str]:
    """Without our sources on the path: what is installed is what is measured."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    main()
