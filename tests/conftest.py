"""What all tests share: no test is skipped in CI for a missing tool, and one real model that the slow tests use together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"


def edgefleet(*arguments: str) -> Any:
    """Run `edgefleet ... --json` and return its document."""
    command = [sys.executable, "-m", "edgefleet", *arguments, "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A missing Mosquitto or Chromium skips on a workstation and fails in CI."""
    needs = {"broker": ("mosquitto", "/usr/sbin/mosquitto"), "browser": ("chromium", "/usr/bin/chromium")}
    for marker, (name, usual_path) in needs.items():
        if item.get_closest_marker(marker) is None or shutil.which(name) is not None or os.access(usual_path, os.X_OK):
            continue
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed, and in CI nothing is skipped for a missing tool")
        pytest.skip(f"{name} is not installed: apt-get install {name}")


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the digits example with variants for both runtimes, trained and converted by the ordinary commands."""
    folder = tmp_path_factory.mktemp("digits")
    trained = edgefleet("train", str(DIGITS), "--runs-dir", str(folder / "runs"), "--candidate", "conv")
    converted = edgefleet("convert", str(trained["package"]), "--output", str(folder / "bundle"))
    return Path(converted["bundle"])
