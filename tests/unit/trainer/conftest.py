"""Small projects for the trainer's tests, and one real training of the digits' forest shared by many."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgefleet.cli.main import main
from trainer import Training, load_project, run_training

Tiny = Callable[..., Path]
Run = Callable[..., "Result"]
DIGITS = Path(__file__).parents[3] / "examples" / "digits"

TINY = """
[goal]
name = "tiny"
question = "Which of three?"
minimum = 0.6

[data]
source = "rows.csv"
id = "row_id"
block_rows = 10

[schema]
inputs = [
  { name = "a", low = -100.0, high = 100.0, range_policy = "reject" },
  { name = "b", missing = true },
  { name = "c", range_policy = "clip", low = 0.0, high = 1.0 },
]

[search]
candidates = ["forest"]
seed = 3
"""


def tiny_rows(seed: int = 0) -> list[str]:
    """600 CSV lines; the answer is told by the sign and size of `a`, up to some noise."""
    rng = np.random.default_rng(seed)
    lines = ["a,b,c,label,split,row_id"]
    for i in range(600):
        answer = i % 3
        split = ("train", "train", "validation", "test")[i // 3 % 4]
        a, b, c = rng.normal(10 * answer, 6), rng.normal(), rng.uniform(-0.5, 1.5)
        lines.append(f"{a:.6f},{b:.6f},{c:.6f},{'xyz'[answer]},{split},row-{i}")
    return lines


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def edgefleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: `main` with its error handling, without paying for the imports each time."""

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["edgefleet", *map(str, arguments)])
        returncode = 0
        try:
            main()
        except SystemExit as stop:
            returncode = int(stop.code or 0)
        captured = capsys.readouterr()
        return Result(returncode, captured.out, captured.err)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Path]:
    """Writes a project folder `tiny` with 600 rows; lines and settings may be replaced."""

    def write(lines: list[str] | None = None, text: str = TINY) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir(exist_ok=True)
        (folder / "project.toml").write_text(text)
        (folder / "rows.csv").write_text("\n".join(lines or tiny_rows()) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def digits_forest(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """The digits' forest, trained once."""
    return run_training(load_project(DIGITS), candidates=["forest"], runs_dir=tmp_path_factory.mktemp("runs"))
