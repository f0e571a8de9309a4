"""The agent at full load: every row is scored, rejected or shed, every statistic arrives, memory stays flat."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.broker
DOORS = ("call", "followed file", "HTTP", "MQTT", "watched folder")
ROOT = Path(__file__).resolve().parents[2]


def soak(rows: int, minutes: float, *options: str) -> dict[str, dict[str, Any]]:
    """Figures by name of one run in a process of its own, whose memory is that of the soak alone."""
    command = [sys.executable, "-m", "benchmarks.soak", "--json", "--rows", str(rows), "--minutes", str(minutes), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=minutes * 60 + 280)
    assert done.returncode == 0, done.stderr[-3000:]
    return {figure["name"]: figure for figure in json.loads(done.stdout)["figures"]}


def test_twenty_thousand_rows_of_all_doors_are_all_accounted_for() -> None:
    figures = soak(20_000, 1.0)

    assert figures["rows offered"]["value"] >= 20_000
    assert figures["rejected"]["value"] > 200
    assert [door for door in DOORS if not figures[f"rows by {door}"]["value"]] == []
    assert [name for name, figure in figures.items() if not figure["ok"]] == []


@pytest.mark.conversions
@pytest.mark.timeout(900)
def test_four_minutes_of_full_load_at_every_door_are_accounted_for_and_leave_no_memory_behind() -> None:
    figures = soak(10_000_000, 4.0)

    assert figures["rows offered"]["value"] >= 1_000_000
    assert min(figures[f"rows by {door}"]["value"] for door in DOORS) > 10_000
    assert "memory growth per million rows" in figures
    assert [name for name, figure in figures.items() if not figure["ok"]] == []


@pytest.mark.conversions
@pytest.mark.timeout(600)
def test_a_real_agent_process_accounts_for_every_row_of_every_door_and_keeps_its_memory() -> None:
    figures = soak(100_000_000, 3.0, "--process")

    assert min(figures[f"rows by {door}"]["value"] for door in DOORS if door != "call") > 1_000
    assert [name for name, figure in figures.items() if not figure["ok"]] == []
