"""What a conversion keeps and what it costs: `python -m benchmarks.converter [--full] [--data FOLDER] [--json]`.

- Rows that converted trees answer otherwise than scikit-learn (`tree_rows.py`): 100,000 of each kind, a million with --full.
- Exact TreeSHAP and students of networks beside shap and beside one answer (`explain.py`).
- Integer networks: bytes, accuracy, and what making every TFLite file takes (`network_files.py`).

Ratios are of medians of interleaved calls in one run. Two minutes on two idle cores, seven with --full (whose rows are
made and answered in pieces of 50,000); beside other work two to four times that.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import explain
from benchmarks.figures import Figure, show
from benchmarks.network_files import network_figures
from benchmarks.tree_rows import rows_figures

PARTS: Final = ("rows", "trees", "students", "networks")
ROWS: Final = {False: 100_000, True: 1_000_000}
EXPLAINED: Final = {False: 40, True: 120}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.converter", description="What a conversion keeps and what it costs.")
    parser.add_argument("--full", action="store_true", help="a million rows, more explained rows, more networks")
    parser.add_argument("--data", type=Path, help="folder with one sub-folder per data set; without it, breast_cancer only")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only; repeatable")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    # Histogram boosting lets its threads meet after every tree: beside other work that takes seconds for few rows.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: list[Figure] = []
    for part in options.only or PARTS:
        for figure in figures(part, options.full, options.data):
            found.append(figure)
            print(f"{part}: {figure.name}: {figure.value:.3f} {figure.unit}", file=sys.stderr)
    show(found, options.json)


def figures(part: str, full: bool, data: Path | None) -> Iterator[Figure]:
    """The figures of one part."""
    if part == "rows":
        yield from rows_figures(ROWS[full])
    elif part == "trees":
        yield from explain.trees(EXPLAINED[full])
    elif part == "students":
        for name in explain.students_of(data):
            yield from explain.student(name, data)
    else:
        yield from network_figures(full)


if __name__ == "__main__":
    main()
