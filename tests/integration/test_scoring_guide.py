"""The lines of docs/scoring.md do what the page says when they are pasted into a shell."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.device_agent.batch_world import NAMES, csv_text, environment, ndjson_text, rows
from tests.unit.device_agent.bundles import logistic_bundle
from tests.unit.device_agent.test_batch_oip import door, request

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "scoring.md").read_text()
SECTION = GUIDE[GUIDE.index("## Batch, directories, stdin") :].split("\n## ")[0]
# Those of models of windows are run by test_scoring_examples.py.
LINES = re.findall(r"^    (.*edgefleet (?!.*--bundle (?:windows|gridded)).+)$", SECTION, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the lines name."""
    import pyarrow
    import pyarrow.parquet

    folder = tmp_path_factory.mktemp("guide")
    x = rows(20)
    logistic_bundle(folder / "bundle")
    (folder / "rows.csv").write_text(csv_text(x))
    (folder / "rows.ndjson").write_text(ndjson_text(x))
    pyarrow.parquet.write_table(pyarrow.table({name: x[:, i] for i, name in enumerate(NAMES)}), folder / "rows.parquet")
    (folder / "requests.ndjson").write_text("".join(json.dumps(request(x[i : i + 2])) + "\n" for i in range(0, 20, 2)))
    (folder / "inbox").mkdir()
    (folder / "outbox").mkdir()
    (folder / "inbox" / "a.csv").write_text(csv_text(x))
    return folder


def test_the_section_shows_every_door() -> None:
    assert len(LINES) >= 8
    for word in ("--resume", "--watch", "--url", " -", "--explain", "parquet"):
        assert any(word in line for line in LINES), word


@pytest.mark.parametrize("line", LINES)
def test_the_line_works_as_it_stands(place: Path, line: str) -> None:
    with door(place / "bundle") as url:
        script = f'edgefleet() {{ {shlex.quote(sys.executable)} -m edgefleet "$@"; }}\n' + line.replace("http://127.0.0.1:8080", url)
        done = subprocess.run(["sh", "-euc", script], cwd=place, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr if "--watch" not in line else "") == (0, "")
    for name in re.findall(r"--output (\S+\.\w+)", line):
        assert (place / name).stat().st_size > 0
    if "--output" not in line:
        assert all(json.loads(answer)["status"] == "ok" for answer in done.stdout.splitlines())
        assert done.stdout
    if "--watch" in line:
        assert (place / "outbox" / "a.scores.csv").exists()
