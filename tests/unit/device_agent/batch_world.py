"""What the tests of the batch door share: runs inside this process and as children, rows, and the bytes they leave."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.doors.batch.planning import Places, Wishes, plan_run
from device_agent.doors.batch.run import Outcome, Said, run
from tests.unit.device_agent.bundles import FEATURES

ROOT = Path(__file__).resolve().parents[3]
NAMES = [f"f{i}" for i in range(FEATURES)]
HEADER = ",".join(NAMES) + "\n"


def rows(n: int, seed: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


def csv_text(x: NDArray[np.float32]) -> str:
    return HEADER + "".join(",".join(map(repr, row)) + "\n" for row in x.tolist())


def ndjson_text(x: NDArray[np.float32]) -> str:
    return "".join(json.dumps(row) + "\n" for row in x.tolist())


def score(
    bundle: Path,
    source: Path,
    output: Path,
    *,
    bad: Path | None = None,
    resume: bool = False,
    said: Said | None = None,
    source_format: Any = None,
    **wishes: Any,
) -> Outcome:
    """One run in this process."""
    with Scorer.open(bundle) as scorer:
        places = Places(source=source, output=output, bad=bad, source_format=source_format)
        return run(plan_run(scorer, Wishes(**wishes), places), resume, said)


def child(*arguments: str | Path, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """`edgefleet agent score ARGUMENTS` as people start it."""
    return subprocess.run(command(*arguments), input=stdin, capture_output=True, timeout=120, env=environment())


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edgefleet", "agent", "score", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The objects of an NDJSON file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
