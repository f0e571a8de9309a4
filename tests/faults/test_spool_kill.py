"""kill -9 in the middle of writing telemetry: what `put` has returned is sent once, in order, or was dropped for room and counted."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLS = 24


def test_no_record_that_was_put_is_lost_or_doubled_by_a_kill_in_the_middle_of_writing(quick_folder: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.spool_victim", str(quick_folder), str(KILLS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == KILLS
    for outcome in outcomes:
        seen, said, dropped = outcome["seen"], outcome["said"], outcome["dropped"]
        assert seen == list(range(seen[0], seen[-1] + 1)), outcome  # in order, none twice, no hole
        assert seen[-1] in {said, said + 1}, (said, seen[-1])  # the last one may have been written but not told
        assert seen[0] - 1 == dropped, (seen[0], dropped)
    assert sum(outcome["dropped"] > 0 for outcome in outcomes) >= 5
    assert sum(outcome["dropped"] == 0 for outcome in outcomes) >= KILLS // 2
