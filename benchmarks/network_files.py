"""Networks as TFLite files: what integers save, what they cost in accuracy, and what the conversion takes.

Networks of the examples `digits` and `pump` are trained by the ordinary command. Each conversion runs in a fresh process of its own, whose
children's peak memory is then the conversion's: `python -m benchmarks.network_files PACKAGE TARGET ...` is that process.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Figure

EXAMPLES: Final = Path(__file__).parents[1] / "examples"
SMALL_PARAMETERS: Final = 20_000
LARGE_PARAMETERS: Final = 100_000
SMALL_RATIO: Final = 0.60
LARGE_RATIO: Final = 0.30
MAX_DROP_POINTS: Final = 1.0
INTEGERS: Final = "tflite-int8"
EVERY_TFLITE: Final = ("tflite-fp32", "tflite-fp16", "tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights", "tflite-int16x8")


@dataclass(frozen=True)
class Network:
    """One network to train.

    Attributes:
        name: What figures call it.
        example: Folder of its project.
        candidate: The trainer's.
        settings: Changes of project.toml.
        judged: Whether its accuracy is a figure.
    """

    name: str
    example: str
    candidate: str
    settings: tuple[str, ...] = ()
    judged: bool = False


CONV2D: Final = Network("digits, Conv2D", "digits", "conv", judged=True)
WINDOW: Final = Network("pump, Conv1D over windows", "pump", "conv1d", ("cleaning.window.features=[]",), judged=True)


def _dense(units: int, layers: int) -> Network:
    parameters = (f"search.parameters.dense.hidden={units}", f"search.parameters.dense.layers={layers}")
    # Files are compared, and the smallest of these networks cannot do what the example asks for.
    settings = ('search.candidates=["dense"]', *parameters, "goal.minimum=0.6")
    return Network(f"digits, dense {layers} x {units}", "digits", "dense", settings)


SHORT: Final = (CONV2D, WINDOW, _dense(32, 2), _dense(256, 3))
FULL: Final = (CONV2D, WINDOW, _dense(16, 1), _dense(32, 2), _dense(96, 2), _dense(256, 3), _dense(512, 2))


def network_figures(full: bool) -> Iterator[Figure]:
    """Train, convert and compare."""
    with tempfile.TemporaryDirectory() as name:
        for i, network in enumerate(FULL if full else SHORT):
            folder = Path(name, str(i))
            package = train(network, folder)
            yield from _sizes(network, converted(package, ["tflite-fp32", INTEGERS], folder / "bundle"))
            if network is CONV2D:
                yield from _costs([converted(package, EVERY_TFLITE, folder / f"bundle-{n}") for n in range(3 if full else 1)])


def train(network: Network, folder: Path) -> Path:
    """The package of a network, by `edgefleet train`."""
    changes = [part for setting in network.settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "edgefleet", "train", str(EXAMPLES / network.example), "--runs-dir", str(folder / "runs")]
    done = subprocess.run([*command, "--candidate", network.candidate, *changes, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{network.name}: the training ended with code {done.returncode}: {done.stderr[-2000:]}")
    return Path(json.loads(done.stdout)["package"])


def converted(package: Path, targets: tuple[str, ...] | list[str], output: Path) -> dict[str, Any]:
    """What `measure` prints, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.network_files", str(package), str(output), *targets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{package}: the conversion ended with code {done.returncode}: {done.stderr[-2000:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def measure(package: Path, output: Path, targets: list[str]) -> dict[str, Any]:
    """Convert, and say how long it took, how much memory its largest child had, and whether TensorFlow came into this process."""
    from converter.conversion import Wishes, convert_with_report

    began = time.perf_counter()
    done = convert_with_report(package, Wishes(targets, output))
    seconds = time.perf_counter() - began
    variants = {
        report.name: {
            "size_bytes": report.size_bytes,
            "kept": report.kept,
            "reason": report.reason,
            # In points of accuracy; a variant that could not be run has lost all.
            "drop": 100 * report.found.overall.value if report.found is not None and report.found.overall is not None else 100.0,
            "n": report.found.n if report.found is not None else 0,
        }
        for report in done.reports
    }
    return {
        "seconds": seconds,
        "children_peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "own_peak_bytes": _own_peak_bytes(),
        "tensorflow_in_parent": "tensorflow" in sys.modules,
        "parameters": _parameters(package),
        "variants": variants,
    }


def _own_peak_bytes() -> int:
    """Of this program alone: getrusage also counts the process that it was forked from."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _parameters(package: Path) -> int:
    """Weights of the network, as the trainer counted them."""
    provenance = json.loads((package / "provenance.json").read_text())
    return int(provenance["parameters"]["weights"])


def _sizes(network: Network, found: dict[str, Any]) -> Iterator[Figure]:
    floats, integers, count = found["variants"]["tflite-fp32"], found["variants"][INTEGERS], int(found["parameters"])
    ratio = integers["size_bytes"] / floats["size_bytes"] if integers["size_bytes"] else 1.0
    limit = SMALL_RATIO if count < SMALL_PARAMETERS else LARGE_RATIO if count >= LARGE_PARAMETERS else None
    yield Figure(f"{network.name} ({count:,} parameters): int8 / fp32 bytes", ratio, "ratio", limit, 1)
    if network.judged:
        yield Figure(f"{network.name}: int8 accuracy drop", float(integers["drop"]), "points", MAX_DROP_POINTS, integers["n"])
    # The smallest networks lose more by integers than the gates allow; what is judged must be kept.
    yield Figure(f"{network.name}: int8 left out", float(not integers["kept"]), "", 0.0 if network.judged else None, 1)
    if not integers["kept"]:
        print(f"{network.name}: {integers['reason']}", file=sys.stderr)


def _costs(found: list[dict[str, Any]]) -> Iterator[Figure]:
    name, n = "digits, Conv2D to every TFLite target", len(found)
    yield Figure(f"{name}: wall time", statistics.median(one["seconds"] for one in found), "s", None, n)
    yield Figure(f"{name}: peak of a child", max(one["children_peak_bytes"] for one in found) / 1e6, "MB", None, n)
    yield Figure(f"{name}: peak of the parent", max(one["own_peak_bytes"] for one in found) / 1e6, "MB", None, n)
    yield Figure(f"{name}: TensorFlow in the parent", float(any(one["tensorflow_in_parent"] for one in found)), "", 0.0, n)
    left_out = sum(not variant["kept"] for variant in found[0]["variants"].values())
    yield Figure(f"{name}: left out by a gate", float(left_out), "targets", None, len(found[0]["variants"]))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])))
