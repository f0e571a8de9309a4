"""What an answer says beside its label: outliers, values, anomalies, rows that the model fails on, explanations in words."""

from pathlib import Path

import numpy as np
import pytest

from device_agent.explanation import Explanation, said_value
from edgefleet.manifest import Input
from tests.unit.device_agent.batch_world import HEADER, lines_of, score, table_of
from tests.unit.device_agent.bundles import numbers, regression_graph, training_rows, write_bundle
from tests.unit.device_agent.test_scorer_decisions import detector_bundle, outlier_bundle, table_graph

ZERO, STRANGE = "0,0,0,0,0\n", "1,1,1,1,1\n"


@pytest.mark.parametrize("top", [0, 2])
def test_outliers_are_told_with_and_without_explanation_and_counted(tmp_path: Path, top: int) -> None:
    bundle = outlier_bundle(tmp_path / "bundle").folder
    (tmp_path / "in.csv").write_text(HEADER + ZERO + STRANGE + "x,0,0,0,0\n")

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", top=top)
    score(bundle, tmp_path / "in.csv", tmp_path / "out.csv", top=top)
    score(bundle, tmp_path / "in.csv", tmp_path / "out.parquet", top=top)

    import pyarrow.parquet

    assert [line.get("outlier") for line in lines_of(tmp_path / "out.ndjson")] == [False, True, None]
    assert [line["outlier"] for line in table_of(tmp_path / "out.csv")] == ["false", "true", ""]
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["outlier"].to_pylist() == [False, True, None]
    assert outcome.tally.outliers == 1


@pytest.mark.parametrize("top", [0, 3])
def test_a_detector_that_fails_on_a_row_hurts_no_answer(tmp_path: Path, top: int) -> None:
    bundle = outlier_bundle(tmp_path / "bundle", table_graph()).folder
    (tmp_path / "in.csv").write_text(HEADER + "7,0,0,0,0\n")

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", top=top)

    (line,) = lines_of(tmp_path / "out.ndjson")
    assert (line["status"], line.get("outlier"), outcome.tally.scored) == ("ok", None, 1)


def test_a_detector_says_normal_or_strange_with_its_score(tmp_path: Path) -> None:
    bundle = detector_bundle(tmp_path / "bundle", 3.0).folder
    (tmp_path / "in.csv").write_text(HEADER + ZERO + STRANGE)
    score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson")
    assert [(line["label"], line["score"]) for line in lines_of(tmp_path / "out.ndjson")] == [("normal", 0.0), ("strange", 5.0)]


def test_a_value_has_no_label(tmp_path: Path) -> None:
    x, _ = training_rows()
    write_bundle(tmp_path / "bundle", regression_graph(np.arange(5, dtype=np.float32)), x, numbers(), [])
    (tmp_path / "in.csv").write_text(HEADER + STRANGE)
    score(tmp_path / "bundle", tmp_path / "in.csv", tmp_path / "out.ndjson")
    (line,) = lines_of(tmp_path / "out.ndjson")
    assert (line["label"], line["score"]) == (None, 10.0)


def test_a_row_that_the_model_fails_on_is_refused_alone(tmp_path: Path) -> None:
    x, _ = training_rows()
    write_bundle(tmp_path / "bundle", table_graph(), x, numbers(), [])
    (tmp_path / "in.csv").write_text(HEADER + ZERO + "7,0,0,0,0\n" + STRANGE)

    outcome = score(tmp_path / "bundle", tmp_path / "in.csv", tmp_path / "out.ndjson", bad=tmp_path / "bad.ndjson")

    assert [line.get("score") for line in lines_of(tmp_path / "out.ndjson")] == [0.0, None, 5.0]
    assert [(bad["row"], bad["reason"]) for bad in lines_of(tmp_path / "bad.ndjson")] == [(2, "runtime")]
    assert (outcome.tally.offered, outcome.tally.scored, outcome.tally.rejected) == (3, 2, {"runtime": 1})


INPUTS = [Input(name="vibration_rms", unit="mm/s"), Input(name="colour", kind="category", categories=["red", "blue"]), Input(name="idle")]


def told(*contributions: float, error: np.ndarray | None = None) -> Explanation:
    return Explanation(0.5, np.array(contributions), ("vibration_rms", "colour", "idle"), "linear", error, 0.0)


def test_an_explanation_in_words_names_value_unit_direction_and_class() -> None:
    words = told(1.9, -0.33, 0.0).as_text(INPUTS, np.array([8.1, 1.0, 4.0], np.float32), "failure")
    assert words == "vibration_rms 8.1 mm/s pushed towards failure by +1.9; colour blue pushed away from failure by -0.33"


def test_without_a_class_the_answer_is_raised_or_lowered() -> None:
    words = told(-1.5, 0.25, 0.0).as_text(INPUTS, np.array([np.nan, -1.0, 4.0], np.float32), None, k=2)
    assert words == "vibration_rms missing lowered the answer by -1.5; colour unseen raised the answer by +0.25"


def test_an_explanation_that_moved_nothing_says_so() -> None:
    assert told(0.0, 0.0, 0.0).as_text(INPUTS, np.zeros(3, np.float32), "failure") == "no input moved the answer"


def test_plain_values_carry_the_error_where_it_is_known() -> None:
    found = told(0.1, -2.0, 0.0, error=np.array([0.0, 0.5, 0.0])).as_plain(INPUTS, np.array([np.nan, 0.0, 4.0], np.float32), k=2)
    assert found == [
        {"input": "colour", "value": "red", "contribution": -2.0, "error": 0.5},
        {"input": "vibration_rms", "value": None, "contribution": 0.1, "error": 0.0},
    ]
    assert "error" not in told(1.0, 0.0, 0.0).as_plain(INPUTS, np.zeros(3, np.float32))[0]


@pytest.mark.parametrize(("value", "words"), [(0.0, "0 mm/s"), (1234567.0, "1.235e+06 mm/s"), (float("nan"), "missing")])
def test_a_number_is_said_with_its_unit(value: float, words: str) -> None:
    assert said_value(INPUTS[0], value) == words
