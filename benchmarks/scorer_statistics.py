"""The statistics' price beside whylogs, the best known library for the same purpose, logging the same batches.

whylogs needs numpy 1, and so gets an environment of its own: EDGEFLEET_FOREIGN names the folder that keeps it from run to run, without it
the environment lives as long as the benchmark.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from edgefleet.manifest import Input
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics

BATCH_ROWS: Final = 64
WINDOW_ROWS: Final = 500
# whylogs' time for a row over ours, and our bytes over theirs.
CHEAPER: Final = 150
BYTES_RATIO: Final = 1 / 20
WHYLOGS: Final = ("whylogs==1.6.4", "numpy==1.26.4", "pandas==2.2.3")
_ROUNDS: Final = 40
_INSTALL_S: Final = 900
_THEIRS: Final = """
import json, statistics, sys, time
import numpy as np, pandas as pd, whylogs as why

x = np.load(sys.argv[1])
batch, window, rounds = map(int, sys.argv[2:])
columns = [f"f{i}" for i in range(x.shape[1])]
frames = [pd.DataFrame(x[i * batch : (i + 1) * batch], columns=columns) for i in range(len(x) // batch)]
taken = []
for i in range(rounds + 3):
    frame = frames[i % len(frames)]
    start = time.perf_counter()
    why.log(pandas=frame)
    taken.append(time.perf_counter() - start)
size = len(why.log(pandas=pd.DataFrame(x[:window], columns=columns)).profile().view().serialize())
print(json.dumps({"us": statistics.median(taken[3:]) * 1e6 / batch, "bytes": size}))
"""


def measure_statistics(folder: Path, x: NDArray[np.float32]) -> tuple[list[Figure], str]:
    """Figures, and why those beside whylogs are missing ("" where they are not)."""
    reference = build_reference(x, [Input(name=f"f{i}") for i in range(x.shape[1])], block_rows=32)
    batches = [x[i : i + BATCH_ROWS] for i in range(0, len(x) - BATCH_ROWS + 1, BATCH_ROWS)]
    seen, taken = InputStatistics.empty(reference), []
    for i in range(20 * _ROUNDS):
        start = time.perf_counter_ns()
        seen.update(batches[i % len(batches)], reference)
        taken.append((time.perf_counter_ns() - start) / 1e3 / BATCH_ROWS)
    ours_us = statistics.median(taken)
    window = InputStatistics.empty(reference)
    window.update(x[:WINDOW_ROWS], reference)
    ours_bytes = len(window.to_bytes())
    own = [
        Figure(f"statistics: a row in batches of {BATCH_ROWS}", ours_us, "us", None, len(taken)),
        Figure(f"statistics: a window of {WINDOW_ROWS} rows", ours_bytes, "bytes", None, 1),
    ]
    try:
        python = _environment(folder)
    except (subprocess.SubprocessError, OSError) as err:
        return (
            own,
            f"the rows beside whylogs are missing, its environment could not be made: {str(getattr(err, 'stderr', '') or err)[-200:]}",
        )
    np.save(folder / "rows.npy", x)
    command = [str(python), "-I", "-c", _THEIRS, str(folder / "rows.npy"), str(BATCH_ROWS), str(WINDOW_ROWS), str(_ROUNDS)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    theirs = json.loads(said.splitlines()[-1])
    return [
        *own,
        Figure(f"whylogs: a row in batches of {BATCH_ROWS}", theirs["us"], "us", None, _ROUNDS),
        Figure("statistics / whylogs, time of a row", ours_us / theirs["us"], "ratio", 1 / CHEAPER, _ROUNDS),
        Figure("statistics / whylogs, bytes of a window", ours_bytes / theirs["bytes"], "ratio", BYTES_RATIO, 1),
    ], ""


def _environment(fallback: Path) -> Path:
    """The python of an environment that holds whylogs, made when it is not there yet."""
    folder = Path(os.environ.get("EDGEFLEET_FOREIGN") or fallback) / WHYLOGS[0].replace("==", "-")
    python, stamp = folder / "bin" / "python", folder / "edgefleet-stamp"
    if not stamp.is_file() or stamp.read_text() != "\n".join(WHYLOGS):
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, text=True, timeout=120)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *WHYLOGS]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
        stamp.write_text("\n".join(WHYLOGS))
    return python
