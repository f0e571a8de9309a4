"""`edgefleet runs`: what a person sees of recorded runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgefleet.cli.runs import differing_settings, runs, side_by_side
from edgefleet.errors import ConfigError
from trainer.runs import Run


def make(folder: Path, seed: int, value: float) -> str:
    """A finished run in `folder`/runs, in the form that `edgefleet train` leaves."""
    run = Run(folder / "runs")
    with run.phase("fit forest"):
        pass
    measure = {"value": value, "low": value - 0.1, "high": value + 0.05, "n": 40}
    run.record |= {
        "question": "Does the pump fail?",
        "settings": {"search": {"seed": seed, "candidates": ["forest"]}, "goal": {"minimum": 0.8}},
        "winner": "forest",
        "test": {"auc": measure},
        "report": {
            "metric": "auc",
            "metrics": {
                "validation": {"auc": measure, "brier": {"value": 0.2, "low": None, "high": None, "n": 40}},
                "test": {"auc": measure},
            },
            "candidates": [{"name": "forest", **measure}, {"name": "broken", "value": None}],
        },
        "steps": {"fit forest": "it runs for the first time"},
    }
    run.finish("packaged")
    return run.id


def call(folder: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(runs, [*arguments, "--project", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_the_list_shows_the_metric_with_its_interval_and_damaged_runs_too(tmp_path: Path) -> None:
    run_id = make(tmp_path, 1, 0.85)
    (tmp_path / "runs" / "20990101T000000Z-broken").mkdir()
    (tmp_path / "runs" / "20990101T000000Z-broken" / "run.json").write_text("{")

    lines = call(tmp_path, "list").output.splitlines()

    assert lines[2].split()[:4] == [run_id, "packaged", "forest", "auc"]
    assert lines[2].count("0.85 [0.75, 0.9] n=40") == 2
    assert lines[3].split()[:2] == ["20990101T000000Z-broken", "unreadable"]


def test_an_empty_project_is_told_how_to_make_a_run(tmp_path: Path) -> None:
    assert call(tmp_path, "list").output == f"no runs in {tmp_path / 'runs'}; `edgefleet train {tmp_path}` makes one\n"


def test_one_run_is_shown_with_its_measures_and_why_each_step_ran(tmp_path: Path) -> None:
    output = call(tmp_path, "show", make(tmp_path, 1, 0.85)[-6:]).output

    assert "Does the pump fail?" in output
    assert "0.85 [0.75, 0.9] n=40" in output
    assert "it runs for the first time" in output


def test_the_comparison_shows_the_settings_that_differ_and_no_others(tmp_path: Path) -> None:
    first, second = make(tmp_path, 1, 0.85), make(tmp_path, 2, 0.9)

    document: dict[str, Any] = json.loads(call(tmp_path, "compare", first, second, "--json").output)

    assert document["runs"] == [first, second]
    assert document["settings"] == {"settings.search.seed": [1, 2]}
    assert [entry["value"] for entry in document["metrics"]["test.auc"]] == [0.85, 0.9]
    table = call(tmp_path, "compare", first, second).output
    assert "settings.search.seed" in table
    assert "settings.goal.minimum" not in table
    assert "0.9 [0.8, 0.95] n=40" in table


def test_a_measure_that_one_run_lacks_is_null() -> None:
    one: dict[str, Any] = {"id": "a", "report": {"metric": "auc", "metrics": {"test": {"auc": {"value": 1.0}}}}}

    assert side_by_side([one, {"id": "b"}]) == {"test.auc": [{"value": 1.0, "low": None, "high": None, "n": None}, None]}
    assert differing_settings([one, {"id": "b"}]) == {}


def test_one_run_alone_is_no_comparison(tmp_path: Path) -> None:
    result = CliRunner().invoke(runs, ["compare", make(tmp_path, 1, 0.8), "--project", str(tmp_path)])

    assert result.exit_code == 2
    assert "name at least two runs" in result.output


def test_an_unknown_run_is_a_setting_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'zzz'"):
        call(tmp_path, "show", "zzz")
