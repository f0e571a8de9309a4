"""The memory of a run does not grow with its input."""

import subprocess
import sys
from pathlib import Path

import pytest

from device_agent.doors.batch.rows import Position
from device_agent.doors.batch.text import CsvSource, NdjsonSource, Reading
from tests.unit.device_agent.batch_world import HEADER, NAMES, csv_text, environment, ndjson_text, rows
from tests.unit.device_agent.bundles import logistic_bundle, numbers

MEASURED = """
import atexit, sys
from pathlib import Path
from edgefleet.cli.main import main
# Not ru_maxrss, which also remembers the process that started this one.
peak = lambda: next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
atexit.register(lambda: print("peak", peak(), file=sys.stderr))
main()
"""
# Allocators and a Parquet file's notes on its row groups; the rows themselves would need 20 to 100 MB.
MAY_GROW_KB = 6_000


def write(path: Path, n: int) -> None:
    thousand = rows(1000)
    if path.suffix == ".parquet":
        import numpy as np
        import pyarrow
        import pyarrow.parquet

        x = np.tile(thousand, (n // 1000, 1))
        # One row group: even that is read in pieces.
        pyarrow.parquet.write_table(pyarrow.table({name: x[:, i] for i, name in enumerate(NAMES)}), path, row_group_size=n)
    elif path.suffix == ".csv":
        path.write_text(HEADER + csv_text(thousand).removeprefix(HEADER) * (n // 1000))
    else:
        path.write_text(ndjson_text(thousand) * (n // 1000))


def peak_kb(bundle: Path, source: Path, output: Path) -> int:
    asked = [sys.executable, "-c", MEASURED, "agent", "score", "--bundle", str(bundle), str(source), "--output", str(output)]
    # glibc gives threads that meet in it arenas of their own: how many depends on how busy the machine is, not on the rows.
    done = subprocess.run(asked, env=environment() | {"MALLOC_ARENA_MAX": "1"}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split("peak ")[1])


@pytest.mark.conversions
@pytest.mark.parametrize(("kind", "written"), [("csv", "csv"), ("ndjson", "ndjson"), ("csv", "parquet"), ("parquet", "ndjson")])
def test_a_million_rows_need_no_more_memory_than_fifty_thousand(tmp_path: Path, kind: str, written: str) -> None:
    bundle = logistic_bundle(tmp_path / "bundle").folder
    peaks = []
    for n in (140_000 if written == "parquet" else 50_000, 1_000_000):
        write(tmp_path / f"{n}.{kind}", n)
        peaks.append(peak_kb(bundle, tmp_path / f"{n}.{kind}", tmp_path / f"{n}.out.{written}"))
    assert peaks[1] - peaks[0] < MAY_GROW_KB, peaks


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_chunk_of_lines_that_are_far_too_long_is_a_short_one(tmp_path: Path, kind: str) -> None:
    line = "1," * 499_990 + "1"
    (tmp_path / "in").write_text(
        (HEADER if kind == "csv" else "") + "".join(f"{line if kind == 'csv' else f'[{line}]'}\n" for _ in range(12))
    )
    with (tmp_path / "in").open("rb") as stream:
        source = (CsvSource if kind == "csv" else NdjsonSource)(stream, Reading(inputs=numbers()), 1024, None, Position())
        chunks = [(chunk.first, len(chunk.rows), chunk.end.rows) for chunk in source.chunks()]

    assert chunks == [(1, 5, 5), (6, 5, 10), (11, 2, 12)]


def test_many_bad_rows_are_answered_and_remembered_by_nobody(tmp_path: Path) -> None:
    bundle = logistic_bundle(tmp_path / "bundle").folder
    (tmp_path / "in.csv").write_text(HEADER + "x,1,2,3,4\n" * 5000)
    asked = [sys.executable, "-m", "edgefleet", "agent", "score", "--bundle", str(bundle), str(tmp_path / "in.csv")]
    done = subprocess.run([*asked, "--output", str(tmp_path / "out.csv")], env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 3
    assert done.stderr == "edgefleet: 5000 rows were rejected (5000 type); their lines say why\n"
    assert (tmp_path / "out.csv").read_text().count("\n") == 5001
