"""The trainer's own steps through the cache, as its user sees them: train, change one line of the trainer, train again."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = """
[goal]
name = "two"
question = "Which of two?"
minimum = 0.6

[data]
source = "rows.csv"

[schema]
numbers = ["a", "b"]

[search]
candidates = ["tree"]
"""


class Trainer:
    """A copy of the code that may be edited, and a small project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in ("edgefleet", "trainer"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "two").mkdir()
        (folder / "two" / "project.toml").write_text(PROJECT)
        rng = np.random.default_rng(3)
        lines = ["a,b,label,split"]
        for i in range(600):
            a = rng.normal(2 * (i % 2))
            lines.append(f"{a:.6f},{rng.normal():.6f},{'xy'[i % 2]},{('train', 'train', 'validation', 'test')[i // 2 % 4]}")
        (folder / "two" / "rows.csv").write_text("\n".join(lines) + "\n")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-P", "-m", "edgefleet", "train", str(self.folder / "two"), "--json", *arguments]
        env = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=self.folder)

    def train(self) -> dict[str, str]:
        """Train; return why by name of the steps that ran."""
        with self.start() as process:
            output, trouble = process.communicate(timeout=240)
        assert process.returncode == 0, trouble
        record: dict[str, Any] = json.loads((Path(json.loads(output)["run"]) / "run.json").read_bytes())
        return {name: why for name, why in record["steps"].items() if not why.startswith("unchanged")}

    def edit(self, file: str, old: str, new: str) -> None:
        text = (self.folder / "trainer" / file).read_text()
        assert old in text
        (self.folder / "trainer" / file).write_text(text.replace(old, new, 1))


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)


@pytest.mark.slow
def test_a_repeat_runs_no_step_and_a_changed_line_only_its_step_and_those_below(trainer: Trainer) -> None:
    first = trainer.train()
    assert {"read", "judge rows", "fit tree", "judge tree", "test", "package tree"} <= set(first)
    assert set(first.values()) == {"it runs for the first time"}

    assert trainer.train() == {}

    trainer.edit("golden.py", "def choose_golden(", "# A comment.\ndef choose_golden(")
    assert trainer.train() == {}, "a comment means nothing"

    trainer.edit("packaging.py", "CALIBRATION_ROWS: Final = 400", "CALIBRATION_ROWS: Final = 401")
    assert trainer.train() == {"package tree": "code of trainer.packaging.CALIBRATION_ROWS changed"}


@pytest.mark.slow
def test_a_training_killed_in_the_middle_goes_on_where_it_stood(trainer: Trainer) -> None:
    text = (trainer.folder / "trainer" / "stages.py").read_text()
    # A place to be killed at: the step before is in the cache, this one waits for a line that never comes.
    hook = "        from trainer import packaging\n"
    assert hook in text
    waiting = hook + "        print('packaging', flush=True)\n        import sys\n        sys.stdin.readline()\n"
    (trainer.folder / "trainer" / "stages.py").write_text(text.replace(hook, waiting, 1))
    command = [sys.executable, "-P", "-m", "edgefleet", "train", str(trainer.folder / "two"), "--json"]
    env = {**os.environ, "PYTHONPATH": str(trainer.folder)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=trainer.folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "packaging\n"
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    (trainer.folder / "trainer" / "stages.py").write_text(text)

    assert trainer.train() == {"package tree": "it runs for the first time"}
    statuses = [json.loads(path.read_bytes())["status"] for path in sorted((trainer.folder / "two" / "runs").glob("*/run.json"))]
    assert sorted(statuses) == ["packaged", "running"], "the killed one never said how it ended; `runs list` calls it interrupted"
