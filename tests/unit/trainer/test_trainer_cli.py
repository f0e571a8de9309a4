import json
from pathlib import Path

from edgefleet.package import ModelPackage
from tests.unit.trainer.conftest import TINY, Run, Tiny


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
    assert "--override and --reason belong together" in result.stderr


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
