import html
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from edgefleet.package import ModelPackage
from tests.unit.trainer.conftest import TINY, Run, Tiny, tiny_rows


def test_train_json_names_the_package_and_every_candidate(edgefleet: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder, output = tiny(), tmp_path / "out"

    result = edgefleet("train", folder, "--json", "--output", output)

    document = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert document["package"] == str(output)
    assert ModelPackage.open(output).digest == document["package_digest"]
    assert document["winner"] == "forest"
    assert Path(document["run"]).parent == folder / "runs"
    candidate = document["candidates"][0]
    assert set(candidate) == {"name", "package", "value", "low", "high", "n", "seconds", "gates"}
    assert candidate["low"] < candidate["value"] < candidate["high"]
    assert [gate["gate"] for gate in candidate["gates"]] == [f"G{number}" for number in range(1, 11)]


def test_train_prints_the_goal_first_and_the_gates_in_sentences(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("train", tiny())

    assert result.stdout.startswith("tiny: Which of three?\ngoal: accuracy at least 0.6;")
    assert "forest (won)" in result.stdout
    assert "G4 pass: Accuracy" in result.stdout


def test_a_refused_training_exits_1_and_still_prints_its_gates_as_json(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("train", tiny(text=TINY.replace("minimum = 0.6", "minimum = 0.999")), "--json")

    document = json.loads(result.stdout)
    assert result.returncode == 1
    assert (document["package"], document["winner"]) == (None, None)
    assert {gate["gate"]: gate["verdict"] for gate in document["candidates"][0]["gates"]}["G4"] == "fail"
    assert "--override-gate G4 --reason" in result.stderr


def test_an_override_without_reason_is_refused(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("train", tiny(), "--override-gate", "G4")

    assert result.returncode == 3
    assert "--override-gate and --reason belong together" in result.stderr


def test_set_changes_a_setting_for_this_run(edgefleet: Run, tiny: Tiny) -> None:
    folder = tiny()

    result = edgefleet("train", folder, "--set", "goal.minimum=0.999", "--override-gate", "G4", "--reason", "shown in a test", "--json")

    package = ModelPackage.open(json.loads(result.stdout)["package"])
    assert result.returncode == 0
    assert package.index.overrides[0].reason == "shown in a test"
    assert json.loads(package.read("provenance.json"))["project"]["goal"]["minimum"] == 0.999


def test_a_bad_project_exits_3_with_one_line(edgefleet: Run, tmp_path: Path) -> None:
    result = edgefleet("train", tmp_path / "nowhere")

    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "project.toml: cannot be read" in result.stderr


def test_runs_list_shows_each_run_and_does_not_hide_a_damaged_one(edgefleet: Run, tiny: Tiny) -> None:
    folder = tiny()
    edgefleet("train", folder)
    damaged = folder / "runs" / "00000000T000000Z-dead00"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")

    table = edgefleet("runs", "list", "--project", folder)
    document = json.loads(edgefleet("runs", "list", "--project", folder, "--json").stdout)

    lines = table.stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "status", "winner"]
    assert "unreadable" in lines[2]
    assert "packaged" in lines[3]
    assert [record["status"] for record in document["runs"]] == ["unreadable", "packaged"]


def test_runs_list_of_a_fresh_project_says_what_makes_one(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("runs", "list", "--project", tiny())

    assert result.returncode == 0
    assert "no runs in" in result.stdout


def test_a_refused_run_is_repeated_and_compared(edgefleet: Run, tiny: Tiny) -> None:
    folder = tiny(text=TINY.replace("minimum = 0.6", "minimum = 0.999"))
    first = json.loads(edgefleet("train", folder, "--json").stdout)

    again = edgefleet("train", folder, "--replay", Path(first["run"]).name, "--json")

    assert again.returncode == 0
    assert json.loads(again.stdout)["reproduced"] is True


@pytest.mark.parametrize("option", [("--set", "search.seed=9"), ("--candidate", "tree"), ("--output", "copy"), ("--explain-cache",)])
def test_a_replay_takes_no_option_that_it_would_not_obey(edgefleet: Run, tiny: Tiny, option: tuple[str, ...]) -> None:
    result = edgefleet("train", tiny(), "--replay", "2026", *option)

    assert result.returncode == 2
    assert "--replay repeats a run as it was" in result.stderr


def test_a_metric_that_is_not_defined_can_be_overruled_and_is_printed_as_unknown(edgefleet: Run, tiny: Tiny) -> None:
    lines = [line for line in tiny_rows() if ",z," not in line and ",y,validation" not in line]

    result = edgefleet("train", tiny(lines), "--set", "goal.metric='auc'", "--override-gate", "G4", "--reason", "one class only")

    assert result.returncode == 0, result.stderr
    assert "Test rows, looked at once: auc 0." in result.stdout
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("forest (won)")] == [["forest", "(won)", "-"]]


def test_the_report_says_how_to_repeat_the_run_and_how_long_it_took(edgefleet: Run, tiny: Tiny, tmp_path: Path) -> None:
    document = json.loads(edgefleet("train", tiny(), "--runs-dir", tmp_path / "my runs", "--json").stdout)

    page = Path(document["report"]).read_text()

    command = re.search(r"<code>(edgefleet train .*?)</code>", page)
    assert command is not None
    assert shlex.split(html.unescape(command[1])) == [
        "edgefleet", "train", os.path.relpath(tmp_path / "tiny"), "--replay", Path(document["run"]).name,
        "--runs-dir", os.path.relpath(tmp_path / "my runs"),
    ]  # fmt: skip
    assert "took" in page


def test_the_report_of_a_refused_training_shows_every_candidates_gates(edgefleet: Run, tiny: Tiny) -> None:
    text = TINY.replace("minimum = 0.6", "minimum = 0.999").replace('["forest"]', '["forest", "tree"]')
    document = json.loads(edgefleet("train", tiny(text=text), "--json").stdout)

    page = (Path(document["run"]) / "report.html").read_text()

    assert page.count("is below the minimum 0.999.</td>") == 2
    assert "<h3>forest</h3>" in page


def test_the_card_of_a_package_holds_what_was_measured(edgefleet: Run, tiny: Tiny) -> None:
    document = json.loads(edgefleet("train", tiny(), "--json").stdout)

    card = (Path(document["package"]) / "card.md").read_text()

    assert "- **Rows**: 600" in card
    assert "- **Reached**: accuracy 0." in card
    assert "| dead\\_sensor" in card
    assert "Expected calibration error" in card
    assert card.count("Not recorded.") <= 2  # slices (none declared), the command


def test_a_report_that_cannot_be_written_exits_3_in_one_line(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("data", "report", tiny(), "--output", "/dev/null/report.html")

    assert result.returncode == 3
    assert "/dev/null/report.html: the report cannot be written: File exists; name another file" in result.stderr
