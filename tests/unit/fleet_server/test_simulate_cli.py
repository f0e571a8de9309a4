"""`edgefleet simulate`: what a person and a machine see of simulated rollouts, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgefleet.cli.fleet import read_policy
from edgefleet.cli.simulate import simulate
from edgefleet.errors import ConfigError
from fleet_server.simulate.reference.known import DOCUMENTS

SMALL = ("--devices", "300", "--runs", "2", "--days", "7")
OURS = """name = "quick"
evidence = "auto"
soak_s = 3600.0
soak_rows = 0
deadline_s = 7200.0
hold_s = 86400.0
waves = ["10%", "100%"]
dwell_s = 3600.0
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(simulate, [str(argument) for argument in (*SMALL, *arguments)])


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    result = run(*arguments, "--json")
    assert result.exception is None, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["rows"]
    return found


def test_the_table_has_a_line_for_each_release_and_policy() -> None:
    result = run("--release", "1 %", "--release", "0.5:prompt", "--against", "time-phased")

    lines = result.stdout.splitlines()
    assert lines[0] == "300 devices, churn, 2 runs each, seed 1, at most 7 days"
    assert [("edgefleet" in line, "time-phased" in line) for line in lines[3:]] == [(True, False), (False, True)] * 2


def test_the_same_seed_gives_the_same_numbers_and_another_others() -> None:
    one, again, other = (rows("--release", "10 %", "--seed", seed) for seed in ("3", "3", "4"))

    assert one == again != other


def test_ours_stops_a_bad_release_that_time_phases_let_through() -> None:
    ours, phased = rows("--release", "0.5:prompt", "--against", "time-phased")

    assert (ours["policy"], ours["stopped"], phased["stopped"]) == ("edgefleet", 1.0, 0.0)
    assert ours["harmed_median"] < 10 < phased["harmed_median"]
    assert ours["how"]["aborted"] + ours["how"]["paused"] == 1.0
    assert (ours["done_h"], phased["halt_h"]) == (None, None)


def test_a_policy_file_of_ours_is_what_is_simulated(tmp_path: Path) -> None:
    file = tmp_path / "quick.toml"
    file.write_text(OURS, encoding="utf-8")

    quick, phased = rows("--release", "0.5 %", "--policy", file, "--against", "time-phased")

    assert quick["policy"] == "quick"
    assert quick["done_h"] < 24 < phased["done_h"]


@pytest.mark.parametrize("name", ["hawkbit-50", "aws-10", "time-phased"])
def test_a_document_of_another_system_gives_what_the_known_one_gives(tmp_path: Path, name: str) -> None:
    language, document = DOCUMENTS[name]
    file = tmp_path / "theirs.json"
    file.write_text(json.dumps(document), encoding="utf-8")

    ours, theirs, known = rows("--release", "10 %", "--policy", file, "--language", language, "--against", name)

    assert [row["policy"] for row in (ours, theirs, known)] == ["edgefleet", "theirs", name]
    assert {key: theirs[key] for key in theirs if key != "policy"} == {key: known[key] for key in known if key != "policy"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--devices", "0"], "0 devices cannot be simulated; choose 1 to 1000000"),
        (["--devices", "1000001"], "choose 1 to 1000000"),
        (["--days", "0"], "0 days cannot be simulated"),
        (["--runs", "0"], "0 runs are outside 1 to 100000"),
        (["--scene", "moon"], "scene 'moon' is unknown; known: churn, day-and-night"),
        (["--model", "twice as good"], "model 'twice as good' is unknown; known: nothing changed"),
        (["--release", "much"], "release 'much': expected SHARE[:KIND[:HOURS]]"),
        (["--release", "2:prompt"], "failing = 2.0 is no share"),
        (["--release", "nan"], "failing = nan is no share"),
        (["--release", "0.1:odd"], "KIND of prompt, late, dark, site"),
        (["--release", "0.1:site:3"], "expected SHARE"),
        (["--release", "0.1:late:nan"], "delay_h = nan is outside"),
        (["--release", "1 %", "--release", "1 %"], "named twice"),
        (["--against", "jenkins"], "known: all, time-phased"),
        (["--seed", "-1"], "seed -1 is negative"),
        (["--policy", "absent.toml"], "no policy can be read from it"),
        (["--policy", "absent.json", "--language", "aws"], "no policy can be read from it"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_the_remedy(arguments: list[str], says: str) -> None:
    result = run(*arguments)

    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (OURS.replace("soak_s = 3600.0", "soak_s = 54001.0").replace("7200.0", "90000.0"), "soak_s = 54001 is more than the 54000"),
        (OURS.replace('evidence = "auto"\n', "").replace("dwell_s = 3600.0\n", ""), "names every device"),
    ],
    ids=["a soak longer than is remembered", "one that names every device"],
)
def test_a_policy_that_cannot_be_simulated_is_refused_with_the_reason(tmp_path: Path, policy: str, says: str) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(policy, encoding="utf-8")

    result = run("--policy", file)

    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)


def test_what_a_virtual_fleet_does_not_know_is_said_by_name(tmp_path: Path) -> None:
    file = tmp_path / "back.toml"
    file.write_text(
        OURS + 'on_abort = "roll-back"\nsite_budget = 300\n[trial]\nattempts = 2\n[[windows]]\nstart = "08:00"\n', encoding="utf-8"
    )

    result = run("--policy", file, "--release", "0.5 %")

    assert result.exception is None
    assert "back.toml: not simulated: trial, on_abort\n" in result.stderr


def test_a_model_that_answers_otherwise_pauses_and_other_systems_do_not_look() -> None:
    ours, phased = rows("--release", "0.5 %", "--model", "memory + 15 %", "--against", "time-phased")

    assert (ours["how"]["paused"], phased["stopped"]) == (1.0, 0.0)


@pytest.mark.parametrize("scene", ["batteries", "duplicates", "reordering", "drift", "late-joiners", "everything"])
def test_every_scene_has_a_name_that_the_command_line_takes(scene: str) -> None:
    (row,) = rows("--release", "0.5:prompt", "--scene", scene, "--runs", "1")

    assert row["stopped"] == 1.0


def test_a_longer_soak_makes_a_rollout_longer(tmp_path: Path) -> None:
    done = []
    for soak_s, deadline_s in ((3_600.0, 7_200.0), (18_000.0, 36_000.0)):
        file = tmp_path / "soak.toml"
        file.write_text(OURS.replace("3600.0\nsoak_rows", f"{soak_s}\nsoak_rows").replace("7200.0", str(deadline_s)), encoding="utf-8")
        done.append(rows("--policy", file, "--release", "0.5 %")[0]["done_h"])

    assert done[1] > done[0] + 8


def test_a_language_without_a_file_is_a_wrong_use(tmp_path: Path) -> None:
    result = run("--language", "hawkbit")

    assert result.exit_code == 2
    assert "--language hawkbit is for a --policy FILE" in result.output


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text("{", encoding="utf-8")

    result = run("--policy", file, "--language", "mender")

    assert isinstance(result.exception, ConfigError)
    assert "broken.json: no policy can be read from it" in str(result.exception)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("soak_s = nan", "soak_s = nan is no finite number"),
        ("[rule]\nlimit = inf", "rule.limit = inf is no finite number"),
        ("dwell_s = [1.0, -inf]", "dwell_s[1] = -inf is no finite number"),
    ],
)
def test_a_number_that_is_none_is_named_before_it_is_sent_anywhere(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(line)

    with pytest.raises(ConfigError) as refused:
        read_policy(path)

    assert says in str(refused.value)
