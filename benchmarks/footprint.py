"""What an agent takes on a device: megabytes installed, time to import, memory idle and scoring, beside the bare runtime.

Each runtime gets an environment of its own, installed as a device installs it. Memory is the resident size of a process: of Python alone,
of the runtime with one graph that has answered, of an open scorer, and of a whole agent (MQTT connected, HTTP off) after it scored, in a
program and as a command.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.device_memory import measure
from benchmarks.figures import Figure, show
from benchmarks.scorer_graphs import FEATURES, lite_network_graph, network_graph, write_bundle
from edgefleet.bundle import Bundle
from edgefleet.manifest import Runtime

ROOT: Final = Path(__file__).parents[1]
HIDDEN: Final = (64, 32)
ROWS: Final = 20_000
IMPORTS: Final = 9
MB: Final = 1e6
# The agent beside the bare runtime: its own code, OpenSSL, the broker's client, a bound ring, statistics, the spool.
MORE_MEMORY_LIMIT_MB: Final = 25.0
RUNTIMES: Final[tuple[tuple[str, Runtime, str], ...]] = (("onnx", "onnxruntime", "ONNX Runtime"), ("tflite", "litert", "LiteRT"))


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
    python = _install(folder / "device", extra)
    whole, own, module = _sizes(folder / "device", "onnxruntime" if runtime == "onnxruntime" else "ai_edge_litert")
    yield Figure("installed, all of it", whole / MB, "MB", None, 1)
    yield Figure("installed, the runtime alone", module / MB, "MB", None, 1)
    yield Figure("installed, edgefleet alone", own / MB, "MB", None, 1)
    empty, scorer, agent = (_seconds(python, line) for line in ("pass", "import device_agent.scorer", "import device_agent.agent"))
    yield Figure("import of the scorer", 1e3 * (scorer - empty), "ms", None, IMPORTS)
    yield Figure("import of the agent", 1e3 * (agent - empty), "ms", None, IMPORTS)
    found = measure(python, folder, Bundle.open(bundle), ROWS, _environment())
    yield Figure("memory: Python alone", found.python / MB, "MB", None, 1)
    yield Figure("memory: the bare runtime, one answer", found.runtime / MB, "MB", None, 1)
    yield Figure("memory: a scorer, opened", found.scorer / MB, "MB", None, 1)
    yield Figure("memory: a scorer, scoring", found.scoring / MB, "MB", None, ROWS)
    yield Figure("memory: a scorer beyond the bare runtime", (found.scoring - found.runtime) / MB, "MB", None, ROWS)
    yield Figure("memory: the agent, connected", found.agent / MB, "MB", None, 1)
    yield Figure("memory: the agent, scoring", found.agent_scoring / MB, "MB", None, ROWS)
    yield Figure("memory: `edgefleet agent run`, scoring", found.command / MB, "MB", None, ROWS)
    beyond = max(found.agent_scoring, found.command) - found.runtime
    yield Figure("memory: the larger of both beyond the bare runtime", beyond / MB, "MB", MORE_MEMORY_LIMIT_MB, ROWS)


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


def _environment() -> dict[str, str]:
    """Without our sources on the path: what is installed is what is measured."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    main()
