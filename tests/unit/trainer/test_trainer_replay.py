"""What a repeat of a run is told to be different in."""

import copy
from typing import Any

import pytest

from edgefleet.errors import ArtifactError
from trainer.replay import compare_replay, replay_settings


def record() -> dict[str, Any]:
    """A run's record as `edgefleet train` writes it, cut to what a replay reads."""
    return {
        "id": "20260101T000000Z-aaaaaa",
        "status": "packaged",
        "winner": "forest",
        "settings": {"goal": {"metric": "accuracy", "minimum": 0.8}, "search": {"seed": 1}},
        "project_digest": "p1",
        "seed": 1,
        "candidates_asked": ["forest", "mlp_keras"],
        "overrides_asked": [{"gate": "G5", "reason": "few rows"}],
        "data_digest": "d1",
        "champion": None,
        "environment": {"python": "3.11.7", "platform": "Linux", "cores": 2, "packages": {"numpy": "2.4.6", "sklearn": "1.9.1"}},
        "git": {"commit": "c1", "dirty": False},
        "candidates": {
            "forest": {
                "model": "model.skops",
                "model_digest": "m1",
                "parameters": {"depth": 3},
                "metrics": {"accuracy": {"value": 0.9, "n": 40}},
            },
            "mlp_keras": {"model": "model.keras", "model_digest": "k1", "metrics": {"accuracy": {"value": 0.8, "low": 0.7, "n": 40}}},
        },
        "test": {"accuracy": {"value": 0.88, "low": 0.8, "high": 0.93, "n": 50}},
        "seconds": {"fit": 1.0},
        "started_at": "2026-01-01T00:00:00+00:00",
    }


def test_a_repeat_with_other_times_and_another_id_differs_in_nothing() -> None:
    repeat = record() | {"id": "20270101T000000Z-bbbbbb", "seconds": {"fit": 9.0}, "started_at": "2027-01-01T00:00:00+00:00"}

    assert compare_replay(record(), repeat) == []


def changed(path: str, value: Any) -> dict[str, Any]:
    repeat = copy.deepcopy(record())
    *above, last = path.split("/")
    table = repeat
    for name in above:
        table = table[name]
    table[last] = value
    return repeat


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("data_digest", "d2", "rows was d1 and is d2"),
        ("settings/search/seed", 2, "setting search.seed was 1 and is 2"),
        ("settings/goal/minimum", None, "setting goal.minimum was 0.8 and is absent"),
        ("environment/packages/numpy", "2.5", "version numpy was 2.4.6 and is 2.5"),
        ("environment/python", "3.12.1", "python was 3.11.7 and is 3.12.1"),
        ("git/commit", "c2", "git commit was c1 and is c2"),
        ("candidates_asked", ["forest"], "candidates asked was ['forest', 'mlp_keras'] and is ['forest']"),
        ("champion", "x" * 64, f"champion was absent and is {'x' * 64}"),
    ],
)
def test_a_different_cause_is_named_with_both_values(path: str, value: Any, told: str) -> None:
    assert [(difference.kind, difference.sentence) for difference in compare_replay(record(), changed(path, value))] == [("cause", told)]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("winner", "mlp_keras", "winner was forest and is mlp_keras"),
        ("status", "refused", "outcome was packaged and is refused"),
        ("candidates/forest/model_digest", "m2", "forest: model bytes was m1 and is m2"),
        ("candidates/forest/parameters/depth", 4, "forest: parameter depth was 3 and is 4"),
        ("candidates/mlp_keras/metrics/accuracy/value", 0.8001, "mlp_keras: accuracy was 0.8 and is 0.8001"),
        ("candidates/mlp_keras/metrics/accuracy/low", None, "mlp_keras: accuracy.low was 0.7 and is absent"),
        ("test/accuracy/value", 0.87, "test: accuracy was 0.88 and is 0.87"),
    ],
)
def test_a_different_result_is_named_with_both_values(path: str, value: Any, told: str) -> None:
    assert [(difference.kind, difference.sentence) for difference in compare_replay(record(), changed(path, value))] == [("result", told)]


def test_keras_may_differ_in_bytes_and_within_a_millionth_and_scikit_learn_may_not() -> None:
    repeat = record()
    repeat["candidates"]["mlp_keras"] |= {"model_digest": "k2", "metrics": {"accuracy": {"value": 0.8 + 9e-7, "low": 0.7, "n": 40}}}

    assert compare_replay(record(), repeat) == []
    repeat["candidates"]["mlp_keras"]["metrics"]["accuracy"]["value"] = 0.8 + 2e-6
    assert [difference.what for difference in compare_replay(record(), repeat)] == ["mlp_keras: accuracy"]


def test_causes_come_before_results_and_a_missing_candidate_is_told() -> None:
    repeat = changed("data_digest", "d2")
    del repeat["candidates"]["forest"]
    repeat["winner"] = "mlp_keras"

    assert [(d.kind, d.what) for d in compare_replay(record(), repeat)] == [
        ("cause", "rows"),
        ("result", "winner"),
        ("result", "forest: candidate"),
    ]


def test_changed_code_is_named_by_unit_where_the_record_knows_it() -> None:
    old, new = record() | {"code": {"trainer.a.f": "1", "trainer.a.g": "2"}}, record() | {"code": {"trainer.a.f": "9", "trainer.a.g": "2"}}

    assert [difference.what for difference in compare_replay(old, new)] == ["code of trainer.a.f"]


def test_the_settings_to_train_again_come_from_the_record() -> None:
    assert replay_settings(record()) == {
        "tables": record()["settings"],
        "candidates": ["forest", "mlp_keras"],
        "overrides": [{"gate": "G5", "reason": "few rows"}],
        "champion": None,
    }


def test_a_record_without_settings_cannot_be_repeated() -> None:
    with pytest.raises(ArtifactError, match=r"run x: its record holds no settings \(unreadable\); choose another run"):
        replay_settings({"id": "x", "status": "unreadable"})
