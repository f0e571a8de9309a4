"""The `run` script: what a newcomer types. The slow part, the installation itself, is what every other test runs in."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, path: str | None = None, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    if path is not None:
        variables["PATH"] = path
    return subprocess.run([str(ROOT / "run"), *arguments], cwd=cwd, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with the usual small tools and no python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "dirname", "cat", "cksum", "tr", "grep", "id"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def test_without_a_command_it_says_what_there_is() -> None:
    result = run()
    assert result.returncode == 0
    assert "./run demo" in result.stderr
    assert "./run test" in result.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    assert run("dance").returncode == 2


def test_it_is_plain_posix_shell() -> None:
    assert (ROOT / "run").read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["dash", "-n", str(ROOT / "run")], timeout=10).returncode == 0


def test_a_missing_python_is_explained_in_one_sentence(bare_path: Path, tmp_path: Path) -> None:
    result = run("setup", path=str(bare_path), EDGEFLEET_VENV=str(tmp_path / "venv"))
    assert result.returncode == 78
    assert result.stderr.strip().count("\n") == 0
    assert "no python3 of version 3.11, 3.12 or 3.13 was found" in result.stderr


def test_a_python_that_is_too_old_is_not_taken(bare_path: Path, tmp_path: Path) -> None:
    (bare_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (bare_path / "python3").chmod(0o755)
    result = run("setup", path=str(bare_path), EDGEFLEET_VENV=str(tmp_path / "venv"))
    assert result.returncode == 78


def test_a_missing_venv_module_is_explained(bare_path: Path, tmp_path: Path) -> None:
    (bare_path / "python3").write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\nexit 1\n')
    (bare_path / "python3").chmod(0o755)
    result = run("setup", path=str(bare_path), EDGEFLEET_VENV=str(tmp_path / "venv"))
    assert result.returncode == 78
    assert "apt-get install python3-venv" in result.stderr


def finished_setup(tmp_path: Path, extras: str, tools: dict[str, int]) -> Path:
    """An environment that needs no installation; each tool says its name and ends with the given code."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for name, code in tools.items():
        (venv / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*"\nexit {code}\n')
        (venv / "bin" / name).chmod(0o755)
    inputs = f"{extras}\n".encode() + (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    stamp = subprocess.run(["cksum"], input=inputs, capture_output=True, check=True).stdout.decode().replace(" ", "").strip()
    (venv / ".edgefleet-stamp").write_text(stamp + "\n")
    return venv


def test_a_finished_setup_does_nothing_and_works_from_any_directory(tmp_path: Path) -> None:
    venv = finished_setup(tmp_path, "train,keras,convert,server,demo", {"python": 0})
    result = run("demo", "--headless", "--seed", "3", cwd=tmp_path, EDGEFLEET_VENV=str(venv))
    assert (result.returncode, result.stdout, result.stderr) == (0, "python -m edgefleet demo --headless --seed 3\n", "")


@pytest.mark.parametrize("failing", ["ruff", "mypy", "lint-imports", "python"])
def test_a_check_that_fails_ends_the_tests(failing: str, tmp_path: Path) -> None:
    order = ["ruff", "mypy", "lint-imports", "python"]
    venv = finished_setup(tmp_path, "all,dev", {name: 7 if name == failing else 0 for name in order})
    result = run("test", cwd=tmp_path, EDGEFLEET_VENV=str(venv))
    assert result.returncode == 7
    assert [name for name in order if f"{name} " in result.stdout] == order[: order.index(failing) + 1]
