"""The Python of docs/scoring.md, and its lines about windows and the agent's budget, do what the page says as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.grid import Sampling
from tests.unit.device_agent.agent_world import enroll, eventually
from tests.unit.device_agent.batch_world import NAMES, csv_text, environment, rows, table_of
from tests.unit.device_agent.bundles import logistic_bundle
from tests.unit.device_agent.test_scorer_decisions import outlier_bundle
from tests.unit.device_agent.test_scorer_windows import ROWS, window_bundle

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "scoring.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.+?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    outlier_bundle(folder / "bundle")
    logistic_bundle(folder / "other")
    window_bundle(folder / "windows")
    sampling = Sampling(rate_s=1.0, hold=1, reset_after=10, time="at", group="machine", present=NAMES)
    window_bundle(folder / "gridded", changes={"sampling": sampling})
    head, *lines = csv_text(rows(20)).splitlines()
    told = [f"{line},{1_790_000_000 + i // 2},{'ab'[i % 2]}" for i, line in enumerate(lines)]
    (folder / "rows.csv").write_text("\n".join([f"{head},at,machine", *told]) + "\n")
    enroll(folder / "device")
    return folder


def printed(place: Path, example: str) -> list[str]:
    """What an example prints as a program of its own."""
    done = subprocess.run([sys.executable, "-c", example], cwd=place, env=environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def example(words: str) -> str:
    """The one example that has these words."""
    found: list[str] = [text for text in EXAMPLES if words in text]
    (one,) = found
    return one


def test_every_example_is_run_here_or_by_the_models_guide() -> None:
    known = ("memory_bytes", "os.fork", "scorer.stream()", "score_stream_at", "begin_trial", "begin_split")
    assert len(EXAMPLES) == len(known)
    assert [sum(words in text for text in EXAMPLES) for words in known] == [1] * len(known)


def test_rows_are_scored_explained_and_judged_as_outliers(place: Path) -> None:
    because, score, explanation, batch, *_ = printed(place, example("memory_bytes"))

    assert because.startswith("onnx-fp32 is the first of 1 variants that this device can run")
    assert re.fullmatch(r"(no|yes) \d\.\d+ -?\d+\.\d+ True [0-9a-f]{64}", score)  # 1 + 2 + 3 + 4 + 5 is above the detector's 3
    assert all(f"'{name}': " in explanation for name in NAMES)
    assert "1: RowRejected" in batch


def test_a_forked_child_goes_on_with_its_parent_s_scorer(place: Path) -> None:
    lines = [line.split() for line in printed(place, example("os.fork"))]

    assert len({pid for pid, _ in lines}) == 2
    assert len({label for _, label in lines}) == 1


def test_a_stream_warms_up_and_answers(place: Path) -> None:
    *pushed, streamed = printed(place, example("scorer.stream()"))

    assert [line.split()[0] for line in pushed] == ["warming_up"] * (ROWS - 1) + ["ok"] * 2
    assert streamed == str(["warming_up"] * (ROWS - 1) + ["ok"] * 2)


def test_a_stream_on_a_grid_answers_grid_points(place: Path) -> None:
    lines = [line.split() for line in printed(place, example("score_stream_at"))]

    assert [float(at) for at, _ in lines] == [1_790_000_000.0 + i for i in range(5)]
    assert [status for _, status in lines] == ["warming_up"] * (ROWS - 1) + ["ok"] * 3


def test_a_candidate_is_compared_without_a_fleet(place: Path) -> None:
    (line,) = printed(place, example("begin_trial"))

    agreed, both, shed = map(int, re.findall(r"\d+", line))
    assert agreed == both == 50 - shed  # the same weights
    assert both >= 20


@pytest.mark.parametrize("line", re.findall(r"^    (edgefleet agent score --bundle (?:windows|gridded) .+)$", GUIDE, flags=re.MULTILINE))
def test_the_lines_about_windows_answer_the_rows_of_each_machine(place: Path, line: str) -> None:
    words = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=place, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    statuses = [row["status"] for row in table_of(place / words[words.index("--output") + 1])]
    assert statuses.count("warming_up") == 2 * (ROWS - 1)
    assert statuses.count("ok") == 20 - 2 * (ROWS - 1) - statuses.count("gathered")
    assert (statuses.count("gathered") == 2) == ("gridded" in line)


def test_the_agent_s_line_with_a_budget_starts_and_its_status_has_the_field(place: Path) -> None:
    run, status = re.findall(r"^    (edgefleet agent (?:run --dir device --memory-mb|status --dir device).*)$", GUIDE, flags=re.MULTILINE)
    with subprocess.Popen([sys.executable, "-m", *shlex.split(run)], cwd=place, env=environment(), stderr=subprocess.DEVNULL) as agent:
        try:
            eventually("the agent's status", (place / "device" / "health.json").exists)
            done = subprocess.run(
                [sys.executable, "-m", *shlex.split(status)], cwd=place, env=environment(), capture_output=True, text=True
            )
        finally:
            agent.terminate()
            code = agent.wait(90)

    assert (code, done.returncode) == (0, 0)
    assert "variant_because" in [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
